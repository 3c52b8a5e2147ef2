create or replace function memory_plugin._lexical_farther(
    p_namespaces text[], p_plan memory_plugin._lexical_plan, p_weighed memory_plugin._lexical_plan,
    p_filter memory_plugin._filter, p_limit integer, p_near memory_plugin._candidate[],
    out candidates memory_plugin._candidate[], out scored bigint
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_terms constant integer := cardinality(p_plan.terms);
    v_plan _lexical_plan := p_plan;
    v_found record;
begin
    v_plan.grams := '{}';
    v_plan.terms := _lexical_rarest(p_namespaces, p_plan.terms, 32);
    v_found := _lexical_search(p_namespaces, v_plan, p_filter, p_limit);
    scored := v_found.scored;
    candidates := array(
        with farther as materialized (
            select f.namespace, f.id, f.score, r.created_at, lower(r.content) as letters
            from unnest(v_found.candidates) as f
            inner join memory_records as r on f.namespace = r.namespace and f.id = r.id
            where not exists (select from unnest(p_near) as n where n.namespace = f.namespace and n.id = f.id)
        ),

        merged as (
            select n.namespace, n.id, n.score, r.created_at
            from unnest(p_near) as n inner join memory_records as r on n.namespace = r.namespace and n.id = r.id
            union all
            select
                f.namespace, f.id,
                f.score + coalesce((
                    select
                        (p_weighed.k1 + 1) * sum(u.weight * (1 - 1 / (1 + c.n / (
                            p_weighed.k1
                            * (1 - p_weighed.b + p_weighed.b * length(f.letters) / p_weighed.average_length)
                        ))))
                    from (
                        select a.gram, @plain(a.gram)@ as plain, a.weight
                        from unnest(p_weighed.grams, p_weighed.weights[v_terms + 1:]) as a (gram, weight)
                    ) as u
                    cross join lateral (
                        select @pieces(f.letters, u.gram)@ as n where @holds(f.letters, u.gram, u.plain)@
                    ) as c
                ), 0),
                f.created_at
            from farther as f
        )

        select row(m.namespace, m.id, m.score)::_candidate
        from merged as m
        order by m.score desc, m.created_at desc, m.id, m.namespace
        limit p_limit
    );
end
$function$;

comment on function memory_plugin._lexical_farther(
    text[], memory_plugin._lexical_plan, memory_plugin._lexical_plan, memory_plugin._filter, integer,
    memory_plugin._candidate[]
) is
    'For a query of words and pieces of text, where pieces were looked for among the newest memories only: p_near, '
    'what was found there, and what the index on words finds of the words among all, with what the pieces add to it. '
    'p_plan: the query; p_weighed: with the weights that were found. scored: further rows looked at.';
