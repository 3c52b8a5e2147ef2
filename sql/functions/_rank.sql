create or replace function memory_plugin._rank(
    p_lexical memory_plugin._candidate[],
    p_semantic memory_plugin._candidate[],
    p_limit integer,
    p_offset integer,
    p_min_score double precision,
    p_recency_half_life double precision,
    p_lexical_weight double precision,
    p_semantic_weight double precision,
    p_explain boolean
)
returns memory_plugin.memory_hit[]
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    with lexical as (
        select
            c.namespace, c.id, c.score, c.place,
            -- Min-max over the arm's own list, so that the two arms' scales can be added.
            coalesce((c.score - min(c.score) over ()) / nullif(max(c.score) over () - min(c.score) over (), 0), 1) as unit
        from unnest(p_lexical) with ordinality as c (namespace, id, score, place)
    ),

    semantic as (
        select
            c.namespace, c.id, c.score, c.place,
            coalesce((c.score - min(c.score) over ()) / nullif(max(c.score) over () - min(c.score) over (), 0), 1) as unit
        from unnest(p_semantic) with ordinality as c (namespace, id, score, place)
    ),

    fused as (
        select
            namespace, id,
            case
                when p_lexical is null then s.score
                when p_semantic is null then l.score
                else (p_lexical_weight * coalesce(l.unit, 0) + p_semantic_weight * coalesce(s.unit, 0))
                    / (p_lexical_weight + p_semantic_weight)
            end as score,
            l.score as lexical, l.place as lexical_rank, s.score as semantic, s.place as semantic_rank
        from lexical as l full join semantic as s using (namespace, id)
    ),

    aged as (
        select
            f.*, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, r.created_at,
            power(
                0.5::double precision,
                greatest(extract(epoch from now() - r.created_at), 0)::double precision / p_recency_half_life
            ) as recency
        from fused as f inner join memory_records as r on f.namespace = r.namespace and f.id = r.id
    ),

    page as (
        select a.*, coalesce(a.recency * case when p_lexical is null then (1 + a.score) / 2 else a.score end, a.score) as final
        from aged as a
    ),

    chosen as (
        select p.* from page as p
        where p_min_score is null or p.final >= p_min_score
        order by p.final desc, p.created_at desc, p.id, p.namespace
        limit p_limit offset p_offset
    )

    select
        array_agg(
            row(
                c.id, c.namespace, c.content, c.kind, c.source, c.expires_at, c.propagation, c.pin, c.created_at,
                c.final,
                case when p_explain then jsonb_strip_nulls(jsonb_build_object(
                    'lexical', c.lexical, 'lexical_rank', c.lexical_rank,
                    'semantic', c.semantic, 'semantic_rank', c.semantic_rank,
                    'recency', c.recency
                )) end
            )::memory_hit
            order by c.final desc, c.created_at desc, c.id, c.namespace
        )
    from chosen as c
$function$;

comment on function memory_plugin._rank(
    memory_plugin._candidate[], memory_plugin._candidate[], integer, integer, double precision, double precision,
    double precision, double precision, boolean
) is
    'Fuse the lists of one or two arms (null: an arm that did not run), weigh by age where asked, and fetch one '
    'page of memories. Two arms: the weighted mean of min-max scores over the union of both lists. A half-life '
    'multiplies the score by 2^(-age / half-life).';
