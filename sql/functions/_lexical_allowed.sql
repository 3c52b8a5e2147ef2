create or replace function memory_plugin._lexical_allowed(
    p_candidates memory_plugin._candidate[], p_plan memory_plugin._lexical_plan
)
returns memory_plugin._candidate[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values: each candidate by its key.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
begin
    return (
        select coalesce(array_agg(row(c.namespace, c.id, c.score)::_candidate order by c.place), '{}')
        from unnest(p_candidates) with ordinality as c (namespace, id, score, place)
        inner join memory_records as r on c.namespace = r.namespace and c.id = r.id
        where @demanded(p_plan, r.content_tsv, r.content)@
    );
end
$function$;

comment on function memory_plugin._lexical_allowed(memory_plugin._candidate[], memory_plugin._lexical_plan) is
    'Those of some candidates that hold what a query demands and nothing of what it excludes, in the same order.';
