create or replace function memory_plugin._semantic_graph(
    p_namespaces text[], p_unit @extschema:vector@.halfvec, p_guide @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer
)
returns memory_plugin._candidate[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for every value: of what is left, only the graph gives the order. The planner would choose by cost,
-- which knows nothing of recall.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_sort = off
set jit = off
as $function$
declare
    v_kinds constant text[] := p_filter.kinds;
    v_sources constant text[] := p_filter.sources;
    v_after constant timestamptz := p_filter.created_after;
    v_before constant timestamptz := p_filter.created_before;
begin
    return (
        select coalesce(array_agg(row(s.namespace, s.id, s.score)::_candidate), '{}')
        from (
            -- || '' keeps the planner from a btree.
            select v.namespace, v.id, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
            from memory_vectors as v
            where v.namespace || '' = any (p_namespaces)
                and (v.expires_at is null or v.expires_at > now())
                and (v_kinds is null or v.kind || '' = any (v_kinds))
                and (v_sources is null or v.source = any (v_sources))
                and (v_after is null or v.created_at > v_after)
                and (v_before is null or v.created_at < v_before)
            order by v.embedding operator(@extschema:vector@.<#>) p_guide
            limit p_limit
        ) as s
    );
end
$function$;

comment on function memory_plugin._semantic_graph(
    text[], @extschema:vector@.halfvec, @extschema:vector@.halfvec, memory_plugin._filter, integer
) is
    'Up to p_limit live rows of the namespaces from a walk, which is one scan of the HNSW index (the graph), towards '
    'p_guide: the embedding with the tail of a namespace and kinds. Unordered; score: the inner product with p_unit, '
    'whose tail is zero, and so the cosine similarity of the embeddings. An approximate search: it may miss rows.';

create or replace function memory_plugin._semantic_walks(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer, p_reach integer, p_tuples integer
)
returns memory_plugin._candidate[]
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_settings constant text[] := _graph_settings(p_reach, p_tuples);
    v_near _candidate[] := '{}';
    v_name text;
begin
    foreach v_name in array p_namespaces loop
        v_near := v_near || _semantic_graph(
            array[v_name], p_unit, _steered(p_embedding, v_name, p_filter.kinds, '@asked_tail@'), p_filter, p_limit
        );
    end loop;
    perform _graph_settings(v_settings);
    return v_near;
end
$function$;

comment on function memory_plugin._semantic_walks(
    text[], @extschema:vector@.vector, @extschema:vector@.halfvec, memory_plugin._filter, integer, integer, integer
) is
    'Up to p_limit candidates of each namespace, from a walk towards it that reaches p_reach far at once and '
    'p_tuples in all.';

create or replace function memory_plugin._semantic_again(
    p_near memory_plugin._candidate[], p_namespace text, p_unit @extschema:vector@.halfvec,
    p_guide @extschema:vector@.halfvec, p_filter memory_plugin._filter, p_limit integer, p_reach integer
)
returns memory_plugin._candidate[]
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_settings text[];
    v_near _candidate[];
begin
    v_settings := _graph_settings(least(3 * p_reach, 1000), 4 * p_reach);
    v_near := _semantic_graph(array[p_namespace], p_unit, p_guide, p_filter, p_limit);
    perform _graph_settings(p_reach, 4 * p_reach);
    v_near := v_near || _semantic_graph(array[p_namespace], p_unit, p_unit, p_filter, p_limit);
    perform _graph_settings(v_settings);
    return (
        select coalesce(array_agg(row(c.namespace, c.id, c.score)::_candidate), '{}')
        from (select distinct n.namespace, n.id, n.score from unnest(p_near || v_near) as n) as c
    );
end
$function$;

comment on function memory_plugin._semantic_again(
    memory_plugin._candidate[], text, @extschema:vector@.halfvec, @extschema:vector@.halfvec, memory_plugin._filter,
    integer, integer
) is
    'Candidates, and those that two more walks meet: one that reaches farther, one towards no namespace. Of a large '
    'part of the store one walk in thirty goes astray among its many topics, whose rows are neighbours of each other '
    'only; the rows of other namespaces lead on.';

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
