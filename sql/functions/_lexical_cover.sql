create or replace function memory_plugin._lexical_cover(
    p_terms text[], p_bounds double precision[], p_need double precision, p_from integer default 1
)
returns text
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_rest double precision := 0;
    v_with text;
    v_without text;
begin
    for i in p_from .. cardinality(p_terms) loop
        v_rest := v_rest + p_bounds[i];
    end loop;
    if v_rest < p_need then
        return null;
    end if;
    v_without := _lexical_cover(p_terms, p_bounds, p_need, p_from + 1);
    v_with := p_terms[p_from];
    if p_bounds[p_from] < p_need then
        v_with := v_with || ' & (' || _lexical_cover(p_terms, p_bounds, p_need - p_bounds[p_from], p_from + 1) || ')';
    end if;
    return concat_ws(' | ', v_with, v_without);
end
$function$;

comment on function memory_plugin._lexical_cover(text[], double precision[], double precision, integer) is
    'A tsquery, as text, for the memories that could score p_need or more: those that hold a set of terms whose upper '
    'bounds, given the greatest first, add up to it. Null: no set does. p_from: the first term to look at, for the '
    'function itself.';
