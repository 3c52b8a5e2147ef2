create or replace function memory_plugin._rank(
    p_rows memory_plugin._scored[],
    p_limit integer,
    p_offset integer,
    p_min_score double precision,
    p_recency_half_life double precision,
    p_explain boolean,
    p_bare boolean
)
returns memory_plugin.memory_hit[]
-- Not in the language sql, which would plan it anew at every search.
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    v_hits memory_hit[];
    -- Where age changes nothing, what ranks behind the page by its score need not be fetched.
    v_last constant double precision := case when p_recency_half_life is null then (
        select s.score from unnest(p_rows) as s order by s.score desc limit 1 offset p_limit + p_offset - 1
    ) end;
begin
    with aged as (
        select
            s.*, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, r.created_at,
            -- Below 2^-900 there is no number for it.
            case when p_recency_half_life is not null then power(
                0.5::double precision,
                least(greatest(extract(epoch from now() - r.created_at), 0)::double precision / p_recency_half_life, 900)
            ) end as recency
        from unnest(p_rows) as s inner join memory_records as r on s.namespace = r.namespace and s.id = r.id
        where v_last is null or s.score >= v_last
    ),

    page as (
        select
            a.*,
            -- What is less than nothing gets less with age.
            coalesce(a.score * case when a.score < 0 then 2 - a.recency else a.recency end, a.score) as final
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
                c.id, c.namespace, case when not p_bare then c.content end, c.kind, c.source, c.expires_at,
                case when not p_bare then c.propagation end, c.pin, c.created_at, c.final,
                case when p_explain then jsonb_strip_nulls(jsonb_build_object(
                    'lexical', c.lexical, 'lexical_rank', c.lexical_rank,
                    'semantic', c.semantic, 'semantic_rank', c.semantic_rank,
                    'neighbour', c.neighbour, 'recency', c.recency
                )) end
            )::memory_hit
            order by c.final desc, c.created_at desc, c.id, c.namespace
        )
    into v_hits
    from chosen as c;
    return v_hits;
end
$function$;

comment on function memory_plugin._rank(
    memory_plugin._scored[], integer, integer, double precision, double precision, boolean, boolean
) is
    'Weigh what was found by age where asked, and fetch one page of memories, best first; p_bare: without content and '
    'propagation. A half-life multiplies the score by 2^(-age / half-life), one below 0 by what is left to 2.';

create or replace function memory_plugin._without(p_rows memory_plugin._scored[], p_hits memory_plugin.memory_hit[])
returns memory_plugin._scored[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- Thousands of each: not each with each.
set enable_nestloop = off
as $function$
begin
    return array(
        select s
        from unnest(p_rows) as s
        where not exists (select from unnest(p_hits) as h where s.namespace = h.namespace and s.id = h.id)
    );
end
$function$;

comment on function memory_plugin._without(memory_plugin._scored[], memory_plugin.memory_hit[]) is
    'What was found, but for the memories among the hits.';
