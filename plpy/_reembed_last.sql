create or replace function memory_plugin._reembed_last(p_seconds double precision) returns integer
language plpython3u volatile parallel unsafe strict security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $plpython$
if "last" not in SD:
    @source:http_post@
    @source:embedding@
    @source:reembed@
    def fetch(provider, texts, seconds):
        return ask(provider, texts, seconds, post, _ticker(plpy), session(GD, "@mark@")["hosts"])
    SD["last"] = lambda seconds: last(plpy, seconds, fetch)
return SD["last"](p_seconds)
$plpython$;

comment on function memory_plugin._reembed_last(double precision) is
'Fetch the second vectors of memories written a moment ago, in the caller''s transaction, which keeps writers out: a '
'step of memory-plugin reembed. p_seconds: it begins nothing after so long. Returns how many were stored; none where '
'the provider fails. Source: plpy/reembed.py.';

revoke all on function memory_plugin._reembed_last(double precision) from public;
