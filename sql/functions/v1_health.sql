create or replace function memory_plugin.v1_health()
returns json
language sql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select json_build_object('status', h.status, 'version', h.version, 'capabilities', h.capabilities)
    from health() as h
$function$;

comment on function memory_plugin.v1_health() is 'GET /v1/health: {status, version, capabilities}.';

revoke all on function memory_plugin.v1_health() from public;
