create or replace function memory_plugin.v1_patch_namespace(name text, body json)
returns json
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
declare
    -- Not json_to_record: here an explicit null, which clears the field, is not the same as an absent one.
    v_expires_at json;
    v_metadata json;
begin
    perform _json_body(body);
    v_expires_at := body -> 'expires_at';
    v_metadata := body -> 'metadata';
    return _json_namespace(patch_namespace(
        v1_patch_namespace.name,
        _json_time('expires_at', v_expires_at),
        _json_object('metadata', v_metadata),
        clear_expires_at => json_typeof(v_expires_at) = 'null',
        clear_metadata => json_typeof(v_metadata) = 'null'
    ));
end
$function$;

comment on function memory_plugin.v1_patch_namespace(text, json) is
    'PATCH /v1/namespaces/{name}: NamespacePatch in, Namespace out; an explicit null clears a field. Errors: '
    'MP001, MP004.';

revoke all on function memory_plugin.v1_patch_namespace(text, json) from public;
