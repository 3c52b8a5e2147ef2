create or replace function memory_plugin._test_embedding(p_provider jsonb) returns jsonb
language plpython3u volatile parallel unsafe strict security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $plpython$
if "test" not in SD:
    @source:http_post@
    @source:embedding@
    SD["test"] = lambda provider: test(plpy, GD, "@mark@", post, json.loads(provider))
return SD["test"](p_provider)
$plpython$;

comment on function memory_plugin._test_embedding(jsonb) is
'As test_embedding(), of a provider that is not configured yet: a row of embedding_provider.';

revoke all on function memory_plugin._test_embedding(jsonb) from public;
