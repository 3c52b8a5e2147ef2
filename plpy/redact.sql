create or replace function memory_plugin.redact(content text) returns text
language plpython3u stable strict parallel safe
-- Reads the operator's patterns, which its callers need not see.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $plpython$
# Kept for the session: putting the patterns together takes some milliseconds.
if "redact" not in SD:
    @source@
    SD["redact"] = redact_in_database
return SD["redact"](plpy, SD, content)
$plpython$;

comment on function memory_plugin.redact(text) is
'Mask the credentials in a text, each as [redacted:kind]; the rest stays as it is. Null gives null; masking twice is '
'masking once. Known are tokens and keys with a published prefix, JWTs, Authorization headers, PEM private keys, '
'passwords in URLs, the values of keys named password, secret, token or api_key, and what redaction_patterns says. '
'Raises no error of its own. '
'Source: plpy/redact.py.';

revoke all on function memory_plugin.redact(text) from public;
