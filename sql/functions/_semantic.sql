create or replace function memory_plugin._semantic_candidates(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_filter memory_plugin._filter, p_limit integer,
    p_closely boolean,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- The rows of a namespace lie beside each other in an index: walking far costs less.
    c_near constant boolean := @dimensions@ <= @near_dimensions@;
    -- Up to here comparing every row costs little more than the graph, and misses next to nothing.
    c_small constant integer := case
        when @dimensions@ > @graph_dimensions@ then 2147483646
        when @dimensions@ >= @sketch_dimensions@ then least(12000, 9000000 / @dimensions@)
        else 6000
    end;
    -- So many are compared rather than walked towards a second time.
    c_few constant integer := 3 * least(c_small, 600000000);
    -- Up to here every row is compared where the graph's answer does not convince: some tenths of a second.
    c_sure constant integer := case
        when @dimensions@ > @graph_dimensions@ then c_small else least(300000, 450000000 / @dimensions@)
    end;
    -- Comparing more takes so long that two more walks are made before.
    c_astray constant integer := c_sure / 4;
    -- So many large namespaces are walked towards one by one, and so many a second time, further.
    c_walks constant integer := 200;
    c_again constant integer := 5;
    v_unit constant @extschema:vector@.halfvec := _steered(p_embedding, '', null, '{0,0}');
    -- In half precision the last places may be confused. Where a filter lets few pass, looking for more finds nearer ones.
    v_spare constant integer := p_limit + case when p_filter is null then 4 else 10 end;
    v_usual constant integer := _setting(
        'semantic_reach', case when c_near or p_filter.kinds is not null then 100 else 60 end, 40, 1000
    )::integer;
    v_reach constant integer := least(greatest(v_usual, v_spare + v_spare / 4), 1000);
    v_place constant integer := greatest(least(p_limit, 10), 5);
    -- Where it is not quite clear whether a walk met the nearest, one that reaches so far must meet nothing nearer.
    v_farther constant integer := case when v_reach <= 2 * v_usual then least(4 * v_usual, 1000) end;
    v_convinces boolean := false;
    -- Some of the candidates are what walks through the graph met.
    v_met boolean := false;
    v_sized record;
    v_alone boolean;
    v_compared text[];
    v_compared_rows bigint;
    v_walked text[] := '{}';
    v_near _candidate[] := '{}';
    v_name text;
    v_guide @extschema:vector@.halfvec;
    v_part _candidate[];
    v_scan record;
    v_settings text[];
    v_rows bigint;
begin
    select s.candidates, s.scored into candidates, scored
    from _semantic_small(p_namespaces, p_embedding, v_unit, p_filter, p_limit, p_closely) as s;
    if candidates is not null then
        exact := true;
        return;
    end if;
    v_sized := _semantic_sizes(p_namespaces, p_filter.kinds, c_small, c_sure);
    v_alone := cardinality(v_sized.small) + cardinality(v_sized.large) = 1;
    v_compared := v_sized.small;
    v_compared_rows := v_sized.total;
    scored := v_sized.total;
    candidates := '{}';
    exact := true;
    if cardinality(v_sized.large) > c_walks then
        v_rows := _semantic_rows(v_sized.large, p_filter.kinds, c_sure);
        if v_rows <= c_sure then
            v_compared := v_compared || v_sized.large;
            v_compared_rows := v_compared_rows + v_rows;
            scored := scored + v_rows;
        else
            -- Too many to walk towards each: one long walk, towards none of them.
            v_settings := _graph_settings(400, 20000);
            v_near := _semantic_graph(v_sized.large, v_unit, v_unit, p_filter, v_spare);
            perform _graph_settings(v_settings);
            v_walked := v_sized.large;
            scored := scored + 400;
        end if;
        v_rows := null;
    elsif v_sized.large <> '{}' then
        v_settings := _graph_settings(v_reach, greatest(2000, 4 * v_spare, 4 * v_reach));
        foreach v_name in array v_sized.large loop
            v_guide := _steered(p_embedding, v_name, p_filter.kinds, '@asked_tail@');
            v_part := _semantic_graph(array[v_name], v_unit, v_guide, p_filter, v_spare);
            scored := scored + v_reach;
            if p_closely and _semantic_crowded(v_part, p_embedding, p_limit) then
                -- As near as each other, as copies are: all that such a walk meets.
                v_part := _semantic_graph(array[v_name], v_unit, v_guide, p_filter, v_reach);
            end if;
            -- Beside the candidates of others it would not be seen that these are not the nearest.
            if not v_alone
                and coalesce((_semantic_standing(v_part, array[v_name], v_unit, v_place)).contrast, 0) < _semantic_least()
                and _semantic_many(array[v_name], p_filter.kinds, c_astray)
            then
                v_part := _semantic_again(v_part, v_name, v_unit, v_guide, p_filter, v_spare, v_reach);
                scored := scored + 4 * v_reach;
            end if;
            if cardinality(v_part) < p_limit then
                -- The graph gave up before it had enough.
                v_compared := v_compared || v_name;
                v_rows := _semantic_rows(array[v_name], p_filter.kinds, null);
                v_compared_rows := v_compared_rows + v_rows;
                scored := scored + v_rows;
            else
                v_walked := v_walked || v_name;
                v_near := v_near || v_part;
            end if;
        end loop;
        perform _graph_settings(v_settings);
        if coalesce(cardinality(p_filter.kinds), 0) <> 1 and _semantic_close(v_near, v_place) then
            if _semantic_many(v_walked, p_filter.kinds, c_few) then
                v_scan := _semantic_each_kind(p_namespaces, p_embedding, p_filter, p_limit, p_closely);
                candidates := v_scan.candidates;
                scored := scored - v_sized.total + v_scan.scored;
                exact := v_scan.exact;
                v_met := not exact;
                v_compared := '{}';
            else
                v_compared := v_compared || v_walked;
                v_rows := _semantic_rows(v_walked, p_filter.kinds, null);
                v_compared_rows := v_compared_rows + v_rows;
                scored := scored + v_rows;
            end if;
            v_walked := '{}';
        end if;
        v_rows := null;
    end if;
    if v_compared <> '{}' then
        v_scan := _semantic_nearest(v_compared, p_embedding, v_unit, p_filter, p_limit, v_compared_rows);
        candidates := v_scan.nearest;
        exact := v_scan.exact;
    end if;
    if v_walked <> '{}' then
        if cardinality(candidates) + cardinality(v_near) < p_limit then
            v_rows := _semantic_rows(v_walked, p_filter.kinds, null);
            v_scan := _semantic_nearest(v_walked, p_embedding, v_unit, p_filter, p_limit, v_rows);
        elsif not _semantic_convinces(
            candidates || v_near, v_walked, v_unit, p_filter, v_place, c_few,
            case when cardinality(v_walked) <= c_again then v_farther end
        ) then
            if v_alone and _semantic_many(v_walked, p_filter.kinds, c_astray) then
                v_near := _semantic_again(v_near, v_sized.large[1], v_unit, v_guide, p_filter, v_spare, v_reach);
                scored := scored + 4 * v_reach;
                v_convinces := _semantic_convinces(v_near, v_walked, v_unit, p_filter, v_place, c_few, v_farther);
            end if;
            if not v_convinces then
                v_rows := _semantic_about(v_walked, p_filter.kinds, c_sure);
            end if;
            if v_rows <= c_sure then
                v_scan := _semantic_nearest(v_walked, p_embedding, v_unit, p_filter, p_limit, v_rows);
            elsif v_rows > c_sure then
                v_rows := null;
                if cardinality(v_walked) <= c_again then
                    v_near := _semantic_walks(v_walked, p_embedding, v_unit, p_filter, v_spare, 1000, 20000);
                    scored := scored + 1000 * cardinality(v_walked);
                end if;
            end if;
        end if;
        if v_rows is null then
            candidates := candidates || v_near;
            exact := false;
            v_met := true;
        else
            candidates := candidates || v_scan.nearest;
            scored := scored + v_rows;
            exact := exact and v_scan.exact;
        end if;
    end if;
    if not v_met and (p_closely or cardinality(candidates) <= _semantic_few()) then
        candidates := _semantic_measured(candidates, p_embedding, p_limit);
    else
        candidates := _semantic_ordered(candidates, p_embedding, p_limit, p_closely);
    end if;
end
$function$;

comment on function memory_plugin._semantic_candidates(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer, boolean
) is
    'The p_limit memories nearest to an embedding by cosine distance, nearest first; score is the cosine similarity, '
    'of many and of what the graph found that of their copies in half precision: off by some 0.00001, at worst '
    'by 0.001. closely: their order is that of the stored vectors nevertheless. '
    'The rows of small namespaces are compared, large ones are searched through the graph, and compared after all '
    'where what the graph found does not stand out. exact: no nearer one exists. scored: rows looked at, many of them '
    'by their sketches, or about so many.';
