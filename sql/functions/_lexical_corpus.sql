create or replace function memory_plugin._lexical_rows(p_namespaces text[], p_limit integer)
returns bigint
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_rows bigint;
begin
    execute
        'select count(*) from ('
        '    select from memory_plugin.memory_records as r where r.namespace = any ($1) limit $2'
        ') as n'
    into v_rows
    using p_namespaces, p_limit;
    return v_rows;
end
$function$;

comment on function memory_plugin._lexical_rows(text[], integer) is
    'How many memories the namespaces hold, up to p_limit.';

create or replace function memory_plugin._lexical_total(
    p_namespaces text[], p_most integer, out total double precision, out octets double precision
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_spread record;
begin
    if _lexical_rows(p_namespaces, 20001) > 20000 then
        -- Random ids are spread evenly, so how far the first thousand reach says how many there are: they need no
        -- counting when they are plainly more than p_most, and plainly random.
        execute
            'select sum(1000 / s.reach) as total, min(s.middle / s.reach) as least, max(s.middle / s.reach) as most '
            'from unnest($1) as n (name) '
            'cross join lateral ('
            '    select '
            '        greatest(max(i.at), 1e-9) as reach, percentile_cont(0.5) within group (order by i.at) as middle '
            '    from ('
            '        select (''x'' || left(r.id::text, 8))::bit(32)::bigint / 4294967296.0::double precision as at '
            '        from memory_plugin.memory_records as r where r.namespace = n.name order by r.id limit 1000'
            '    ) as i having count(*) = 1000'
            ') as s'
        into v_spread
        using p_namespaces;
        if (v_spread.least > 0.4 and v_spread.most < 0.6 and v_spread.total > 1.5 * p_most)
            or _lexical_rows(p_namespaces, p_most + 1) > p_most
        then
            select greatest(p_most, least(v_spread.total, c.reltuples)) into total
            from pg_class as c where c.oid = 'memory_plugin.memory_records'::regclass;
            return;
        end if;
    end if;
    execute
        'select count(*), avg(octet_length(r.content)) from memory_plugin.memory_records as r '
        'where r.namespace = any ($1) and (r.expires_at is null or r.expires_at > now())'
    into total, octets
    using p_namespaces;
end
$function$;

comment on function memory_plugin._lexical_total(text[], integer) is
    'How many live memories the namespaces hold, and their average size; beyond p_most an estimate, expired ones '
    'included, and no size.';

create or replace function memory_plugin._lexical_sample(
    p_namespaces text[],
    p_terms tsquery[],
    p_most integer,
    out total double precision,
    out counted boolean,
    out average_length double precision,
    out shares double precision[]
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_total record;
    v_live double precision;
    v_octets double precision;
    v_shares text;
begin
    v_total := _lexical_total(p_namespaces, p_most);
    counted := v_total.octets is not null or v_total.total = 0;
    select string_agg(
        format('coalesce(sum(w.weight) filter (where w.t @@ %L::tsquery) / sum(w.weight), 0)', u.term),
        ', ' order by u.place
    )
    into v_shares
    from unnest(p_terms) with ordinality as u (term, place);
    -- The first ids of a namespace are a sample of it. What stands for the rest of a larger one weighs more.
    execute
        'with drawn as ('
        '    select '
        '        s.*, count(*) over n as size, '
        '        (''x'' || left(max(s.id::text) over n, 8))::bit(32)::bigint / 4294967296.0::double precision as reach '
        '    from unnest($1) as n (name) '
        '    cross join lateral ('
        '        select '
        '            r.namespace, r.id, r.expires_at is null or r.expires_at > now() as live, '
        '            octet_length(r.content) as octets, d.t '
        '        from memory_plugin.memory_records as r '
        '        cross join lateral (select r.content_tsv || $t$'' '':1$t$::tsvector as t offset 0) as d '
        '        where r.namespace = n.name order by r.id limit $2 '
        '    ) as s '
        '    window n as (partition by s.namespace)'
        '), '
        'weighed as materialized ('
        '    select d.*, case when d.size < $2 then 1 else 1 / greatest(d.reach, 1e-6) end as weight from drawn as d'
        ') '
        'select '
        '    sum(w.weight) / (select sum(a.weight) from weighed as a), '
        -- Normalisation 2 divides the rank, 6 / pi^2 for a lexeme that occurs once, by the number of words.
        '    sum(w.weight * (round(0.6079271018540267 / ts_rank(''{1,1,1,1}'', w.t, $t$'' ''$t$, 2)) - 1)) '
        '        / sum(w.weight), '
        '    sum(w.weight * w.octets) / sum(w.weight), array[' || v_shares || ']::double precision[] '
        'from weighed as w where w.live'
    into v_live, average_length, v_octets, shares
    using p_namespaces, greatest(case when counted then 500 else 1000 end / cardinality(p_namespaces), 1);
    -- Words to a byte vary far less than words to a memory: the sample gives those, and every memory its bytes.
    average_length := greatest(coalesce(average_length * coalesce(v_total.octets / v_octets, 1), 1), 1);
    total := greatest(case when counted then v_total.total else v_total.total * v_live end, 1);
end
$function$;

comment on function memory_plugin._lexical_sample(text[], tsquery[], integer) is
    'What a part of the namespaces tells of the whole: live memories (counted where they are p_most at most), their '
    'average number of words, and the share of them that each term occurs in.';

create or replace function memory_plugin._lexical_count(p_namespaces text[], p_terms tsquery[], p_wanted boolean[])
returns bigint[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_counts bigint[];
begin
    execute (
        select
            'select array[' || string_agg(
                case
                    when u.wanted then format(
                        '(select count(*) from memory_plugin.memory_records as r where r.namespace = any ($1) '
                        'and r.content_tsv @@ %L::tsquery and (r.expires_at is null or r.expires_at > now()))',
                        u.term
                    )
                    else 'null'
                end,
                ', ' order by u.place
            ) || ']::bigint[]'
        from unnest(p_terms, p_wanted) with ordinality as u (term, wanted, place)
    )
    into v_counts
    using p_namespaces;
    return v_counts;
end
$function$;

comment on function memory_plugin._lexical_count(text[], tsquery[], boolean[]) is
    'How many live memories of the namespaces each wanted term occurs in; null for the others.';
