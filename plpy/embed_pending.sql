-- Neither security definer nor a pinned search_path: Postgres lets such a procedure commit nothing, and it must, so
-- that the provider is asked while no snapshot and no lock is held. Every name in it is written out in full.
create or replace procedure memory_plugin.embed_pending(
    max_rows integer default 1000, probe boolean default false, inout result jsonb default null
)
language plpython3u security invoker
as $plpython$
if "pending" not in SD:
    @source:http_post@
    @source:embedding@
    SD["pending"] = lambda most, probe: pending(plpy, GD, "@mark@", most, probe, post)
return [SD["pending"](max_rows, probe)]
$plpython$;

comment on procedure memory_plugin.embed_pending (integer, boolean, jsonb) is
'Fetch the embeddings of at most max_rows (1 to 1000000) memories that were committed without one, oldest first, from '
'the configured provider. One session at a time does it. Not inside a transaction block: it commits as it goes. '
'probe: also see whether a provider that was slow to answer searches is well again. result: {outcome, embedded, '
'seconds}; outcome is done, more (call again), wait (the provider failed: call again after seconds), elsewhere '
'(another session is at it) or off (no provider). Errors: MP001 for a bad argument.';

revoke all on procedure memory_plugin.embed_pending(integer, boolean, jsonb) from public;
