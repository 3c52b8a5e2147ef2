create or replace function memory_plugin.maintain(max_rows integer default 1000)
returns bigint
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
begin
    -- Of a transaction and not of a session, which a pooler may hand to somebody else with the lock still on it.
    if not pg_try_advisory_xact_lock(hashtextextended('memory_plugin.maintain', 0)) then
        return null;
    end if;
    return sweep(max_rows);
end
$function$;

comment on function memory_plugin.maintain(integer) is
    'Do one batch of upkeep: sweep(max_rows), unless another session is doing it (then null, at once). Return how '
    'many rows were removed; call again while it returns max_rows. Every sidecar calls it from time to time, and '
    'one of them at a time is active. Errors: MP001 for a bad argument.';

revoke all on function memory_plugin.maintain(integer) from public;
