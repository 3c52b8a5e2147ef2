create or replace function memory_plugin.v1_delete_namespace(name text)
returns void
language sql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select delete_namespace(v1_delete_namespace.name)
$function$;

comment on function memory_plugin.v1_delete_namespace(text) is 'DELETE /v1/namespaces/{name}. Errors: MP001, MP004.';

revoke all on function memory_plugin.v1_delete_namespace(text) from public;
