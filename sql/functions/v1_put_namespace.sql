create or replace function memory_plugin.v1_put_namespace(name text, body json)
returns json
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
declare
    v_body record;
begin
    perform _json_body(body);
    select x.* into v_body from json_to_record(body) as x (kind json, expires_at json, metadata json);
    return _json_namespace(upsert_namespace(
        v1_put_namespace.name,
        _json_text('kind', v_body.kind),
        _json_time('expires_at', v_body.expires_at),
        _json_object('metadata', v_body.metadata)
    ));
end
$function$;

comment on function memory_plugin.v1_put_namespace(text, json) is
    'PUT /v1/namespaces/{name}: NamespaceUpsert in, Namespace out. Errors: MP001, MP009.';

revoke all on function memory_plugin.v1_put_namespace(text, json) from public;
