create or replace function memory_plugin.sweep(max_rows integer default 1000)
returns bigint
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
declare
    v_swept bigint;
    v_more bigint;
begin
    if max_rows is null or max_rows not between 1 and 1000000 then
        raise exception using errcode = 'MP001', message = 'max_rows must be between 1 and 1000000';
    end if;
    -- Rows that somebody else holds are left for the next batch: a sweep waits for nobody.
    delete from memory_records as r
    where
        r.ctid = any (array(
            select e.ctid from memory_records as e where e.expires_at <= now()
            order by e.expires_at limit max_rows for update skip locked
        ));
    get diagnostics v_swept = row_count;

    delete from memory_records as r
    where
        r.ctid = any (array(
            select e.ctid
            from memory_namespaces as n inner join memory_records as e on n.name = e.namespace
            where n.expires_at <= now()
            -- One that is being renewed is held by who renews it, and one that has been is no longer expired.
            limit max_rows - v_swept for update of e skip locked for no key update of n skip locked
        ));
    get diagnostics v_more = row_count;
    v_swept := v_swept + v_more;

    -- Only empty ones: taking memories along would make the batch as large as the namespace.
    delete from memory_namespaces as n
    where
        n.name = any (array(
            select e.name from memory_namespaces as e
            where e.expires_at <= now() and not exists (select from memory_records as r where r.namespace = e.name)
            limit max_rows - v_swept for update skip locked
        ));
    get diagnostics v_more = row_count;
    return v_swept + v_more;
end
$function$;

comment on function memory_plugin.sweep(integer) is
    'Delete at most max_rows (1 to 1000000) expired memories, memories of expired namespaces and emptied '
    'namespaces; return how many rows were removed. No search sees them even before that. Call again while it '
    'returns max_rows. Errors: MP001 for a bad argument.';

revoke all on function memory_plugin.sweep(integer) from public;
