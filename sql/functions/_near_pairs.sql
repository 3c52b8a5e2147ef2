create or replace function memory_plugin._near_pairs(
    p_namespace text, p_ids uuid[], p_places integer[], p_threshold double precision, p_all uuid[]
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
        -- Each is walked towards once, whatever the planner thinks of a table that it knows nothing of yet.
        with met as materialized (
            select a.place, r.embedding, c.id, c.score
            from unnest(p_ids, p_places) as a (id, place)
            inner join memory_records as r on r.namespace = p_namespace and a.id = r.id
            cross join lateral unnest(
                _semantic_graph(
                    array[p_namespace], _steered(r.embedding, '', null, '{0,0}'),
                    _steered(r.embedding, p_namespace, null, '@asked_tail@'), null::_filter, c_near
                )
            ) as c (namespace, id, score)
            where a.id <> c.id and c.score >= p_threshold - c_doubt
        )

        select m.place, b.place::integer
        from met as m
        inner join unnest(p_all) with ordinality as b (id, place) on m.id = b.id
        where case
            when m.score >= p_threshold + c_doubt then true
            else (
                select 1 - (m.embedding operator(@extschema:vector@.<=>) s.embedding) >= p_threshold
                from memory_records as s
                where s.namespace = p_namespace and s.id = m.id
            )
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

comment on function memory_plugin._near_pairs(text, uuid[], integer[], double precision, uuid[]) is
    'The pairs, by their places, of memories of a namespace whose embeddings have a cosine similarity of p_threshold '
    'or more: of up to 2,000 memories all, of more those among the 20 nearest of each that the graph finds. p_all: the '
    'memories by their places, and so those too that are left out of p_ids as copies, which a walk meets all the same.';
