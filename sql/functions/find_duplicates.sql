create or replace function memory_plugin.find_duplicates(
    namespace text, threshold double precision default 0.95
)
returns table (group_no integer, id uuid, content text, created_at timestamptz, similarity double precision)
language plpgsql stable parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
rows 100
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
declare
    v_namespace constant text := find_duplicates.namespace;
    v_ids uuid[];
    v_texts text[];
    -- The place of an older memory of the same group, or a memory's own.
    v_older integer[];
    -- Of each memory another that it is near to.
    v_beside integer[];
    v_pair record;
    v_one integer;
    v_other integer;
begin
    perform _check_namespace('namespace', v_namespace);
    if find_duplicates.threshold is null or find_duplicates.threshold not between 0.5 and 1 then
        raise exception using errcode = 'MP001', message = 'threshold must be between 0.5 and 1';
    end if;
    perform from memory_records, memory_vectors where false;
    select
        array_agg(r.id order by r.created_at, r.id), array_agg(md5(_plain_text(r.content)) order by r.created_at, r.id)
    into v_ids, v_texts
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    where
        r.namespace = any (_visible_namespaces(array[v_namespace]))
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now());
    v_older := array(select generate_series(1, cardinality(v_ids)));
    v_beside := array_fill(null::integer, array[coalesce(cardinality(v_ids), 0)]);
    for v_pair in
        select e.first as one, e.place as other
        from (
            select m.place::integer as place, first_value(m.place::integer) over (partition by m.plain order by m.place) as first
            from unnest(v_texts) with ordinality as m (plain, place)
        ) as e
        where e.place > e.first
        union all
        select p.one, p.other
        from (
            -- Of those with one text and one embedding, one is enough.
            select array_agg(u.id order by u.place) as ids, array_agg(u.place order by u.place) as places
            from (
                select distinct on (m.plain, v.embedding) m.id, m.place::integer as place
                from unnest(v_ids, v_texts) with ordinality as m (id, plain, place)
                inner join memory_vectors as v on v.namespace = v_namespace and m.id = v.id
                order by m.plain, v.embedding, m.place
            ) as u
        ) as a
        cross join lateral _near_pairs(v_namespace, a.ids, a.places, find_duplicates.threshold, v_ids) as p
    loop
        -- Most pairs tell nothing new where many memories are near to each other.
        continue when v_older[v_pair.one] = v_older[v_pair.other];
        v_beside[v_pair.one] := coalesce(v_beside[v_pair.one], v_pair.other);
        v_beside[v_pair.other] := coalesce(v_beside[v_pair.other], v_pair.one);
        v_one := v_pair.one;
        while v_older[v_one] <> v_one loop
            v_older[v_one] := v_older[v_older[v_one]];
            v_one := v_older[v_one];
        end loop;
        v_other := v_pair.other;
        while v_older[v_other] <> v_other loop
            v_older[v_other] := v_older[v_older[v_other]];
            v_other := v_older[v_other];
        end loop;
        v_older[greatest(v_one, v_other)] := least(v_one, v_other);
    end loop;
    -- An older place is a smaller one, so that one pass finds the oldest of every group.
    for v_place in 1 .. coalesce(cardinality(v_older), 0) loop
        v_older[v_place] := v_older[v_older[v_place]];
    end loop;
    return query
    select
        dense_rank() over (order by m.oldest)::integer, r.id, r.content, r.created_at,
        case
            when v_texts[m.place] = v_texts[m.beside] then 1
            else least(1 - (r.embedding operator(@extschema:vector@.<=>) s.embedding), 1)
        end
    from unnest(v_ids, v_older, v_beside) with ordinality as m (id, oldest, beside, place)
    inner join memory_records as r on r.namespace = v_namespace and m.id = r.id
    inner join memory_records as s on s.namespace = v_namespace and s.id = v_ids[m.beside]
    order by m.oldest, m.place;
end
$function$;

comment on function memory_plugin.find_duplicates(text, double precision) is
    'List groups of memories of a namespace that say the same, oldest first: those of equal text (apart from case '
    'and white space), or with embeddings whose cosine similarity is at least threshold (0.5 to 1), directly or '
    'through others of the group. similarity: to one of the group, 1 for equal text. Changes nothing. Above 2,000 '
    'different texts, each is compared with the 20 nearest that the index finds. Errors: MP001 for a bad argument.';

revoke all on function memory_plugin.find_duplicates(text, double precision) from public;
