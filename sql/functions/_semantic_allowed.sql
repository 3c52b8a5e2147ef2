create or replace function memory_plugin._semantic_allowed(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_filter memory_plugin._filter, p_limit integer,
    p_closely boolean, p_plan memory_plugin._lexical_plan, p_listed boolean,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_found record;
    v_asked integer;
    -- Of what must occur, a search by words may have listed all.
    v_once boolean;
    c_least constant integer := 100;
    c_most constant integer := 10000;
begin
    v_once := p_listed and (p_plan.terms <> '{}' or p_plan.grams <> '{}')
        and (p_plan.present is not null or not ''::tsvector @@ p_plan.required);
    v_asked := greatest(p_limit, c_least);
    scored := 0;
    loop
        v_found := _semantic_candidates(p_namespaces, p_embedding, p_filter, v_asked, p_closely);
        candidates := _lexical_allowed(v_found.candidates, p_plan);
        scored := scored + v_found.scored;
        exact := v_found.exact;
        exit when cardinality(candidates) >= p_limit or cardinality(v_found.candidates) < v_asked or v_once;
        if v_asked >= c_most then
            exact := false;
            exit;
        end if;
        v_asked := least(10 * v_asked, c_most);
    end loop;
    candidates := candidates[:p_limit];
end
$function$;

comment on function memory_plugin._semantic_allowed(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer, boolean, memory_plugin._lexical_plan, boolean
) is
    'What _semantic_candidates finds, of memories that hold what a query demands and nothing of what it excludes: more '
    'are looked for, up to 10,000, until p_limit of them pass. listed: a search by words has listed all that it finds.';
