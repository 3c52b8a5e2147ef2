-- Neither security definer nor a pinned search_path: Postgres lets such a procedure commit nothing, and it must, so
-- that the provider is asked while no snapshot and no lock is held. Every name in it is written out in full.
create or replace procedure memory_plugin._reembed_batch(
    p_rows integer, p_probe boolean default false, inout p_result jsonb default null
)
language plpython3u security invoker
as $plpython$
if "refill" not in SD:
    @source:http_post@
    @source:embedding@
    @source:reembed@
    def fetch(provider, texts):
        tick = lambda: (plpy.execute("select"), plpy.commit())
        return _answer(provider, texts, "embed" if texts else "probe", post, tick, session(GD, "@mark@")["hosts"])
    SD["refill"] = lambda most, probe: refill(plpy, most, probe, fetch)
return [SD["refill"](p_rows, p_probe)]
$plpython$;

comment on procedure memory_plugin._reembed_batch (integer, boolean, jsonb) is
'Fetch the second vectors of at most p_rows memories from the provider in the slot next: a step of memory-plugin '
'reembed, for the owner alone. Not inside a transaction block: it commits as it goes. p_probe: only see whether the '
'provider works. p_result: {outcome, stored, problem, seconds}; outcome is done, more (call again), wait (the provider '
'failed: call again after seconds) or off (no change is under way).';

revoke all on procedure memory_plugin._reembed_batch(integer, boolean, jsonb) from public;
