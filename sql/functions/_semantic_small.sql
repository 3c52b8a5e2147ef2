create or replace function memory_plugin._semantic_small(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer, p_closely boolean,
    out candidates memory_plugin._candidate[], out scored bigint
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values, and making one would take longer than all the rest: the live rows of some
-- namespaces from an index, the nearest of them by their keys.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
declare
    -- To count to no end takes longer than is saved.
    c_most constant integer := least(_semantic_exact(), 1000);
    v_doubt constant double precision := _semantic_doubt();
    v_kinds constant text[] := coalesce(p_filter.kinds, '{@kinds@}');
    v_sources constant text[] := p_filter.sources;
    v_after constant timestamptz := p_filter.created_after;
    v_before constant timestamptz := p_filter.created_before;
begin
    select count(*) into scored
    from (
        select from memory_vectors as v
        where v.namespace = any (p_namespaces)
            and v.kind = any (v_kinds)
            and coalesce(v.expires_at, 'infinity') > now()
        limit c_most + 1
    ) as counted;
    if scored > c_most then
        return;
    end if;
    with near as materialized (
        select v.namespace, v.id, v.created_at, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
        from memory_vectors as v
        where v.namespace = any (p_namespaces)
            and v.kind = any (v_kinds)
            and coalesce(v.expires_at, 'infinity') > now()
            and (v_sources is null or v.source = any (v_sources))
            and (v_after is null or v.created_at > v_after)
            and (v_before is null or v.created_at < v_before)
    )

    select
        coalesce(
            array_agg(
                row(m.namespace, m.id, m.score)::_candidate order by m.score desc, m.created_at desc, m.id, m.namespace
            ),
            '{}'
        )
    into candidates
    from (
        select
            n.namespace, n.id, n.created_at,
            case when r.id is null then n.score else 1 - (r.embedding operator(@extschema:vector@.<=>) p_embedding) end as score
        from near as n
        -- What half precision may confuse with the last place is measured by the stored vectors.
        left join memory_records as r
            on n.namespace = r.namespace
            and r.id = case when p_closely or (select count(*) from near) <= _semantic_few() then n.id end
        where n.score >= coalesce(
            (select l.score from near as l order by l.score desc limit 1 offset p_limit - 1) - v_doubt, '-infinity'
        )
        order by score desc, n.created_at desc, n.id, n.namespace
        limit p_limit
    ) as m;
end
$function$;

comment on function memory_plugin._semantic_small(
    text[], @extschema:vector@.vector, @extschema:vector@.halfvec, memory_plugin._filter, integer, boolean
) is
    'The short way for namespaces with few live rows of the kinds together, as most are: up to 1,000, or as many as '
    '_semantic_exact() says. The p_limit nearest of all of them, nearest first; scored: how many they are. With more '
    'rows, candidates is null. Of up to _semantic_few(), or closely, scores and order are those of the stored vectors, '
    'else those of the copies.';
