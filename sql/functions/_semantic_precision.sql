create or replace function memory_plugin._semantic_doubt()
returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 0.002;
end
$function$;

comment on function memory_plugin._semantic_doubt() is
    'Twice the greatest rounding error of a score in half precision: a row that is so far behind the last place does '
    'not belong before it.';

create or replace function memory_plugin._semantic_measured(
    p_candidates memory_plugin._candidate[], p_embedding @extschema:vector@.vector, p_limit integer
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
declare
    v_doubt constant double precision := _semantic_doubt();
    v_last double precision;
begin
    select u.score into v_last
    from unnest(p_candidates) as u
    order by u.score desc
    limit 1 offset p_limit - 1;
    return (
        select
            coalesce(
                array_agg(
                    row(m.namespace, m.id, 1 - m.distance)::_candidate
                    order by m.distance, m.created_at desc, m.id, m.namespace
                ),
                '{}'
            )
        from (
            select r.namespace, r.id, r.created_at, r.embedding operator(@extschema:vector@.<=>) p_embedding as distance
            from unnest(p_candidates) as u
            inner join memory_records as r on u.namespace = r.namespace and u.id = r.id
            where v_last is null or u.score >= v_last - v_doubt
            order by distance, r.created_at desc, r.id, r.namespace
            limit p_limit
        ) as m
    );
end
$function$;

comment on function memory_plugin._semantic_measured(
    memory_plugin._candidate[], @extschema:vector@.vector, integer
) is 'The p_limit nearest of some candidates by their stored vectors, nearest first.';

create or replace function memory_plugin._semantic_apart(p_embedding @extschema:vector@.vector)
returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- By way of half precision, which has no number so small that its square were none: that would be an error.
    v_unit constant @extschema:vector@.vector :=
        @extschema:vector@.l2_normalize(p_embedding)::@extschema:vector@.halfvec::@extschema:vector@.vector;
begin
    -- Rounding two vectors of this kind to half precision puts their nearness off by 0.0003 of this norm on average, and
    -- hardly ever by eight times as much.
    return 0.0048 * @extschema:vector@.vector_norm(v_unit operator(@extschema:vector@.*) v_unit);
end
$function$;

comment on function memory_plugin._semantic_apart(@extschema:vector@.vector) is
    'How far apart two scores of this embedding in half precision must be for their order to be beyond doubt.';

create or replace function memory_plugin._semantic_crowded(
    p_candidates memory_plugin._candidate[], p_embedding @extschema:vector@.vector, p_limit integer
)
returns boolean
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return coalesce(
        (
            select c.score - (select min(l.score) from unnest(p_candidates) as l)
            from unnest(p_candidates) as c
            order by c.score desc
            limit 1 offset p_limit - 1
        ) < _semantic_apart(p_embedding),
        false
    );
end
$function$;

comment on function memory_plugin._semantic_crowded(
    memory_plugin._candidate[], @extschema:vector@.vector, integer
) is
    'Whether half precision may confuse the place p_limit of some candidates with their last: behind that one there '
    'may be more that belong before it.';

create or replace function memory_plugin._semantic_ordered(
    p_candidates memory_plugin._candidate[], p_embedding @extschema:vector@.vector, p_limit integer, p_closely boolean
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
declare
    v_apart double precision := _semantic_apart(p_embedding);
begin
    if not p_closely then
        v_apart := 0;
    elsif v_apart > 0.0005 then
        -- Few numbers make up the whole vector, and the score would be seen to be off.
        v_apart := 'infinity';
    end if;
    return (
        with placed as (
            select
                b.namespace, b.id, b.score, b.last, b.apart < v_apart as doubtful, b.apart = 0 as tied
            from (
                select
                    u.*, nth_value(u.score, p_limit) over w as last,
                    coalesce(least(u.score - lead(u.score) over w, lag(u.score) over w - u.score), 0) as apart
                from unnest(p_candidates) as u
                window w as (order by u.score desc, u.id range between unbounded preceding and unbounded following)
            ) as b
        ),

        scored as (
            select
                p.namespace, p.id, r.created_at,
                case
                    when p.doubtful then 1 - (r.embedding operator(@extschema:vector@.<=>) p_embedding)
                    else p.score
                end as score
            from placed as p
            -- A stored vector lies apart from its row: to fetch those of ten takes as long as half a walk. Of the same
            -- score, the newest come first.
            left join memory_records as r
                on p.namespace = r.namespace and r.id = case when p.doubtful or p.tied then p.id end
            where p.last is null or p.score >= p.last - v_apart
        ),

        first as (
            select s.* from scored as s order by s.score desc, s.created_at desc, s.id, s.namespace limit p_limit
        )

        select
            coalesce(
                array_agg(
                    row(f.namespace, f.id, f.score)::_candidate
                    order by f.score desc, f.created_at desc, f.id, f.namespace
                ),
                '{}'
            )
        from first as f
    );
end
$function$;

comment on function memory_plugin._semantic_ordered(
    memory_plugin._candidate[], @extschema:vector@.vector, integer, boolean
) is
    'The p_limit nearest of some candidates, nearest first, by their scores, which are those of the copy. closely: '
    'what half precision may confuse is measured by the stored vectors.';

create or replace function memory_plugin._semantic_few()
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 50;
end
$function$;

comment on function memory_plugin._semantic_few() is
    'Up to so many candidates, whose scores are then fused or aged, are scored by their stored vectors; more of them '
    'by the copies in half precision.';
