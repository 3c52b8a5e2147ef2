create or replace function memory_plugin._semantic_candidates(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_filter memory_plugin._filter, p_limit integer,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    -- Up to here comparing every row costs little more than the graph, and misses nothing.
    c_exact constant integer := case
        when @dimensions@ > 3981 then 2147483646 else greatest(800, least(5000, 3500000 / @dimensions@))
    end;
    -- Up to here every row is compared where the graph's answer does not convince: a tenth of a second.
    c_sure constant integer := 80000000 / @dimensions@;
    -- So many namespaces are asked one by one; rows of more are counted, and compared, less far.
    c_walks constant integer := 50;
    v_unit constant @extschema:vector@.halfvec := _steered(p_embedding, '', null, '{0,0}');
    -- The copy is in half precision: what is close to the last place is measured again.
    v_spare constant integer := p_limit + 10;
    v_reach constant integer := least(
        greatest(case when p_filter.kinds is null then 60 else 100 end, v_spare + v_spare / 4), 1000
    );
    v_small text[];
    v_large text[];
    v_name text;
    v_part _candidate[];
    v_settings text[];
    v_rows integer;
begin
    with name as materialized (
        select distinct u.name from unnest(p_namespaces) as u (name)
    ),

    cap as materialized (
        -- Of several namespaces each costs its part.
        select
            case when count(*) = 1 then c_exact
                else greatest(least(c_exact / 2, c_exact::bigint * c_walks / greatest(count(*), 1)), 20)
            end::integer as rows
        from name
    ),

    sized as (
        select n.name, c.size, c.size <= cap.rows as small
        from name as n
        cross join cap
        cross join lateral (
            select count(*) as size
            from (
                select from memory_vectors as v
                where v.namespace = n.name and (p_filter.kinds is null or v.kind = any (p_filter.kinds))
                limit cap.rows + 1
            ) as counted
        ) as c
        where c.size > 0
    )

    select
        coalesce(array_agg(s.name) filter (where s.small), '{}'),
        coalesce(array_agg(s.name) filter (where not s.small), '{}'),
        coalesce(sum(s.size) filter (where s.small), 0)
    into v_small, v_large, scored
    from sized as s;
    exact := v_large = '{}';
    candidates := '{}';
    if v_small <> '{}' then
        candidates := _semantic_scan(v_small, v_unit, p_filter, v_spare);
    end if;
    if not exact then
        v_settings := _graph_settings(v_reach, greatest(2000, 4 * v_spare));
        if cardinality(v_large) > c_walks then
            -- Too many to walk towards each: one walk, towards none of them.
            v_part := _semantic_graph(v_large, v_unit, v_unit, p_filter, v_spare);
            scored := scored + v_reach;
            candidates := candidates || v_part;
        end if;
        foreach v_name in array v_large loop
            exit when cardinality(v_large) > c_walks;
            v_part := _semantic_graph(
                array[v_name], v_unit, _steered(p_embedding, v_name, p_filter.kinds, '{10,4}'), p_filter, v_spare
            );
            if cardinality(v_part) < p_limit then
                -- The graph gave up before it had enough.
                v_part := _semantic_scan(array[v_name], v_unit, p_filter, v_spare);
            end if;
            scored := scored + v_reach;
            candidates := candidates || v_part;
        end loop;
        perform _graph_settings(v_settings);
        if cardinality(candidates) < p_limit then
            candidates := candidates || _semantic_scan(v_large, v_unit, p_filter, v_spare);
        elsif coalesce(_semantic_contrast(candidates, v_large, v_unit, least(p_limit, 10)), 0) < 0.5 then
            select count(*) into v_rows
            from (
                select from memory_vectors as v
                where v.namespace = any (v_large) and (p_filter.kinds is null or v.kind = any (p_filter.kinds))
                limit c_sure + 1
            ) as counted;
            if v_rows <= c_sure then
                candidates := candidates || _semantic_scan(v_large, v_unit, p_filter, v_spare);
                scored := scored + v_rows;
                exact := true;
            end if;
        end if;
    end if;
    select array_agg(row(m.namespace, m.id, 1 - m.distance)::_candidate order by m.distance, m.created_at desc, m.id)
    into candidates
    from (
        select r.namespace, r.id, r.created_at, r.embedding operator(@extschema:vector@.<=>) p_embedding as distance
        from (
            select u.namespace, u.id
            from unnest(candidates) as u
            group by u.namespace, u.id
            order by max(u.score) desc
            limit v_spare
        ) as c
        inner join memory_records as r on c.namespace = r.namespace and c.id = r.id
        order by distance, r.created_at desc, r.id
        limit p_limit
    ) as m;
end
$function$;

comment on function memory_plugin._semantic_candidates(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer
) is
    'The p_limit memories nearest to an embedding by cosine distance, nearest first; score is the cosine similarity. '
    'Small namespaces are compared row by row, large ones through the graph, and row by row after all where what the '
    'graph found does not stand out. exact: no nearer one exists. '
    'scored: rows looked at.';
