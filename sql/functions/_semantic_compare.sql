create or replace function memory_plugin._semantic_compare(
    p_namespaces text[], p_unit @extschema:vector@.halfvec, p_filter memory_plugin._filter, p_limit integer,
    out nearest memory_plugin._candidate[], out exact boolean
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values: the live rows of some namespaces, from the index that holds their vectors, or where
-- these have no room in one, page by page.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
-- As they are set below, until the function ends.
set enable_bitmapscan = on
set jit = off
as $function$
declare
    v_doubt constant double precision := _semantic_doubt();
    c_most constant integer := 10000;
    v_kinds constant text[] := coalesce(p_filter.kinds, '{@kinds@}');
    -- Looked at for each row, and so not taken out of the filter each time.
    v_sources constant text[] := p_filter.sources;
    v_after constant timestamptz := p_filter.created_after;
    v_before constant timestamptz := p_filter.created_before;
    v_keep integer := 2 * p_limit + 40;
begin
    if @dimensions@ <= @near_dimensions@ then
        perform set_config('enable_bitmapscan', 'off', true);
    elsif p_filter.kinds is not null then
        -- Of a store where nothing expires, the plan for all values would read the rows of every kind.
        perform set_config('plan_cache_mode', 'force_custom_plan', true);
    end if;
    loop
        nearest := (
            select coalesce(array_agg(row(s.namespace, s.id, s.score)::_candidate), '{}')
            from (
                -- The sign keeps the planner from taking the graph for this order.
                select v.namespace, v.id, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
                from memory_vectors as v
                where v.namespace = any (p_namespaces)
                    and v.kind = any (v_kinds)
                    and coalesce(v.expires_at, 'infinity') > now()
                    and (v_sources is null or v.source = any (v_sources))
                    and (v_after is null or v.created_at > v_after)
                    and (v_before is null or v.created_at < v_before)
                order by score desc, v.created_at desc, v.id, v.namespace
                limit v_keep
            ) as s
        );
        exact := cardinality(nearest) < v_keep or nearest[v_keep].score < nearest[p_limit].score - v_doubt;
        exit when exact or v_keep >= c_most;
        -- Near-copies: which of them is nearest only the stored vectors tell.
        v_keep := least(10 * v_keep, c_most);
    end loop;
end
$function$;

comment on function memory_plugin._semantic_compare(
    text[], @extschema:vector@.halfvec, memory_plugin._filter, integer
) is
    'The nearest to p_unit of every live row of the namespaces, nearest first: the p_limit nearest, and enough behind '
    'them that by the stored vectors none of the rest is nearer (exact; not where more than 10,000 are as near).';

create or replace function memory_plugin._semantic_exact()
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return case
        when @dimensions@ <= @near_dimensions@ then 1500000 / @dimensions@
        else greatest(400, 640000 / @dimensions@)
    end;
end
$function$;

comment on function memory_plugin._semantic_exact() is
    'Up to so many rows, comparing every vector is quick, and exact; of more, sketches are compared first.';

create or replace function memory_plugin._semantic_nearest(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer, p_rows bigint,
    out nearest memory_plugin._candidate[], out exact boolean
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if @dimensions@ >= @sketch_dimensions@ and p_rows > greatest(_semantic_exact(), 6 * p_limit) then
        select s.nearest, s.exact into nearest, exact
        from _semantic_sketched(p_namespaces, p_embedding, p_unit, p_filter, p_limit, p_rows) as s;
    else
        select c.nearest, c.exact into nearest, exact
        from _semantic_compare(p_namespaces, p_unit, p_filter, p_limit) as c;
    end if;
end
$function$;

comment on function memory_plugin._semantic_nearest(
    text[], @extschema:vector@.vector, @extschema:vector@.halfvec, memory_plugin._filter, integer, bigint
) is
    'The nearest of p_rows live rows of the namespaces: few are all compared, many by their sketches first.';
