create or replace function memory_plugin.v1_commit_memory(namespace text, body json)
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
    v_id_text text;
    v_id uuid;
begin
    if json_typeof(body) is distinct from 'object' then
        perform _json_body(body);
    end if;
    select x.* into v_body
    from json_to_record(body) as x (
        content json, kind json, source json, id json, expires_at json, propagation json, pin json, embedding json
    );
    v_id_text := _json_text('id', v_body.id);
    if v_id_text is not null then
        if v_id_text !~* '^@uuid@$' then
            raise exception using errcode = 'MP001', message = 'id must be a UUID';
        end if;
        v_id := v_id_text::uuid;
    end if;
    v_id := commit_memory(
        v1_commit_memory.namespace,
        case json_typeof(v_body.content) when 'string' then v_body.content #>> '{}' else _json_text('content', v_body.content) end,
        case json_typeof(v_body.kind) when 'string' then v_body.kind #>> '{}' else _json_text('kind', v_body.kind) end,
        case json_typeof(v_body.source) when 'string' then v_body.source #>> '{}' else _json_text('source', v_body.source) end,
        v_id,
        _json_time('expires_at', v_body.expires_at),
        _json_object('propagation', v_body.propagation),
        _json_boolean('pin', v_body.pin),
        _json_embedding(v_body.embedding)
    );
    return ('{"id":"' || v_id || '","namespace":"' || v1_commit_memory.namespace || '"}')::json;
end
$function$;

comment on function memory_plugin.v1_commit_memory(text, json) is
    'POST /v1/namespaces/{name}/memories: MemoryWrite in, {id, namespace} out. Errors: MP001, MP002, '
    'MP009.';

revoke all on function memory_plugin.v1_commit_memory(text, json) from public;
