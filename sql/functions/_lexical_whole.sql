create or replace function memory_plugin._lexical_whole(
    p_namespaces text[], p_plan memory_plugin._lexical_plan, p_filter memory_plugin._filter, p_limit integer,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean,
    out plan memory_plugin._lexical_plan
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call, by the index on the namespace: there is no better one for few rows.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    v_terms tsquery[] := p_plan.terms;
    v_grams text[] := p_plan.grams;
    v_in_text boolean := p_plan.grams <> '{}';
    v_in_words boolean := p_plan.terms <> '{}' or p_plan.required is not null;
    -- Pieces of text have no index: many memories are asked for them newest first, up to a bound, the fewer the more
    -- there is to look for in each.
    v_most integer := case when p_plan.grams <> '{}' then _lexical_each(
        p_namespaces, 20000 * 16 / greatest(16, cardinality(p_plan.grams) + cardinality(p_plan.terms))
    ) end;
    v_longest bigint;
    v_k1 double precision := p_plan.k1;
    v_b double precision := p_plan.b;
    -- The second time only what may be found is read, by the weights that the first found.
    v_again constant boolean := p_plan.weights is not null;
    v_found record;
    -- So far back a condition is looked for.
    c_far constant integer := 200000;
    v_far integer;
begin
    plan := p_plan;
    if v_most is not null then
        v_far := case when v_again then coalesce(_lexical_each(p_namespaces, c_far), c_far) else v_most end;
    end if;
    with docs as materialized (
        select
            r.namespace, r.id, r.created_at, d.t, d.c,
            case when v_in_text then length(d.c) else @word_count(d.t)@ end as words,
            @demanded(p_plan, d.t, r.content)@ and @filtered(p_filter, r)@ as wanted
        from unnest(p_namespaces) as n (name)
        cross join lateral (
            select b.*
            from (
                select a.* from memory_records as a
                where a.namespace = n.name and (a.expires_at is null or a.expires_at > now())
                order by a.pin desc, a.created_at desc, a.id limit v_far
            ) as b
            where not v_again or (@filtered(p_filter, b)@)
            limit v_most
        ) as r
        -- offset 0, and nothing is deleted: fetched once, not for every term.
        cross join lateral (
            select
                case when v_in_words then ts_delete(r.content_tsv, '') end as t,
                case when v_in_text then lower(r.content) end as c
            offset 0
        ) as d
    ),

    corpus as materialized (
        select
            count(*) as total, coalesce(p_plan.average_length, greatest(avg(d.words), 1)) as average,
            case when v_most is not null then (
                select max(s.rows) from (select count(*) as rows from docs as o group by o.namespace) as s
            ) end as longest
        from docs as d
    ),

    postings as materialized (
        select
            d.namespace, d.id, d.created_at, d.wanted, d.words, u.place,
            cardinality(l.positions) as n
        -- All words of a memory against all that are asked: the same whatever their number.
        from docs as d
        cross join lateral unnest(d.t) as l (lexeme, positions, weights)
        inner join (
            select tsvector_to_array(t.term::text::tsvector) as lexemes, t.place
            from unnest(v_terms) with ordinality as t (term, place)
            where numnode(t.term) = 1
        ) as u on l.lexeme = u.lexemes[1]
        union all
        select d.namespace, d.id, d.created_at, d.wanted, d.words, u.place, 1
        from unnest(v_terms) with ordinality as u (term, place)
        inner join docs as d on d.t @@ u.term
        where numnode(u.term) > 1
        union all
        select
            d.namespace, d.id, d.created_at, d.wanted, d.words, cardinality(v_terms) + u.place,
            @pieces(d.c, u.gram)@
        from (
            select a.gram, @plain(a.gram)@ as plain, a.place from unnest(v_grams) with ordinality as a (gram, place)
            offset 0
        ) as u
        inner join docs as d on @holds(d.c, u.gram, u.plain)@
    ),

    weights as materialized (
        select
            p.place,
            coalesce(p_plan.weights[p.place], ln((c.total + 1) / (count(*) + 0.5::double precision))) as weight
        from postings as p cross join corpus as c
        group by p.place, c.total
    ),

    hits as (
        select
            p.namespace, p.id,
            (v_k1 + 1) * sum(
                w.weight * (1 - 1 / (1 + p.n / (v_k1 * (1 - v_b + v_b * p.words / c.average)))) order by p.place
            ) as score,
            p.created_at
        from postings as p inner join weights as w using (place) cross join corpus as c
        where p.wanted
        group by p.namespace, p.id, p.created_at
        order by score desc, p.created_at desc, p.id, p.namespace
        limit p_limit
    )

    select
        (
            select array_agg(
                row(h.namespace, h.id, h.score)::_candidate order by h.score desc, h.created_at desc, h.id, h.namespace
            )
            from hits as h
        ),
        (
            select array_agg(coalesce(w.weight, ln(2 * (c.total + 1.0::double precision))) order by u.place)
            from generate_series(1, cardinality(v_terms) + cardinality(v_grams)) as u (place)
            left join weights as w on u.place = w.place
        ),
        c.average, c.total, c.longest
    into candidates, plan.weights, plan.average_length, scored, v_longest
    from corpus as c;
    exact := v_most is null or (not v_again and (coalesce(v_longest < v_most, true) or _lexical_rows(p_namespaces, scored::integer + 1) <= scored));
    if not exact and not v_again
        and (p_filter.kinds, p_filter.sources, p_filter.created_after, p_filter.created_before) is distinct from (null, null, null, null)
    then
        v_found := _lexical_whole(p_namespaces, plan, p_filter, p_limit);
        candidates := v_found.candidates;
        scored := scored + v_found.scored;
    end if;
end
$function$;

comment on function memory_plugin._lexical_whole(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer
) is
    'The best memories for a lexical plan by reading those of the namespaces; for pieces of text the newest 20,000 at '
    'most, or fewer where more than 16 words and pieces are asked, and where a condition is given as many that meet '
    'it, among the newest 200,000. exact: all were read. plan: with the weights found.';
