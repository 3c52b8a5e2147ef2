create or replace function memory_plugin.forget_memory(id uuid, requested_by_namespace text)
returns void
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
begin
    perform _check_namespace('requested_by_namespace', forget_memory.requested_by_namespace);
    if forget_memory.id is null then
        raise exception using errcode = 'MP001', message = 'id is required';
    end if;
    delete from memory_records as r
    using memory_namespaces as n
    where
        r.namespace = forget_memory.requested_by_namespace
        and r.id = forget_memory.id
        and n.name = r.namespace
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now());
    if not found then
        raise exception using errcode = 'MP005',
            message = format('memory %s does not exist in this namespace', forget_memory.id);
    end if;
end
$function$;

comment on function memory_plugin.forget_memory(uuid, text) is
    'Delete one memory of the namespace that asks. A row of another namespace under the same id is neither '
    'changed nor '
    'revealed. Errors: MP001 for a bad name or no id, MP005 where there is no such live memory.';

revoke all on function memory_plugin.forget_memory(uuid, text) from public;
