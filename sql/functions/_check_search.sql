create or replace function memory_plugin._check_search(
    p_namespaces text[],
    p_limit integer,
    p_filter memory_plugin._filter,
    p_min_score double precision,
    p_half_life double precision,
    p_lexical_weight double precision,
    p_semantic_weight double precision,
    p_offset integer,
    p_diversity double precision,
    p_neighbour_weight double precision
)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_names text;
    v_name text;
begin
    if cardinality(p_namespaces) is null or cardinality(p_namespaces) = 0 then
        raise exception using errcode = 'MP001', message = 'namespaces must name at least one namespace';
    end if;
    -- A few short names are looked at in one go. No name holds a space, so none is hidden in another.
    v_names := array_to_string(p_namespaces, ' ', '');
    if length(v_names) > @namespace_length@
        or v_names !~ '^@namespace_name@( @namespace_name@)*$'
        or length(v_names) - length(replace(v_names, ' ', '')) <> cardinality(p_namespaces) - 1
    then
        -- One pass finds the offender, if there is one: a call for each of 100,000 names would take most of a second.
        select n.name into v_name
        from unnest(p_namespaces) as n (name)
        where n.name is null or char_length(n.name) > @namespace_length@ or n.name !~ '^@namespace_name@$'
        limit 1;
        if found then
            perform _check_namespace('namespaces', v_name);
        end if;
    end if;
    if p_limit not between 0 and 100 then
        raise exception using errcode = 'MP001', message = 'limit must be between 0 and 100',
            hint = 'In SQL it is max_results; 0 stands for 20.';
    end if;
    if p_offset not between 0 and 10000 then
        raise exception using errcode = 'MP001', message = 'offset must be between 0 and 10000',
            hint = 'In SQL it is skip_results.';
    end if;
    if not (p_filter.kinds <@ '{@kinds@}') then
        raise exception using errcode = 'MP001',
            message = 'kinds must be some of: ' || array_to_string('{@kinds@}'::text[], ', ');
    end if;
    if not (p_filter.sources <@ '{@sources@}') then
        raise exception using errcode = 'MP001',
            message = 'source must be one of: ' || array_to_string('{@sources@}'::text[], ', '),
            hint = 'In SQL it is sources.';
    end if;
    -- NaN is the greatest float in Postgres, so it fails these too.
    if p_min_score not between -1e300 and 1e300 then
        raise exception using errcode = 'MP001', message = 'min_score must be between -1e300 and 1e300';
    end if;
    if p_half_life not between 0.001 and 1e12 then
        raise exception using errcode = 'MP001', message = 'recency_half_life must be between 0.001 and 1e12 seconds';
    end if;
    if p_diversity not between 0 and 1 then
        raise exception using errcode = 'MP001', message = 'diversity must be between 0 and 1';
    end if;
    -- One that is left out is above 0: then the sum is null, and refuses nothing.
    if p_lexical_weight not between 0 and 1e6 or p_semantic_weight not between 0 and 1e6
        or p_lexical_weight + p_semantic_weight <= 0
    then
        raise exception using errcode = 'MP001',
            message = 'weights must be numbers from 0 to 1e6, at least one of them above 0',
            hint = 'In SQL they are lexical_weight and semantic_weight.';
    end if;
    if p_neighbour_weight not between 0 and 10 then
        raise exception using errcode = 'MP001', message = 'weights.neighbour must be between 0 and 10',
            hint = 'In SQL it is neighbour_weight.';
    end if;
end
$function$;

comment on function memory_plugin._check_search(
    text[], integer, memory_plugin._filter, double precision, double precision, double precision, double precision,
    integer, double precision, double precision
) is
    'The rules of a search request: MP001 naming the field.';
