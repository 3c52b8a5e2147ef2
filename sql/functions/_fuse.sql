create or replace function memory_plugin._fuse(
    p_lexical memory_plugin._candidate[],
    p_semantic memory_plugin._candidate[],
    p_plan memory_plugin._lexical_plan,
    p_embedding @extschema:vector@.vector,
    p_filter memory_plugin._filter,
    p_lexical_weight double precision,
    p_semantic_weight double precision,
    p_neighbour_weight double precision,
    p_lexical_whole boolean,
    p_semantic_whole boolean
)
returns memory_plugin._scored[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: few rows, each by its key.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    v_rows _scored[];
    v_terms integer := cardinality(p_plan.terms);
    -- What only words found is measured as what embeddings found was.
    v_copied constant boolean := cardinality(p_semantic) > _semantic_few();
    v_unit constant @extschema:vector@.halfvec := case when v_copied then _steered(p_embedding, '', null, '{0,0}') end;
    -- Those beside the first of each arm are looked for: a look takes longer than all else that is done for a memory.
    c_near constant integer := 25;
begin
    with listed as materialized (
        select
            c.namespace, c.id, max(c.lexical) as lexical, max(c.lexical_rank) as lexical_rank,
            max(c.semantic) as semantic, max(c.semantic_rank) as semantic_rank
        from (
            select l.namespace, l.id, l.score as lexical, l.place as lexical_rank,
                null::double precision as semantic, null::bigint as semantic_rank
            from unnest(p_lexical) with ordinality as l (namespace, id, score, place)
            union all
            select s.namespace, s.id, null, null, s.score, s.place
            from unnest(p_semantic) with ordinality as s (namespace, id, score, place)
        ) as c
        group by c.namespace, c.id
    ),

    -- The two memories committed before and the two after. Of the same moment: the order is not known.
    neighbours as materialized (
        select l.namespace, l.id, n.id as other, n.away
        from listed as l
        inner join memory_records as r on l.namespace = r.namespace and l.id = r.id
        cross join lateral (
            (
                select m.id, row_number() over (order by m.created_at desc, m.id) as away from memory_records as m
                where m.namespace = r.namespace and m.pin = r.pin and m.created_at < r.created_at
                    and (m.expires_at is null or m.expires_at > now())
                order by m.created_at desc, m.id limit 2
            )
            union all
            (
                select m.id, row_number() over (order by m.created_at, m.id desc) as away from memory_records as m
                where m.namespace = r.namespace and m.pin = r.pin and m.created_at > r.created_at
                    and (m.expires_at is null or m.expires_at > now())
                order by m.created_at, m.id desc limit 2
            )
        ) as n
        where p_neighbour_weight > 0 and least(l.lexical_rank, l.semantic_rank) <= c_near
    ),

    -- Either may be the one that was looked beside; of one moment, they may be at two distances.
    pairs as materialized (
        select p.namespace, p.one, p.other, min(p.away) as away
        from (
            select n.namespace, n.id as one, n.other, n.away from neighbours as n
            union all
            select n.namespace, n.other, n.id, n.away from neighbours as n
        ) as p
        group by p.namespace, p.one, p.other
    ),

    pool as materialized (
        select
            k.namespace, k.id, max(k.lexical) as lexical, max(k.lexical_rank) as lexical_rank,
            max(k.semantic) as semantic, max(k.semantic_rank) as semantic_rank, bool_or(k.listed) as listed
        from (
            select l.namespace, l.id, l.lexical, l.lexical_rank, l.semantic, l.semantic_rank, true as listed
            from listed as l
            union all
            select n.namespace, n.other, null, null, null, null, false from neighbours as n
        ) as k
        group by k.namespace, k.id
    ),

    -- What is not listed is fetched, and looked through for what is demanded; what is listed is fetched if the other list
    -- may have left it out. A fetch takes longer than all else that is done for a memory.
    texts as materialized (
        select
            p.namespace, p.id, p.lexical, p.lexical_rank, p.semantic_rank, p.listed,
            case
                when p.semantic is not null then p.semantic
                when v_copied then -(v.embedding operator(@extschema:vector@.<#>) v_unit)
                else 1 - (r.embedding operator(@extschema:vector@.<=>) p_embedding)
            end as semantic,
            case when p.unread and v_terms > 0 then ts_delete(r.content_tsv, '') end as words,
            case when p.unread and p_plan.grams <> '{}' then lower(r.content) end as letters
        from (
            select
                k.*, k.lexical is null and not p_lexical_whole as unread,
                k.semantic is null and not p_semantic_whole as unmeasured
            from pool as k
        ) as p
        left join memory_records as r
            on p.namespace = r.namespace
            and r.id = case when not p.listed or p.unread or (p.unmeasured and not v_copied) then p.id end
        left join memory_vectors as v
            on p.namespace = v.namespace and v.id = case when v_copied and p.unmeasured then p.id end
        where p.listed or (@demanded(p_plan, r.content_tsv, r.content)@ and @filtered(p_filter, r)@)
    ),

    terms as materialized (
        select u.term, u.weight from unnest(p_plan.terms, p_plan.weights[:v_terms]) as u (term, weight)
    ),

    grams as materialized (
        select u.gram, @plain(u.gram)@ as plain, u.weight
        from unnest(p_plan.grams, p_plan.weights[v_terms + 1:]) as u (gram, weight)
    ),

    -- What only one arm found has a true score in the other too.
    found as (
        select
            t.namespace, t.id, u.weight,
            case
                when numnode(u.term) > 1 then 1
                else @occurrences(t.words, u.term)@
            end as n,
            case
                when t.letters is not null then length(t.letters)
                else @word_count(t.words)@
            end as words
        from texts as t inner join terms as u on t.words @@ u.term
        union all
        select
            t.namespace, t.id, u.weight,
            @pieces(t.letters, u.gram)@, length(t.letters)
        from texts as t inner join grams as u on @holds(t.letters, u.gram, u.plain)@
    ),

    measured as materialized (
        select
            k.namespace, k.id, max(k.lexical_rank) as lexical_rank, max(k.semantic_rank) as semantic_rank,
            bool_or(k.listed) as listed, coalesce(max(k.lexical), 0) as lexical, max(k.semantic) as semantic
        from (
            select t.namespace, t.id, t.lexical_rank, t.semantic_rank, t.listed, t.lexical, t.semantic from texts as t
            union all
            select
                f.namespace, f.id, null, null, false,
                (p_plan.k1 + 1) * sum(f.weight * (1 - 1 / (1 + f.n / (
                    p_plan.k1 * (1 - p_plan.b + p_plan.b * f.words / p_plan.average_length)
                )))),
                null
            from found as f
            group by f.namespace, f.id
        ) as k
        group by k.namespace, k.id
    ),

    -- Both arms from 0 to 1: words from none to the best match, embeddings from the farthest listed to the nearest.
    fused as materialized (
        select
            m.*,
            (
                p_lexical_weight * coalesce(m.lexical / nullif(m.most, 0), 0)
                + p_semantic_weight * case
                    when m.semantic is null then 0
                    when m.nearest > m.farthest then greatest((m.semantic - m.farthest) / (m.nearest - m.farthest), 0)
                    when m.semantic >= m.farthest then 1
                    else 0
                end
            ) / (p_lexical_weight + p_semantic_weight) as own
        from (
            select
                x.*, max(x.lexical) over () as most, max(x.semantic) over () as nearest,
                min(x.semantic) filter (where x.listed) over () as farthest
            from measured as x
        ) as m
    ),

    -- Each memory, and each pair from the side of both: the score of one key reaches all rows that name it by sorting.
    -- A join of the two, about whose sizes nothing is known beforehand, would compare each with each.
    keyed as (
        select
            f.namespace, f.id as key, f.id, 0 as away, f.own, f.lexical, f.lexical_rank, f.semantic, f.semantic_rank
        from fused as f
        union all
        select p.namespace, p.one, p.other, p.away, null, null, null, null, null from pairs as p
    ),

    lifted as (
        select
            v.namespace, v.id, max(v.own) as own,
            -- The better of the two next to it counts twice as much as the better of the two beyond them.
            (
                2 * coalesce(max(v.of_key) filter (where v.away = 1), 0)
                + coalesce(max(v.of_key) filter (where v.away = 2), 0)
            ) / 3 as beside,
            max(v.lexical) as lexical, max(v.lexical_rank) as lexical_rank, max(v.semantic) as semantic,
            max(v.semantic_rank) as semantic_rank
        from (
            select k.*, max(k.own) over (partition by k.namespace, k.key) as of_key from keyed as k
        ) as v
        group by v.namespace, v.id
    )

    select
        array_agg(
            row(
                l.namespace, l.id,
                -- What is the same but for the last place is the same.
                round((l.own + p_neighbour_weight * l.beside) / (1 + p_neighbour_weight) * 1e12) / 1e12,
                case when p_lexical_weight > 0 then l.lexical end, l.lexical_rank, l.semantic, l.semantic_rank, l.beside
            )::_scored
        )
    into v_rows
    from lifted as l
    where l.own is not null;
    return v_rows;
end
$function$;

comment on function memory_plugin._fuse(
    memory_plugin._candidate[], memory_plugin._candidate[], memory_plugin._lexical_plan, @extschema:vector@.vector,
    memory_plugin._filter, double precision, double precision, double precision, boolean, boolean
) is
    'The lists of both arms, of which one may be empty, as one, unordered: the weighted mean of both scores, each '
    'brought to 0 to 1, plus p_neighbour_weight of the scores of the memories committed around it, brought to 0 to 1 '
    'again. p_lexical_whole, p_semantic_whole: what is not in that list has no score in that arm, and none is looked '
    'for.';

create or replace function memory_plugin._weight(p_weight double precision)
returns double precision
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return case when p_weight > 0 then greatest(p_weight, 1e-300) else 0 end;
end
$function$;

comment on function memory_plugin._weight(double precision) is
    'A weight, the least above 0 being 1e-300: below that its product with a score may be no number any more.';
