create or replace function memory_plugin.test_embedding() returns jsonb
language plpython3u volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $plpython$
if "test" not in SD:
    @source:http_post@
    @source:embedding@
    SD["test"] = lambda: test(plpy, GD, "@mark@", post, None)
return SD["test"]()
$plpython$;

comment on function memory_plugin.test_embedding() is
'Send one word to the configured embedding provider, from this server: {ok, took_ms} or {ok, took_ms, problem}. '
'Changes nothing. For the owner alone.';

revoke all on function memory_plugin.test_embedding() from public;
