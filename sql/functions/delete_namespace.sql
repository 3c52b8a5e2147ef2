create or replace function memory_plugin.delete_namespace(name text)
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
    perform _check_namespace('name', delete_namespace.name);
    -- A large namespace expires now, which hides it at once, and the sweeper removes its rows in batches: deleting a
    -- million rows here would outlast every client.
    if (
        select count(*) > 10000
        from (select from memory_records as r where r.namespace = delete_namespace.name limit 10001) as counted
    ) then
        update memory_namespaces as n
        set expires_at = '-infinity'
        where n.name = delete_namespace.name and (n.expires_at is null or n.expires_at > now());
    else
        delete from memory_namespaces as n
        where n.name = delete_namespace.name and (n.expires_at is null or n.expires_at > now());
    end if;
    if not found then
        raise exception using errcode = 'MP004', message = format('namespace %s does not exist', delete_namespace.name);
    end if;
end
$function$;

comment on function memory_plugin.delete_namespace(text) is
    'Delete a namespace and its memories; of more than 10,000 the rows are hidden at once and removed by '
    'sweep(). Errors: MP001 for a bad name, MP004 where there is no such live namespace.';

revoke all on function memory_plugin.delete_namespace(text) from public;
