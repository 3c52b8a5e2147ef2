create or replace function memory_plugin.get_memory(namespace text, id uuid)
returns setof memory_plugin.memory
language plpgsql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
rows 1
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
begin
    perform _check_namespace('namespace', get_memory.namespace);
    if get_memory.id is null then
        raise exception using errcode = 'MP001', message = 'id is required';
    end if;
    return query
    select r.id, r.namespace, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, r.created_at
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    where
        r.namespace = any (_visible_namespaces(array[get_memory.namespace]))
        and r.id = get_memory.id
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now());
end
$function$;

comment on function memory_plugin.get_memory(text, uuid) is
    'One live memory by namespace and id; no row where there is none. Errors: MP001 for a bad name or no id.';

revoke all on function memory_plugin.get_memory(text, uuid) from public;
