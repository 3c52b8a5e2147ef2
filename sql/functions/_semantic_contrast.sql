create or replace function memory_plugin._semantic_contrast(
    p_candidates memory_plugin._candidate[], p_namespaces text[], p_unit @extschema:vector@.halfvec,
    p_place integer
)
returns double precision
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values: some rows by their keys.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
begin
    return (
        with best as materialized (
            select u.score, v.embedding, row_number() over (order by u.score desc) as place
            from (select c.namespace, c.id, c.score from unnest(p_candidates) as c order by c.score desc limit p_place) as u
            inner join memory_vectors as v on u.namespace = v.namespace and u.id = v.id
        ),

        first as materialized (
            select
                b.score,
                -- Without the tail.
                (
                    @extschema:vector@.subvector(b.embedding, 1, @dimensions@)::@extschema:vector@.vector
                    operator(@extschema:vector@.||) array_fill(0::real, array[19])::@extschema:vector@.vector
                )::@extschema:vector@.halfvec as unit
            from best as b
            where b.place = 1
        ),

        near as (
            select max(-(b.embedding operator(@extschema:vector@.<#>) f.unit)) as score
            from best as b
            cross join first as f
            where b.place > 1
        ),

        -- So alike the rows of a namespace are anyway.
        chance as (
            select
                avg(-(s.embedding operator(@extschema:vector@.<#>) p_unit)) as question,
                avg(-(s.embedding operator(@extschema:vector@.<#>) f.unit)) as row
            from first as f
            cross join unnest(p_namespaces[:4]) as n (name)
            cross join lateral (
                select v.embedding from memory_vectors as v where v.namespace = n.name order by v.id limit 24
            ) as s
        )

        select (l.score - c.question) / greatest(greatest(f.score, n.score) - c.row, 0.000001)
        from best as l
        cross join first as f
        cross join near as n
        cross join chance as c
        where l.place = p_place
    );
end
$function$;

comment on function memory_plugin._semantic_contrast(
    memory_plugin._candidate[], text[], @extschema:vector@.halfvec, integer
) is
    'How far the candidate of a place stands out: its nearness to the question, as a part of the nearness of the best '
    'candidate to its neighbours, both above that of rows of chance. About 1: the question is like the rows; near 0: '
    'it is about something else, its nearest rows are anywhere, and a walk through the graph meets only some of them.';
