create or replace function memory_plugin._embed_query(p_query text) returns text
language plpython3u volatile parallel unsafe strict security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $plpython$
# Kept until the function is replaced; what it leaves in GD carries the mark of the code.
if "query" not in SD:
    @source:http_post@
    @source:embedding@
    SD["query"] = lambda text: query(plpy, GD, "@mark@", text, post)
return SD["query"](p_query)
$plpython$;

comment on function memory_plugin._embed_query(text) is
'The embedding of a query, as text that vector reads; null when the provider does not give one within '
'query_timeout_ms or lately failed. The last 128 of a session are kept in it. Source: plpy/embedding.py.';

revoke all on function memory_plugin._embed_query(text) from public;
