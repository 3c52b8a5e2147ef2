create or replace function memory_plugin._semantic_sizes(
    p_namespaces text[], p_kinds text[], p_each integer, p_all integer,
    out small text[], out large text[], out total bigint
)
-- _semantic_planned is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- Counting has one plan: an index-only scan of each namespace, cut off where it is large.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
declare
    v_kinds constant text[] := coalesce(p_kinds, '{fact,summary,checkpoint}');
    -- Of several namespaces each has its part, and the others what one leaves. What the planner knows to be far larger
    -- need not be counted so far; to ask it takes as long as to count a thousand rows.
    v_each integer := greatest(
        least(p_each, p_all / cardinality(p_namespaces), case when p_each > 3000 then 1000 end), 20
    );
    v_more integer;
    v_planned boolean := false;
    v_count record;
begin
    small := '{}';
    large := p_namespaces;
    total := 0;
    loop
        select
            coalesce(array_agg(s.name) filter (where s.rows <= v_each), '{}') as small,
            coalesce(array_agg(s.name) filter (where s.rows > v_each), '{}') as large,
            coalesce(sum(s.rows) filter (where s.rows <= v_each), 0) as total
        into v_count
        from (
            select
                n.name,
                case
                    when v_planned and _semantic_planned(array[n.name], p_kinds) > 1.25 * v_each then v_each + 1
                    else (
                        select count(*)
                        from (
                            select from memory_vectors as v
                            where v.namespace = n.name
                                and v.kind = any (v_kinds)
                                and coalesce(v.expires_at, 'infinity') > now()
                            limit v_each + 1
                        ) as counted
                    )
                end as rows
            from unnest(large) as n (name)
        ) as s
        where s.rows > 0;
        small := small || v_count.small;
        large := v_count.large;
        total := total + v_count.total;
        exit when large = '{}';
        v_more := least(p_each, (p_all - total) / cardinality(large));
        exit when v_more <= v_each or v_more < 2 * v_each and v_more < p_each;
        v_each := v_more;
        v_planned := true;
    end loop;
end
$function$;

comment on function memory_plugin._semantic_sizes(text[], text[], integer, integer) is
    'Which namespaces have up to p_each live rows of the kinds (fewer, where all such might have more than p_all), and '
    'which have more; total: the rows of the small ones. Those without any are in neither.';

create or replace function memory_plugin._semantic_planned(p_namespaces text[], p_kinds text[])
returns double precision
-- explain is not allowed in a function that is not volatile.
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_plan json;
begin
    execute format(
        'explain (format json) select from memory_plugin.memory_vectors as v '
        'where v.namespace = any (%L) and coalesce(v.expires_at, ''infinity'') > now()',
        p_namespaces
    )
    -- All kinds are not named: the planner takes their parts for less than the whole, up to a third of it.
    || case when p_kinds is null then '' else format(' and v.kind = any (%L)', p_kinds) end into v_plan;
    return (v_plan #>> '{0,Plan,Plan Rows}')::double precision;
end
$function$;

comment on function memory_plugin._semantic_planned(text[], text[]) is
    'How many live rows of the kinds the planner supposes the namespaces to have, by the statistics of the last '
    'analyze: within some percent for the large ones of a store, far off where much was written or deleted since.';

create or replace function memory_plugin._semantic_many(p_namespaces text[], p_kinds text[], p_most integer)
returns boolean
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_planned constant double precision := _semantic_planned(p_namespaces, p_kinds);
begin
    -- Of a store that was never analyzed the planner supposes next to nothing.
    return case
        when v_planned > p_most / 4 then v_planned > p_most else _semantic_rows(p_namespaces, p_kinds, p_most) > p_most
    end;
end
$function$;

comment on function memory_plugin._semantic_many(text[], text[], integer) is
    'Whether the namespaces have more than p_most live rows of the kinds, or about so many, by the statistics of the '
    'last analyze; counted where these know of less than a quarter.';

create or replace function memory_plugin._semantic_rows(p_namespaces text[], p_kinds text[], p_most integer)
returns bigint
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    return (
        select count(*)
        from (
            select from memory_vectors as v
            where v.namespace = any (p_namespaces)
                and v.kind = any (coalesce(p_kinds, '{fact,summary,checkpoint}'))
                and coalesce(v.expires_at, 'infinity') > now()
            limit p_most + 1
        ) as counted
    );
end
$function$;

comment on function memory_plugin._semantic_rows(text[], text[], integer) is
    'How many live rows of the kinds the namespaces have; p_most + 1 where they have more than p_most.';

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
    'A score in half precision is off by less than half of this: what lies so far behind the last place stays there.';

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
            array_agg(
                row(m.namespace, m.id, 1 - m.distance)::_candidate
                order by m.distance, m.created_at desc, m.id, m.namespace
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
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    -- Rounding two vectors of this kind to half precision puts their nearness off by 0.0003 of this norm on average, and
    -- hardly ever by eight times as much: so far apart, two scores are in the right order.
    v_apart double precision := 0.0048 * @extschema:vector@.vector_norm(
        v_unit operator(@extschema:vector@.*) v_unit
    );
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
                u.namespace, u.id, u.score, nth_value(u.score, p_limit) over w as last,
                coalesce(
                    least(u.score - lead(u.score) over w, lag(u.score) over w - u.score), 0
                ) < v_apart as doubtful
            from unnest(p_candidates) as u
            window w as (order by u.score desc, u.id range between unbounded preceding and unbounded following)
        ),

        scored as (
            select
                p.namespace, p.id, r.created_at,
                case
                    when p.doubtful then 1 - (r.embedding operator(@extschema:vector@.<=>) p_embedding)
                    else p.score
                end as score
            from placed as p
            -- A stored vector lies apart from its row: to fetch those of ten takes as long as half a walk.
            left join memory_records as r on p.namespace = r.namespace and r.id = case when p.doubtful then p.id end
            where p.last is null or p.score >= p.last - v_apart
        ),

        first as (
            select s.* from scored as s order by s.score desc, s.created_at desc, s.id, s.namespace limit p_limit
        )

        select
            array_agg(
                row(f.namespace, f.id, f.score)::_candidate
                order by f.score desc, f.created_at desc, f.id, f.namespace
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
    'Of so many candidates whose scores are weighed anew each is measured by its stored vector; of more, the nearness '
    'of the copies counts.';
