create or replace function memory_plugin._search(
    p_namespaces text[],
    p_query text,
    p_kinds text[],
    p_limit integer,
    p_embedding @extschema:vector@.vector,
    p_sources text[],
    p_created_after timestamptz,
    p_created_before timestamptz,
    p_min_score double precision,
    p_half_life double precision,
    p_lexical_weight double precision,
    p_semantic_weight double precision,
    p_offset integer,
    p_explain boolean,
    p_diversity double precision,
    p_neighbour_weight double precision
)
returns memory_plugin._search_answer
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_answer _search_answer;
    v_filter _filter := row(
        _once(nullif(p_kinds, '{}')), _once(nullif(p_sources, '{}')), p_created_after, p_created_before
    )::_filter;
    v_limit integer := coalesce(nullif(p_limit, 0), 20);
    v_offset integer := coalesce(p_offset, 0);
    v_embedding @extschema:vector@.vector;
    v_live text[];
    v_query text := nullif(_trim(p_query), '');
    v_plan _lexical_plan;
    v_lexical record;
    v_semantic record;
    v_by_words _candidate[] := '{}';
    v_by_embedding _candidate[] := '{}';
    v_rows _scored[];
    v_neighbour_weight double precision;
    v_fused boolean;
    v_listed integer;
    -- An arm lists all that it finds.
    v_lexical_whole boolean := true;
    v_semantic_whole boolean := true;
    -- So many are put into another order, those behind them stay where they are.
    c_diverse constant integer := 200;
    v_diverse constant boolean := coalesce(p_diversity > 0, false) and v_offset < c_diverse;
    -- Beside the other arm or its neighbours, or weighed by age, a memory may rise above those that one arm alone ranks
    -- higher, and its score depends on how many are weighed: so many of each arm for the pages that people turn, more
    -- for the places up to each end, but for those that are taken already. The last are all that the last page ends at.
    c_pools constant integer[] := '{200,2000,10100}';
    v_ends constant integer[] := array[case when p_diversity > 0 then c_diverse else 100 end, 1000];
    v_pool integer;
    v_end integer := 0;
    v_first integer;
    v_last integer;
    v_taken memory_hit[] := '{}';
