create or replace function memory_plugin._semantic_scan(
    p_namespaces text[], p_unit @extschema:vector@.halfvec, p_filter memory_plugin._filter, p_limit integer
)
returns memory_plugin._candidate[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set jit = off
as $function$
begin
    return (
        select coalesce(array_agg(row(s.namespace, s.id, s.score)::_candidate), '{}')
        from (
            -- The sign keeps the planner from taking the graph for this order.
            select v.namespace, v.id, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
            from memory_vectors as v
            where v.namespace = any (p_namespaces)
                and (v.expires_at is null or v.expires_at > now())
                and (p_filter.kinds is null or v.kind = any (p_filter.kinds))
                and (p_filter.sources is null or v.source = any (p_filter.sources))
                and (p_filter.created_after is null or v.created_at > p_filter.created_after)
                and (p_filter.created_before is null or v.created_at < p_filter.created_before)
            order by score desc, v.created_at desc, v.id
            limit p_limit
        ) as s
    );
end
$function$;

comment on function memory_plugin._semantic_scan(
    text[], @extschema:vector@.halfvec, memory_plugin._filter, integer
) is 'The nearest to p_unit of every live row of the namespaces, unordered.';

create or replace function memory_plugin._semantic_graph(
    p_namespaces text[], p_unit @extschema:vector@.halfvec, p_guide @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer
)
returns memory_plugin._candidate[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_custom_plan
-- Of what is left, only the graph gives the order. The planner would choose by cost, which knows nothing of recall.
set enable_seqscan = off
set enable_sort = off
set jit = off
as $function$
begin
    return (
        select coalesce(array_agg(row(s.namespace, s.id, s.score)::_candidate), '{}')
        from (
            -- || '' keeps the planner from a btree.
            select v.namespace, v.id, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
            from memory_vectors as v
            where v.namespace || '' = any (p_namespaces)
                and (v.expires_at is null or v.expires_at > now())
                and (p_filter.kinds is null or v.kind || '' = any (p_filter.kinds))
                and (p_filter.sources is null or v.source = any (p_filter.sources))
                and (p_filter.created_after is null or v.created_at > p_filter.created_after)
                and (p_filter.created_before is null or v.created_at < p_filter.created_before)
            order by v.embedding operator(@extschema:vector@.<#>) p_guide
            limit p_limit
        ) as s
    );
end
$function$;

comment on function memory_plugin._semantic_graph(
    text[], @extschema:vector@.halfvec, @extschema:vector@.halfvec, memory_plugin._filter, integer
) is
    'Live rows of the namespaces from a walk through the graph towards p_guide, unordered; their score is the nearness '
    'to p_unit. May be fewer than there are.';

create or replace function memory_plugin._graph_settings(p_reach integer, p_tuples integer)
returns text[]
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- Unknown to pgvector before 0.8.0, where the walk ends with its first p_reach rows.
    v_before constant text[] := array[
        current_setting('hnsw.ef_search', true), current_setting('hnsw.iterative_scan', true),
        current_setting('hnsw.max_scan_tuples', true)
    ];
begin
    perform set_config('hnsw.ef_search', p_reach::text, true);
    if v_before[2] is not null then
        perform set_config('hnsw.iterative_scan', 'relaxed_order', true);
        perform set_config('hnsw.max_scan_tuples', p_tuples::text, true);
    end if;
    return v_before;
end
$function$;

comment on function memory_plugin._graph_settings(integer, integer) is
    'Set how far a walk through the graph reaches at once and in all; returns what was set before.';

create or replace function memory_plugin._graph_settings(p_before text[])
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    perform set_config('hnsw.ef_search', coalesce(p_before[1], '40'), true);
    if p_before[2] is not null then
        perform set_config('hnsw.iterative_scan', p_before[2], true);
        perform set_config('hnsw.max_scan_tuples', p_before[3], true);
    end if;
end
$function$;

comment on function memory_plugin._graph_settings(text[]) is 'Put back what was set before.';
