create or replace function memory_plugin._lexical_candidates(
    p_namespaces text[],
    p_query text,
    p_filter memory_plugin._filter,
    p_limit integer,
    p_alone boolean,
    out candidates memory_plugin._candidate[],
    out scored bigint,
    out exact boolean,
    out plan memory_plugin._lexical_plan
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_found record;
begin
    exact := true;
    scored := 0;
    plan := _lexical_parse(p_query, p_alone);
    if plan.terms = '{}' and plan.grams = '{}' then
        return;
    end if;
    if plan.grams <> '{}' or _lexical_rows(p_namespaces, 1001) <= 1000 then
        v_found := _lexical_whole(p_namespaces, plan, p_filter, p_limit);
    else
        v_found := _lexical_search(p_namespaces, plan, p_filter, p_limit);
    end if;
    exact := v_found.exact;
    candidates := v_found.candidates;
    scored := v_found.scored;
    plan := v_found.plan;
end
$function$;

comment on function memory_plugin._lexical_candidates(text[], text, memory_plugin._filter, integer, boolean) is
    'The p_limit best memories for the words of a query by BM25, best first. exact: no better one exists. scored: rows '
    'looked at. plan: the words and their weights. p_alone: no embedding is asked for, so even stop words are.';
