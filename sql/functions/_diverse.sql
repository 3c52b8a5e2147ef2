create or replace function memory_plugin._plain_text(p_content text)
returns text
language sql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select lower(regexp_replace(normalize(_trim(p_content), nfc), e'\\s+', ' ', 'g'))
$function$;

comment on function memory_plugin._plain_text(text) is
    'A content without what does not make another memory of it: case, the width of white space, how accents are coded.';

create or replace function memory_plugin._diverse(
    p_hits memory_plugin.memory_hit[], p_diversity double precision, p_limit integer, p_offset integer
)
returns memory_plugin.memory_hit[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
declare
    -- Each further one is compared with every one that is placed already.
    c_pool constant integer := 200;
    v_scaled double precision[];
    v_units @extschema:vector@.halfvec[];
    v_texts text[];
    -- How near to the nearest of those placed; null where it is placed itself.
    v_near double precision[];
    v_order integer[] := '{}';
    v_best integer;
begin
    select
        array_agg(c.scaled order by c.place), array_agg(c.unit order by c.place),
        array_agg(c.plain order by c.place), array_agg(0 order by c.place)
    into v_scaled, v_units, v_texts, v_near
    from (
        select
            h.place,
            case
                when max(h.score) over () > min(h.score) over ()
                    then (h.score - min(h.score) over ()) / (max(h.score) over () - min(h.score) over ())
                else 1
            end as scaled,
            -- The copy, without its tail: it lies in its row, the stored vector apart from its.
            @extschema:vector@.subvector(v.embedding, 1, @dimensions@) as unit,
            case when bool_or(v.embedding is null) over () then md5(_plain_text(h.content)) end as plain
        from unnest(p_hits) with ordinality as h (
            id, namespace, content, kind, source, expires_at, propagation, pin, created_at, score, parts, place
        )
        left join memory_vectors as v on h.namespace = v.namespace and h.id = v.id
        where h.place <= c_pool
    ) as c;
    for v_round in 1 .. least(coalesce(cardinality(v_scaled), 0), p_limit + p_offset) loop
        select c.place into v_best
        from unnest(v_scaled, v_near) with ordinality as c (scaled, near, place)
        where c.near is not null
        order by (1 - p_diversity) * c.scaled - p_diversity * c.near desc, c.place
        limit 1;
        v_order := v_order || v_best;
        select
            array_agg(
                case
                    when c.near is null or c.place = v_best then null
                    when c.unit is not null and v_units[v_best] is not null
                        then greatest(c.near, -(c.unit operator(@extschema:vector@.<#>) v_units[v_best]))
                    when c.plain = v_texts[v_best] then greatest(c.near, 1)
                    else c.near
                end
                order by c.place
            )
        into v_near
        from unnest(v_near, v_units, v_texts) with ordinality as c (near, unit, plain, place);
    end loop;
    return (
        select array_agg(p_hits[o.place] order by o.turn)
        from (
            select d.place, d.turn from unnest(v_order) with ordinality as d (place, turn)
            union all
            select g.place, g.place from generate_series(c_pool + 1, cardinality(p_hits)) as g (place)
        ) as o
        where o.turn > p_offset and o.turn <= p_offset + p_limit
    );
end
$function$;

comment on function memory_plugin._diverse(memory_plugin.memory_hit[], double precision, integer, integer) is
    'One page of hits in the order of maximal marginal relevance: each time the one with the greatest (1 - d) * score, '
    'brought to 0 to 1, less d * cosine similarity to the nearest of those before it. The best 200 take part. Where '
    'one of two has no embedding, they are as one when their texts are the same, and else have nothing in common.';
