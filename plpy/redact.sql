create or replace function memory_plugin.redact(content text) returns text
language plpython3u immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $plpython$
# Kept for the session: putting the patterns together takes some milliseconds.
if "redact" not in SD:
    @source@
    SD["redact"] = redact
return SD["redact"](content)
$plpython$;

comment on function memory_plugin.redact(text) is
'Mask the credentials in a text, each as [redacted:kind]; the rest stays as it is. Null gives null; masking twice is '
'masking once. Known are tokens and keys with a published prefix, JWTs, Authorization headers, PEM private keys, '
'passwords in URLs, and the values of keys named password, secret, token or api_key. Raises no error of its own. '
'Source: plpy/redact.py.';

revoke all on function memory_plugin.redact(text) from public;
