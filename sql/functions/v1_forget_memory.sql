create or replace function memory_plugin.v1_forget_memory(id text, body json)
returns void
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
declare
    v_namespace text;
begin
    perform _json_body(body);
    v_namespace := _json_text('requested_by_namespace', body -> 'requested_by_namespace');
    perform _check_namespace('requested_by_namespace', v_namespace);
    if v1_forget_memory.id !~* '^@uuid@$' then
        raise exception using errcode = 'MP005', message = 'memory does not exist: its id is not a UUID';
    end if;
    perform forget_memory(v1_forget_memory.id::uuid, v_namespace);
end
$function$;

comment on function memory_plugin.v1_forget_memory(text, json) is
    'DELETE /v1/memories/{id}: {requested_by_namespace} in. Errors: MP001, MP005 (also for an id that is no UUID).';

revoke all on function memory_plugin.v1_forget_memory(text, json) from public;
