create or replace function memory_plugin._semantic_close(p_candidates memory_plugin._candidate[], p_place integer)
returns boolean
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- For its kind alone a copy is 0.0625 further off, as much as the hundredth row of a topic is behind the first.
    c_close constant double precision := 0.86;
begin
    return coalesce(
        (select c.score from unnest(p_candidates) as c order by c.score desc limit 1 offset p_place - 1) > c_close, false
    );
end
$function$;

comment on function memory_plugin._semantic_close(memory_plugin._candidate[], integer) is
    'Whether the candidates up to a place are so near that the kind sets rows further apart than their embeddings do: '
    'the graph then leads from rows of one kind to few of another.';

create or replace function memory_plugin._semantic_each_kind(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_filter memory_plugin._filter, p_limit integer,
    p_closely boolean,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
-- _semantic_candidates is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_kind text;
    v_part record;
begin
    candidates := '{}';
    scored := 0;
    exact := true;
    for v_kind in
        select distinct k.kind
        from unnest(coalesce(p_filter.kinds, '{@kinds@}')) as k (kind)
        order by k.kind
    loop
        v_part := _semantic_candidates(
            p_namespaces, p_embedding,
            row(array[v_kind], p_filter.sources, p_filter.created_after, p_filter.created_before)::_filter,
            p_limit, p_closely
        );
        candidates := candidates || v_part.candidates;
        scored := scored + v_part.scored;
        exact := exact and v_part.exact;
    end loop;
end
$function$;

comment on function memory_plugin._semantic_each_kind(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer, boolean
) is
    'The p_limit nearest of each kind, unordered; scored and exact as of _semantic_candidates.';
