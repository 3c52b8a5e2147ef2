create or replace function memory_plugin._lexical_search(
    p_namespaces text[],
    p_plan memory_plugin._lexical_plan,
    p_filter memory_plugin._filter,
    p_limit integer,
    out candidates memory_plugin._candidate[],
    out scored bigint,
    out exact boolean,
    out plan memory_plugin._lexical_plan
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- A bitmap of a million rows stays exact, and no plan is worth compiling.
set work_mem = '64MB'
set jit = off
as $function$
declare
    v_start timestamptz;
    -- Up to this many memories everything is counted; beyond, common words are estimated from a sample.
    v_exact_rows constant integer := 120000;
    -- Reading a memory's words takes 5 to 15 microseconds.
    v_budget integer;
    v_corpus record;
    v_found record;
    v_counts bigint[];
    -- Places of the terms in the plan, the rarest first; and the part of the memories that holds each.
    v_order integer[];
    v_shares double precision[];
    -- Of the eight rarest, what each can add to a score at most; and what all others can add.
    v_terms text[];
    v_bounds double precision[];
    v_rest double precision;
    -- Scores that sets of those eight can reach, the highest first; and how many memories may reach each.
    v_levels double precision[];
    v_rows double precision[];
    v_read integer;
    v_must constant boolean := coalesce(querytree(p_plan.required), '') not in ('', 'T');
    -- Of each term that is a phrase, and of what must occur, the words alone, in memories that are read for the phrase.
    v_wide constant tsquery[] := array(
        select case when numnode(u.term) > 1 then _lexical_wide(u.term) end
        from unnest(
            p_plan.terms || case when v_must then querytree(p_plan.required)::tsquery end
        ) with ordinality as u (term, place)
        order by u.place
    );
    v_reads double precision[];
    v_reads_must double precision;
    -- Reading a memory for a phrase takes 5 to 8 microseconds.
    c_reads constant integer := 60000;
    v_level integer := 1;
    v_threshold double precision;
    v_share double precision := 1;
    v_first double precision;
begin
    plan := p_plan;
    v_corpus := _lexical_sample(p_namespaces, p_plan.terms || v_wide, v_exact_rows);
    plan.average_length := v_corpus.average_length;
    exact := v_corpus.counted;
    v_budget := case when exact then 15000 else 5000 end;
    v_shares := v_corpus.shares[:cardinality(p_plan.terms)];
    v_reads := array(
        select case when exact then 0 else u.share * v_corpus.total end
        from unnest(v_corpus.shares[cardinality(p_plan.terms) + 1:]) with ordinality as u (share, place) order by u.place
    );
    v_reads_must := v_reads[cardinality(v_reads)];
    v_reads := v_reads[:cardinality(v_reads) - 1];
    foreach v_threshold in array v_shares loop
        v_share := v_share * (1 - v_threshold);
    end loop;
    if v_corpus.total * (1 - v_share) < v_budget and (exact or not c_reads < any (v_reads)) then
        -- Few enough to read them all, and their words are counted on the way.
        v_found := _lexical_read(
            p_namespaces, plan, p_filter, p_limit, v_corpus.total, _lexical_any(plan.terms), 2 * v_budget, false
        );
        candidates := v_found.candidates;
        scored := v_found.scored;
        plan.weights := v_found.weights;
        exact := exact and v_found.complete;
        return;
    end if;

    v_counts := _lexical_count(
        p_namespaces, plan.terms,
        array(
            select exact or (s.share * v_corpus.total <= 3000 and s.reads <= c_reads)
            from unnest(v_shares, v_reads) as s (share, reads)
        ),
        v_shares
    );
    select
        array_agg(ln((v_corpus.total + 1) / (c.n + 0.5)) order by c.place),
        array_agg(c.place order by greatest(c.n, c.reads), c.place),
        array_agg(least(greatest(c.n, c.reads) / v_corpus.total, 1) order by greatest(c.n, c.reads), c.place)
    into plan.weights, v_order, v_shares
    from (
        select
            u.place,
            -- A phrase that was not counted: one in a thousand of the memories with its words, if none was drawn.
            least(coalesce(u.n, greatest(u.share * v_corpus.total, u.reads / 1000)), v_corpus.total) as n,
            u.reads
        from unnest(v_counts, v_shares, v_reads) with ordinality as u (n, share, reads, place)
    ) as c;

    if v_must and not exact and v_reads_must > c_reads then
        -- Too many to look for the phrase in all of them.
        v_found := _lexical_read(
            p_namespaces, plan, p_filter, p_limit, v_corpus.total, plan.required, greatest(500, 10 * p_limit), true
        );
        candidates := v_found.candidates;
        scored := v_found.scored;
        return;
    end if;
    if v_must and (_lexical_count(p_namespaces, array[plan.required], '{true}', '{0}'))[1] < v_budget then
        -- What must occur is in few of them.
        v_found := _lexical_read(
            p_namespaces, plan, p_filter, p_limit, v_corpus.total, plan.required, 2 * v_budget, false
        );
        candidates := v_found.candidates;
        scored := v_found.scored;
        exact := exact and v_found.complete;
        return;
    end if;

    -- The rarest eight decide which memories are read; what the others could add at most is allowed for.
    select
        array_agg('(' || plan.terms[o.place]::text || ')' order by o.rank) filter (where o.rank <= 8),
        array_agg((plan.k1 + 1) * plan.weights[o.place] order by o.rank) filter (where o.rank <= 8),
        coalesce(sum((plan.k1 + 1) * plan.weights[o.place]) filter (where o.rank > 8), 0)
    into v_terms, v_bounds, v_rest
    from unnest(v_order) with ordinality as o (place, rank);
    select l.bounds, l.rows into v_levels, v_rows from _lexical_levels(v_bounds, v_shares, v_corpus.total) as l;

    -- First the memories that could score best; then, down to the score of the last one of the answer, all others.
    if exact then
        v_budget := v_exact_rows;
    end if;
    while v_level < cardinality(v_levels) and v_rows[v_level + 1] <= v_budget
        and (not exact or v_rows[v_level] < greatest(1000, 20 * p_limit))
    loop
        v_level := v_level + 1;
    end loop;
    -- Many are read once rather than twice, if those that may have to follow are few.
    v_first := v_rows[v_level];
    while exact and v_first > 10000 and v_level < cardinality(v_levels)
        and v_rows[v_level + 1] <= least(v_budget, 1.3 * v_first)
    loop
        v_level := v_level + 1;
    end loop;
    for v_pass in 1 .. 2 loop
        v_start := clock_timestamp();
        v_found := _lexical_read(
            p_namespaces, plan, p_filter, p_limit, v_corpus.total,
            _lexical_cover(v_terms, v_bounds, v_levels[v_level] * (1 - 1e-12))::tsquery, (1.5 * v_budget)::integer, false
        );
        v_threshold := coalesce((v_found.candidates[p_limit]).score, 0) - v_rest;
        exit when v_pass = 2 or v_level = cardinality(v_levels) or v_threshold > v_levels[v_level + 1];
        -- On a slow machine, or from a cold cache, less is read. A few rows tell nothing of that.
        if v_found.scored > 1000 then
            v_budget := least(
                v_budget,
                v_found.scored * 0.9 / greatest(extract(epoch from clock_timestamp() - v_start)::double precision, 0.001)
            );
        end if;
        exit when v_rows[v_level + 1] > v_budget;
        while v_level < cardinality(v_levels) and v_threshold <= v_levels[v_level + 1]
            and v_rows[v_level + 1] <= v_budget
        loop
            v_level := v_level + 1;
        end loop;
    end loop;
    candidates := v_found.candidates;
    scored := v_found.scored;
    if v_level < cardinality(v_levels) then
        exact := exact and v_found.complete and v_threshold > v_levels[v_level + 1];
    elsif v_rest > 0 and v_threshold <= 0 then
        -- A memory that holds none of the eight may be better: the next rarest words, while they are in few enough.
        v_read := 8;
        v_budget := v_budget * 8 / cardinality(v_order);
        while v_read < cardinality(v_order) and v_budget > 0 loop
            v_read := v_read + 1;
            v_budget := v_budget - (v_shares[v_read] * v_corpus.total)::integer;
        end loop;
        v_found := _lexical_read(
            p_namespaces, plan, p_filter, p_limit, v_corpus.total,
            _lexical_any(array(select plan.terms[o.place] from unnest(v_order[:v_read]) as o (place))), 60000, false
        );
        candidates := v_found.candidates;
        scored := scored + v_found.scored;
        select coalesce(sum((plan.k1 + 1) * plan.weights[o.place]), 0) into v_rest
        from unnest(v_order[v_read + 1:]) as o (place);
        exact := exact and v_found.complete and coalesce((candidates[p_limit]).score, 0) >= v_rest;
    else
        exact := exact and v_found.complete;
    end if;
    if coalesce(cardinality(candidates), 0) >= p_limit or exact then
        return;
    end if;
    -- What is missing holds only words that too many memories hold to read them all: the newest of those, then.
    exact := false;
    v_found := _lexical_read(
        p_namespaces, plan, p_filter, p_limit, v_corpus.total, _lexical_any(plan.terms), greatest(500, 10 * p_limit), true
    );
    scored := scored + v_found.scored;
    candidates := array(
        select row(b.namespace, b.id, b.score)::_candidate
        from (
            select u.namespace, u.id, max(u.score) as score
            from unnest(candidates || v_found.candidates) as u
            group by u.namespace, u.id
        ) as b
        inner join memory_records as r on b.namespace = r.namespace and b.id = r.id
        order by b.score desc, r.created_at desc, b.id, b.namespace
        limit p_limit
    );
end
$function$;

comment on function memory_plugin._lexical_search(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer
) is
    'The best memories for a lexical plan through the index on words, for large namespaces. Upper bounds of the terms, '
    'as in WAND, say which memories cannot be among the best: they are not read. Where more match than may be read, '
    'the newest that match fill the answer. exact: none that was not read is better, and every document frequency was '
    'counted.';
