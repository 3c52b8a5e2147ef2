create or replace function memory_plugin.embedding_session() returns boolean
language plpython3u volatile parallel unsafe
-- Reads the provider's key, which the caller may not, and keeps it where no SQL can see it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $plpython$
if "load" not in SD:
    @source:embedding@
    SD["load"] = lambda: load(plpy, GD, "@mark@")
return SD["load"]()
$plpython$;

comment on function memory_plugin.embedding_session() is
'A step of embed_pending: make the provider known to the PL/Python of this session; false when none is configured.';

revoke all on function memory_plugin.embedding_session() from public;
