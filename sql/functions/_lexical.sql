create or replace function memory_plugin._lexical_candidates(
    p_namespaces text[],
    p_query text,
    p_filter memory_plugin._filter,
    p_limit integer,
    p_alone boolean,
    p_whole boolean,
    out candidates memory_plugin._candidate[],
    out scored bigint,
    out exact boolean,
    out plan memory_plugin._lexical_plan
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_found record;
    v_farther record;
    v_lengths record;
    v_few boolean;
    v_asked integer;
    v_most integer := 1000;
    -- A question has fewer; each costs a look through every text.
    c_grams constant integer := 32;
    -- Of whole words that each is a search by an expression.
    c_words constant integer := 8;
begin
    exact := true;
    scored := 0;
    plan := _lexical_parse(p_query, p_alone, p_whole);
    if plan.terms = '{}' and plan.grams = '{}' then
        return;
    end if;
    v_asked := cardinality(plan.terms) + cardinality(plan.grams);
    plan.grams := array(
        select g.gram
        from (
            select u.gram, u.place, count(*) filter (where @whole_words(u.gram)@) over (order by u.place) as words
            from unnest(plan.grams[:c_grams]) with ordinality as u (gram, place)
        ) as g
        where g.words <= c_words or not @whole_words(g.gram)@
        order by g.place
    );
    if cardinality(plan.terms) > 20 then
        -- Reading them all costs the same however many words are asked.
        v_most := 10000;
    end if;
    v_few := plan.grams <> '{}';
    if not v_few then
        v_lengths := _lexical_lengths(p_namespaces, v_most);
        v_few := v_lengths.counted;
        if v_few and v_lengths.names is null then
            -- There is none, or all of them expired.
            return;
        end if;
    end if;
    if not v_few then
        plan.terms := _lexical_rarest(p_namespaces, plan.terms, 32);
        v_found := _lexical_search(p_namespaces, plan, p_filter, p_limit);
    elsif plan.grams = '{}' and plan.present is null and cardinality(plan.terms) <= 8
        and not exists (select from unnest(plan.terms) as u (term) where numnode(u.term) > 1)
    then
        plan.average_length := v_lengths.average;
        v_found := _lexical_few(p_namespaces, plan, p_filter, p_limit, v_lengths.total);
    else
        v_found := _lexical_whole(p_namespaces, plan, p_filter, p_limit);
    end if;
    exact := v_found.exact and v_asked = cardinality(plan.terms) + cardinality(plan.grams)
        and coalesce(cardinality(plan.present), 0) < _lexical_present()
        and char_length(p_query) <= _lexical_reads();
    candidates := v_found.candidates;
    scored := v_found.scored;
    if not v_found.exact and plan.grams <> '{}' and plan.terms <> '{}' then
        -- What the query says in words has an index, which knows no bound.
        v_farther := _lexical_farther(p_namespaces, plan, v_found.plan, p_filter, p_limit, candidates);
        candidates := v_farther.candidates;
        scored := scored + v_farther.scored;
    end if;
    plan := v_found.plan;
    if p_alone and not p_whole and plan.terms <> '{}' and coalesce(candidates, '{}') = '{}' then
        -- A part of a path, an address or a number is no word to the parser.
        v_found := _lexical_candidates(p_namespaces, p_query, p_filter, p_limit, true, true);
        candidates := v_found.candidates;
        scored := scored + v_found.scored;
        exact := exact and v_found.exact;
        plan := v_found.plan;
    end if;
end
$function$;

comment on function memory_plugin._lexical_candidates(
    text[], text, memory_plugin._filter, integer, boolean, boolean
) is
    'The p_limit best memories for the words of a query by BM25, best first. exact: no better one exists. scored: rows '
    'looked at. plan: the words and their weights (idf). p_alone: no embedding is asked for, so even stop words are, '
    'and where no word is found, parts of longer ones. p_whole: words are looked for as they stand, whatever the index '
    'has.';
