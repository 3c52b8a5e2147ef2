create or replace function memory_plugin._lexical_read(
    p_namespaces text[],
    p_plan memory_plugin._lexical_plan,
    p_filter memory_plugin._filter,
    p_limit integer,
    p_total double precision,
    p_cover tsquery,
    p_budget integer,
    p_newest boolean,
    out candidates memory_plugin._candidate[],
    out scored bigint,
    out complete boolean,
    out weights double precision[]
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- Either the words lead, through their index, or the newest come first, along theirs. Of many words, or a large
-- namespace, the planner would rather read or sort all there is.
set enable_seqscan = off
set enable_sort = off
as $function$
declare
    v_counts text;
    v_weights text;
    v_score text;
    v_names text;
    -- So far back, of all namespaces together, the words of memories are looked at that need not match; and four times
    -- as far for those of the kinds, sources and times that are wanted.
    c_far constant integer := 100000;
    v_live constant text := '(r.expires_at is null or r.expires_at > now())';
    v_from text;
    -- What the rules `filtered` and `demanded` say, but for what is not asked: this is planned at every call.
    v_wanted text :=
        '($3 is null or r.kind = any ($3)) and ($4 is null or r.source = any ($4)) '
        'and ($5 is null or r.created_at > $5) and ($6 is null or r.created_at < $6) '
        || coalesce('and r.content_tsv @@ ' || quote_literal(p_plan.required) || '::tsquery ', '')
        || coalesce('and r.content ~* all (' || quote_literal(p_plan.present) || '::text[]) ', '')
        || coalesce('and not r.content ~* ' || quote_literal(p_plan.absent[1]) || ' ', '');
begin
    select
        string_agg(
            case
                when numnode(u.term) > 1 then format('(d.t @@ %L::tsquery)::integer as n%s', u.term, u.place)
                else format('@occurrences(d.t, %L::tsquery)@ as n%s', u.term, u.place)
            end,
            ', ' order by u.place
        ),
        string_agg(
            case
                when u.weight is null then format(
                    'ln(($7 + 1) / (count(*) filter (where x.n%1$s > 0) + 0.5::double precision)) as w%1$s', u.place
                )
                else format('%s::double precision as w%s', u.weight, u.place)
            end,
            ', ' order by u.place
        ),
        string_agg(format('c.w%1$s * (1 - 1 / (1 + x.n%1$s / x.norm))', u.place), ' + ' order by u.place),
        string_agg(format('c.w%s', u.place), ', ' order by u.place)
    into v_counts, v_weights, v_score, v_names
    from unnest(p_plan.terms, p_plan.weights) with ordinality as u (term, weight, place);

    v_from := case
        when p_newest then
            'unnest($1) as n (name) cross join (values (true), (false)) as p (pin) cross join lateral ('
            '    select r.* from ('
            '        select r.* from ('
            '            select r.* from memory_plugin.memory_records as r '
            '            where r.namespace = n.name and r.pin = p.pin and ' || v_live ||
            '                and r.created_at > coalesce($5, ''-infinity'') and r.created_at < coalesce($6, ''infinity'') '
            '            order by r.created_at desc, r.id limit 4 * $13'
            '        ) as r where ($3 is null or r.kind = any ($3)) and ($4 is null or r.source = any ($4)) limit $13'
            '    ) as r where r.content_tsv @@ $2 and ' || v_wanted || ' limit $10'
            ') as r '
        else
            '('
            '    select r.* from memory_plugin.memory_records as r '
            '    where r.namespace = any ($1) and r.content_tsv @@ $2 and ' || v_live
            || case when p_plan.weights is not null then ' and ' || v_wanted else '' end || ' limit $10'
            ') as r '
    end;

    execute
        'with docs as materialized ('
        '    select '
        '        r.namespace, r.id, r.created_at, ' || v_counts || ', ' || v_wanted || ' as wanted, '
        '        $8 + $9 * @word_count(d.t)@ as norm '
        '    from ' || v_from ||
        -- Nothing is deleted: this fetches the words once for all terms.
        '    cross join lateral (select ts_delete(r.content_tsv, '''') as t offset 0) as d '
        '), '
        'corpus as materialized (select count(*) as scored, ' || v_weights || ' from docs as x), '
        'best as ('
        '    select x.namespace, x.id, x.created_at, $11 * (' || v_score || ') as score '
        '    from docs as x cross join corpus as c '
        '    where x.wanted '
        '    order by score desc, x.created_at desc, x.id, x.namespace limit $12'
        ') '
        'select '
        '    (select array_agg(row(b.namespace, b.id, b.score)::memory_plugin._candidate '
        '        order by b.score desc, b.created_at desc, b.id, b.namespace) from best as b), '
        '    c.scored, array[' || v_names || '] '
        'from corpus as c'
    into candidates, scored, weights
    using p_namespaces, p_cover, p_filter.kinds, p_filter.sources, p_filter.created_after, p_filter.created_before,
        p_total, p_plan.k1 * (1 - p_plan.b), p_plan.k1 * p_plan.b / p_plan.average_length, p_budget, p_plan.k1 + 1,
        p_limit, greatest(c_far / cardinality(p_namespaces), 1000);
    complete := scored < p_budget and not p_newest;
end
$function$;

comment on function memory_plugin._lexical_read(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer, double precision, tsquery, integer, boolean
) is
    'The best by BM25 of the memories that match the tsquery p_cover, of which at most p_budget are read; complete: '
    'all of them were. p_total: live memories of the namespaces, from which the idf of a term is reckoned. '
    'p_newest: of each namespace the newest p_budget, found by walking back from the newest. '
    'Where the plan has no weights yet, p_cover must find every memory with any term, and the weights are counted.';
