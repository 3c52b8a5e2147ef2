create or replace function memory_plugin._near_pairs(
    p_namespace text, p_ids uuid[], p_places integer[], p_threshold double precision
)
returns table (one integer, other integer)
-- set_config, which the graph needs, is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
rows 1000
set search_path = pg_catalog, memory_plugin, pg_temp
-- Two thousand vectors are held in memory and passed over two thousand times.
set work_mem = '32MB'
set jit = off
as $function$
#variable_conflict use_column
declare
    -- Up to here each is compared with each.
    c_each constant integer := case when @dimensions@ > @graph_dimensions@ then 2147483646 else 2000 end;
    c_near constant integer := 20;
    -- Half precision is off by less: what is so close to the threshold is measured again.
    c_doubt constant double precision := 0.001;
    v_settings text[];
begin
    if cardinality(p_ids) > c_each then
        v_settings := _graph_settings(3 * c_near, 2000);
        return query
        with asked as materialized (
            select a.id, a.place from unnest(p_ids, p_places) as a (id, place)
        )

        select a.place, b.place
        from asked as a
        inner join memory_records as r on r.namespace = p_namespace and a.id = r.id
        cross join lateral unnest(
            _semantic_graph(
                array[p_namespace], _steered(r.embedding, '', null, '{0,0}'),
                _steered(r.embedding, p_namespace, null, '@asked_tail@'), null::_filter, c_near
            )
        ) as c (namespace, id, score)
        inner join asked as b on c.id = b.id
        inner join memory_records as s on s.namespace = p_namespace and c.id = s.id
        where
            a.id <> b.id and c.score >= p_threshold - c_doubt
            and case
                when c.score >= p_threshold + c_doubt then true
                else 1 - (r.embedding operator(@extschema:vector@.<=>) s.embedding) >= p_threshold
            end;
        perform _graph_settings(v_settings);
        return;
    end if;
    return query
    with asked as materialized (
        select a.id, a.place, @extschema:vector@.subvector(v.embedding, 1, @dimensions@) as unit
        from unnest(p_ids, p_places) as a (id, place)
        inner join memory_vectors as v on v.namespace = p_namespace and a.id = v.id
    )

    select c.one, c.other
    from (
        select
            a.place as one, b.place as other, a.id as id, b.id as other_id,
            -(a.unit operator(@extschema:vector@.<#>) b.unit) as score
        from asked as a
        inner join asked as b on a.place < b.place
        where -(a.unit operator(@extschema:vector@.<#>) b.unit) >= p_threshold - c_doubt
    ) as c
    where case
        when c.score >= p_threshold + c_doubt then true
        else (
            select 1 - (r.embedding operator(@extschema:vector@.<=>) s.embedding) >= p_threshold
            from memory_records as r, memory_records as s
            where r.namespace = p_namespace and s.namespace = p_namespace and r.id = c.id and s.id = c.other_id
        )
    end;
end
$function$;

comment on function memory_plugin._near_pairs(text, uuid[], integer[], double precision) is
    'The pairs, by their places, of memories of a namespace whose embeddings have a cosine similarity of p_threshold '
    'or more: of up to 2,000 memories all, of more those among the 20 nearest of each that the graph finds.';
