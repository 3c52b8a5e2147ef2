create or replace function memory_plugin._semantic_standing(
    p_candidates memory_plugin._candidate[], p_namespaces text[], p_unit @extschema:vector@.halfvec,
    p_place integer,
    out contrast double precision, out above double precision, out chance double precision, out best_namespace text,
    out best_id uuid
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values: some rows by their keys.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
begin
    with best as materialized (
        select u.namespace, u.id, u.score, v.embedding, row_number() over (order by u.score desc) as place
        from (select c.namespace, c.id, c.score from unnest(p_candidates) as c order by c.score desc limit p_place) as u
        inner join memory_vectors as v on u.namespace = v.namespace and u.id = v.id
    ),

    first as materialized (
        select
            b.namespace, b.id, b.score,
            -- Without the tail.
            (
                @extschema:vector@.subvector(b.embedding, 1, @dimensions@)::@extschema:vector@.vector
                operator(@extschema:vector@.||) array_fill(0::real, array[@tail_length@])::@extschema:vector@.vector
            )::@extschema:vector@.halfvec as unit
        from best as b
        where b.place = 1
    ),

    near as (
        select max(-(b.embedding operator(@extschema:vector@.<#>) f.unit)) as score
        from best as b
        cross join first as f
        where b.place > 1
    ),

    -- So alike the rows of a namespace are anyway.
    chance as (
        select
            avg(-(s.embedding operator(@extschema:vector@.<#>) p_unit)) as question,
            avg(-(s.embedding operator(@extschema:vector@.<#>) f.unit)) as row
        from first as f
        cross join unnest(p_namespaces[:4]) as n (name)
        cross join lateral (
            select v.embedding from memory_vectors as v where v.namespace = n.name order by v.id limit 24
        ) as s
    )

    select
        least(
            (l.score - c.question) / greatest(greatest(f.score, n.score) - c.row, 0.000001),
            (n.score - c.row) / greatest(f.score - c.question, 0.000001)
        ),
        l.score - c.question, c.row, f.namespace, f.id
    into contrast, above, chance, best_namespace, best_id
    from best as l
    cross join first as f
    cross join near as n
    cross join chance as c
    where l.place = p_place;
end
$function$;

comment on function memory_plugin._semantic_standing(
    memory_plugin._candidate[], text[], @extschema:vector@.halfvec, integer
) is
    'How far the candidates up to p_place stand out from other rows, by similarities. above: of the last of them to '
    'the question, less the average of some rows of the namespaces. contrast: above, divided by the similarity of the '
    'best to its nearest among the candidates (or to the question, if that is more), or that of the best to its '
    'nearest, divided by that of the best to the question, whichever is less; the average of other rows is taken off '
    'them all. chance: the average similarity of the best to those rows. Null where there are fewer candidates.';

create or replace function memory_plugin._semantic_least()
returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 0.4;
end
$function$;

comment on function memory_plugin._semantic_least() is
    'The contrast that candidates must have. Those of questions like the rows have 0.4 and more, most of them 0.6; of '
    'questions about something else 0.3 at most.';

create or replace function memory_plugin._semantic_convinces(
    p_candidates memory_plugin._candidate[], p_namespaces text[], p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_place integer, p_few integer, p_reach integer
)
returns boolean
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_least constant double precision := _semantic_least();
    -- Where the candidates resemble each other so much, they are neighbours, and there is nothing to ask.
    c_plain constant double precision := 0.9;
    -- Of this nearness again: below it, near ones may be in several places, and a walk ends at the first of them.
    c_clear constant double precision := 0.85;
    v_stands record := _semantic_standing(p_candidates, p_namespaces, p_unit, p_place);
    v_best @extschema:vector@.vector;
    v_settings text[];
    v_beside _candidate[];
    v_near double precision;
    v_more _candidate[];
begin
    if coalesce(v_stands.contrast, 0) < v_least then
        return false;
    end if;
    if v_stands.contrast >= c_plain then
        return true;
    end if;
    -- Candidates from anywhere are no neighbours of each other: the best one's are found by a short walk towards it.
    -- The third, for the first may be copies.
    select @extschema:vector@.subvector(v.embedding, 1, @dimensions@)::@extschema:vector@.vector into v_best
    from memory_vectors as v where v.namespace = v_stands.best_namespace and v.id = v_stands.best_id;
    v_settings := _graph_settings(25, 500);
    v_beside := _semantic_graph(
        array[v_stands.best_namespace], _steered(v_best, '', null, '{0,0}'),
        _steered(v_best, v_stands.best_namespace, p_filter.kinds, '@asked_tail@'), p_filter, 4
    );
    select n.score into v_near
    from unnest(v_beside) as n (namespace, id, score)
    where n.id <> v_stands.best_id
    order by n.score desc
    limit 1 offset 2;
    perform _graph_settings(v_settings);
    if v_stands.above < v_least * (v_near - v_stands.chance) then
        return false;
    end if;
    -- Where the best has no rows as near as the last candidate is to the question, the walk towards it went astray too.
    if p_reach is null
        or v_stands.above >= c_clear * (v_near - v_stands.chance) and v_stands.above <= v_near - v_stands.chance
    then
        return true;
    end if;
    if not _semantic_many(p_namespaces, p_filter.kinds, p_few) then
        return false;
    end if;
    v_more := _semantic_walks(
        p_namespaces, @extschema:vector@.subvector(p_unit, 1, @dimensions@)::@extschema:vector@.vector, p_unit, p_filter,
        p_place, p_reach, 4 * p_reach
    );
    return cardinality(v_more) >= p_place and not exists (
        select
        from unnest(v_more) as m
        where m.score > (
            select c.score from unnest(p_candidates) as c order by c.score desc limit 1 offset p_place - 1
        )
        and not exists (
            select from unnest(p_candidates) as c where c.namespace = m.namespace and c.id = m.id
        )
    );
end
$function$;

comment on function memory_plugin._semantic_convinces(
    memory_plugin._candidate[], text[], @extschema:vector@.halfvec, memory_plugin._filter, integer, integer, integer
) is
    'Whether what walks through the graph met is what there is: true where the question is like the rows. About '
    'something else, its nearest rows are anywhere, and a walk meets only some of them. In between it is true where '
    'walks that reach p_reach far meet nothing nearer, and false where there are no more than p_few live rows, which '
    'are compared in the same time. p_reach null: only what is far from clear is false.';