begin
    if p_embedding is not null then
        -- Held from here on, so that the store does not change to another model in the middle of a search.
        perform from memory_records, memory_vectors where false;
        v_embedding := _check_embedding(p_embedding);
    end if;
    perform _check_search(
        p_namespaces, v_limit, v_filter, p_min_score, p_half_life, p_lexical_weight, p_semantic_weight, v_offset,
        p_diversity, p_neighbour_weight
    );
    p_lexical_weight := _weight(p_lexical_weight);
    p_semantic_weight := _weight(p_semantic_weight);
    p_neighbour_weight := _weight(p_neighbour_weight);
    v_neighbour_weight := coalesce(p_neighbour_weight, 0);
    v_live := _live_namespaces(p_namespaces);

    -- An arm that counts for nothing is not asked.
    if v_embedding is not null and v_query is not null then
        v_embedding := case when p_semantic_weight = 0 then null else v_embedding end;
    end if;
    v_answer.mode := case
        when v_embedding is not null and char_length(v_query) > 1 and p_lexical_weight is distinct from 0 then 'hybrid'
        when v_embedding is not null then 'semantic'
        when char_length(v_query) > 1 then 'lexical'
        when v_query is not null then 'substring'
        else 'listing'
    end;
    v_answer.exact := true;
    v_answer.candidates := 0;
    v_answer.hits := '{}';
    if v_live is null then
        return v_answer;
    end if;

    if v_answer.mode in ('listing', 'substring') then
        v_answer.hits := coalesce(_listing(v_live, v_query, v_filter, v_limit, v_offset), '{}');
        v_answer.candidates := cardinality(v_answer.hits);
        v_answer.exact := v_query is null or (v_answer.candidates = v_limit and cardinality(v_live) = 1)
            or _lexical_rows(v_live, _substring_reach() + 1) <= _substring_reach();
        return v_answer;
    end if;

    if v_answer.mode = 'lexical' and coalesce(p_semantic_weight, 0.5) > 0 then
        select e.embedding, e.degraded into v_embedding, v_answer.degraded from _embedded_query(v_query) as e;
    end if;
    if p_embedding is null then
        -- Not while the provider was asked: a change of the model, and everybody behind it, would have waited with us.
        perform from memory_records, memory_vectors where false;
        if v_embedding is not null
            and _embedding_revision() is distinct from (select p.revision from embedding_provider as p where p.slot = 'current')
        then
            -- The vector may be one of another model.
            v_embedding := null;
            v_answer.degraded := 'embedding';
        end if;
        if v_embedding is not null then
            v_answer.mode := case when p_lexical_weight = 0 then 'semantic' else 'hybrid' end;
        end if;
    end if;

    -- A turn of a conversation is often found by those beside it.
    if v_answer.mode = 'hybrid' then
        v_neighbour_weight := coalesce(p_neighbour_weight, _setting('neighbour_weight', 0.45, 0, 10));
    end if;
    v_fused := v_answer.mode = 'hybrid' or v_neighbour_weight > 0;
    if v_answer.mode = 'semantic' and char_length(v_query) > 1 then
        -- Words that count for nothing exclude nevertheless.
        v_plan := _lexical_parse(v_query, false, false);
        v_answer.exact := char_length(v_query) <= _lexical_reads();
    end if;
    for v_turn in 1 .. 3 loop
        v_first := v_end;
        v_pool := case when v_fused or p_half_life is not null then c_pools[v_turn] else v_limit + v_offset end;
        if v_diverse then
            v_pool := greatest(v_pool, c_diverse);
        end if;
        v_listed := 0;
        if v_answer.mode in ('lexical', 'hybrid') then
            v_lexical := _lexical_candidates(v_live, v_query, v_filter, v_pool, v_answer.mode = 'lexical', false);
            v_plan := v_lexical.plan;
            v_by_words := v_lexical.candidates;
            v_answer.candidates := v_answer.candidates + v_lexical.scored;
            v_answer.exact := v_answer.exact and v_lexical.exact;
            v_listed := coalesce(cardinality(v_by_words), 0);
            v_lexical_whole := v_lexical.exact and v_listed < v_pool;
        end if;
        if v_answer.mode in ('semantic', 'hybrid') then
            if v_plan.required is null and v_plan.present is null and v_plan.absent is null then
                v_semantic := _semantic_candidates(
                    v_live, v_embedding, v_filter, v_pool, not v_fused and p_half_life is null
                );
                v_semantic_whole := v_semantic.exact and cardinality(v_semantic.candidates) < v_pool;
            else
                -- Not what is demanded, but the nearest were looked through for it.
                v_semantic_whole := false;
                v_semantic := _semantic_allowed(
                    v_live, v_embedding, v_filter, v_pool, not v_fused and p_half_life is null, v_plan,
                    v_answer.mode = 'hybrid' and v_lexical_whole
                );
            end if;
            v_by_embedding := v_semantic.candidates;
            v_answer.candidates := v_answer.candidates + v_semantic.scored;
            v_answer.exact := v_answer.exact and v_semantic.exact;
            v_listed := greatest(v_listed, cardinality(v_by_embedding));
        end if;
        if v_fused or p_half_life is not null then
            -- What is weighed anew are the best of each arm: exact only where these are all.
            v_answer.exact := v_answer.exact and v_listed < v_pool;
        end if;

        if v_fused then
            -- One arm alone, whose neighbours count, has the whole weight.
            v_rows := _fuse(
                v_by_words, v_by_embedding, v_plan, v_embedding, v_filter,
                case v_answer.mode when 'hybrid' then coalesce(p_lexical_weight, 0.5) when 'lexical' then 1 else 0 end,
                case v_answer.mode when 'hybrid' then coalesce(p_semantic_weight, 0.5) when 'semantic' then 1 else 0 end,
                v_neighbour_weight, v_lexical_whole, v_semantic_whole
            );
        elsif v_answer.mode = 'lexical' then
            select array_agg(row(l.namespace, l.id, l.score, l.score, l.place, null, null, null)::_scored) into v_rows
            from unnest(v_by_words) with ordinality as l (namespace, id, score, place);
        else
            select array_agg(row(s.namespace, s.id, s.score, null, null, s.score, s.place, null)::_scored) into v_rows
            from unnest(v_by_embedding) with ordinality as s (namespace, id, score, place);
        end if;
        -- Where all were weighed, the order has no end.
        v_end := case when (v_fused or p_half_life is not null) and not v_answer.exact then v_ends[v_turn] end;
        v_last := least(v_limit + v_offset, v_end);
        if v_turn > 1 then
            v_rows := _without(v_rows, v_taken);
        end if;
        if v_diverse and v_turn = 1 then
            v_answer.hits := _diverse(
                _rank(
                    v_rows, greatest(v_last, c_diverse), 0, p_min_score, p_half_life, coalesce(p_explain, false), false
                ),
                p_diversity, v_last - v_offset, v_offset
            );
        elsif v_offset < v_last then
            v_answer.hits := v_answer.hits || _rank(
                v_rows, v_last - greatest(v_offset, v_first), greatest(v_offset - v_first, 0), p_min_score, p_half_life,
                coalesce(p_explain, false), false
            );
        end if;
        exit when v_last = v_limit + v_offset;
        v_taken := v_taken || _rank(v_rows, v_end - v_first, 0, p_min_score, p_half_life, false, true);
        exit when cardinality(v_taken) < v_end;
    end loop;
    v_answer.hits := coalesce(v_answer.hits, '{}');
    return v_answer;
end
$function$;

comment on function memory_plugin._search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean, double precision, double precision
) is
    'The one search under search() and v1_search(): the rules, the live namespaces, one or both arms, fusion, '
    'diversity, one page.';
