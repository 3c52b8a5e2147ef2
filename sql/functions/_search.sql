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
    p_explain boolean
)
returns memory_plugin._search_answer
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_answer _search_answer;
    v_filter _filter := row(nullif(p_kinds, '{}'), nullif(p_sources, '{}'), p_created_after, p_created_before)::_filter;
    v_limit integer := coalesce(nullif(p_limit, 0), 20);
    v_offset integer := coalesce(p_offset, 0);
    v_embedding @extschema:vector@.vector := _check_embedding(p_embedding);
    v_live text[];
    v_query text := nullif(_trim(p_query), '');
    v_lexical _candidate[];
    v_semantic _candidate[];
    v_scored bigint;
    v_exact boolean;
    v_pool integer;
begin
    perform _check_search(
        p_namespaces, v_limit, v_filter, p_min_score, p_half_life, p_lexical_weight, p_semantic_weight, v_offset
    );
    -- Each arm brings more than is asked for: what one ranks low the other may lift.
    v_pool := greatest(100, 4 * (v_limit + v_offset));
    select array_agg(n.name) into v_live
    from memory_namespaces as n
    where n.name = any (_visible_namespaces(p_namespaces)) and (n.expires_at is null or n.expires_at > now());

    v_answer.mode := case
        when v_embedding is not null and char_length(v_query) > 1 then 'hybrid'
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
        return v_answer;
    end if;

    if v_answer.mode in ('lexical', 'hybrid') then
        select c.candidates, c.scored, c.exact into v_lexical, v_scored, v_exact
        from _lexical_candidates(v_live, v_query, v_filter, v_pool) as c;
        v_lexical := coalesce(v_lexical, '{}');
        v_answer.candidates := v_answer.candidates + v_scored;
        v_answer.exact := v_answer.exact and v_exact;
    end if;
    if v_answer.mode in ('semantic', 'hybrid') then
        select c.candidates, c.scored, c.exact into v_semantic, v_scored, v_exact
        from _semantic_candidates(v_live, v_embedding, v_filter, v_pool) as c;
        v_semantic := coalesce(v_semantic, '{}');
        v_answer.candidates := v_answer.candidates + v_scored;
        v_answer.exact := v_answer.exact and v_exact;
    end if;

    v_answer.hits := coalesce(
        _rank(
            v_lexical, v_semantic, v_limit, v_offset, p_min_score, p_half_life,
            coalesce(p_lexical_weight, 0.5), coalesce(p_semantic_weight, 0.5),
            coalesce(p_explain, false)
        ),
        '{}'
    );
    return v_answer;
end
$function$;

comment on function memory_plugin._search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean
) is
    'The one search under search() and v1_search(): the rules, the live namespaces, one or both arms, fusion, '
    'one page.';
