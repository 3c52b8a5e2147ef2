create or replace function memory_plugin._lexical_rows(p_namespaces text[], p_limit integer)
returns bigint
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: a walk along an index that is cut off where it has gone far enough.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    return (
        select count(*)
        from (
            select from memory_lengths as l
            where l.namespace = any (p_namespaces) and (l.expires_at is null or l.expires_at > now())
            limit p_limit
        ) as n
    );
end
$function$;

comment on function memory_plugin._lexical_rows(text[], integer) is
    'How many live memories the namespaces hold, up to p_limit.';

create or replace function memory_plugin._lexical_each(p_namespaces text[], p_most integer)
returns integer
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
declare
    v_each integer := greatest(p_most / cardinality(p_namespaces), 1);
    v_large text[] := p_namespaces;
    v_left integer := p_most;
    v_more integer;
begin
    if cardinality(p_namespaces) > 1 and _lexical_rows(p_namespaces, p_most + 1) <= p_most then
        return null;
    end if;
    -- What small namespaces leave goes to the others.
    for v_round in 1 .. 8 loop
        exit when cardinality(v_large) = 1;
        with sized as materialized (
            select
                n.name,
                (
                    select count(*)
                    from (
                        select from memory_lengths as l
                        where l.namespace = n.name and (l.expires_at is null or l.expires_at > now())
                        limit v_each + 1
                    ) as counted
                ) as rows
            from unnest(v_large) as n (name)
        )

        select
            coalesce(array_agg(s.name) filter (where s.rows > v_each), '{}'),
            v_left - coalesce(sum(s.rows) filter (where s.rows <= v_each), 0)
        into v_large, v_left
        from sized as s;
        exit when v_large = '{}';
        v_more := v_left / cardinality(v_large);
        exit when v_more <= v_each;
        v_each := v_more;
    end loop;
    return v_each;
end
$function$;

comment on function memory_plugin._lexical_each(text[], integer) is
    'How many live memories of each of several namespaces may be read, so that together they are at most p_most, or '
    'one of each; null where all may be.';

create or replace function memory_plugin._lexical_lengths(
    p_namespaces text[], p_most integer,
    out names text[], out memories bigint[], out total double precision, out average double precision,
    out counted boolean
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: a walk along the key's index, which holds all that is asked.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    select
        array_agg(s.namespace) filter (where s.live > 0), array_agg(s.live) filter (where s.live > 0),
        greatest(sum(s.live), 1), greatest(sum(s.words) / greatest(sum(s.live), 1), 1),
        coalesce(sum(s.n), 0) <= p_most
    into names, memories, total, average, counted
    from (
        select
            l.namespace, count(*) as n, count(*) filter (where l.live) as live,
            sum(l.words) filter (where l.live) as words
        from (
            select m.namespace, m.words, m.expires_at is null or m.expires_at > now() as live
            from memory_lengths as m where m.namespace = any (p_namespaces)
            limit p_most + 1
        ) as l
        group by l.namespace
    ) as s;
end
$function$;

comment on function memory_plugin._lexical_lengths(text[], integer) is
    'Live memories of each namespace that has any, of all together, and their average number of words. counted: false '
    'where there are more than p_most, expired ones included; the rest then tells of a part only.';

create or replace function memory_plugin._lexical_sample(
    p_namespaces text[],
    p_terms tsquery[],
    p_most integer,
    out total double precision,
    out counted boolean,
    out average_length double precision,
    out shares double precision[]
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- The ends of a namespace are where its index begins and ends. The planner, who thinks of an average namespace, would
-- rather sort a large one.
set enable_sort = off
as $function$
declare
    v_shares text;
    v_planned double precision := _planned_rows(
        format('select from memory_plugin.memory_records as r where r.namespace = any (%L::text[])', p_namespaces)
    );
    v_pages double precision;
    v_part double precision;
    v_live double precision;
    v_lengths record;
    -- As _lexical_length counts them, without a call for each row.
    c_words constant text :=
        '@word_count(s.t)@';
begin
    select string_agg(
        format('coalesce(sum(w.weight) filter (where w.t @@ %L::tsquery) / sum(w.weight), 0)', u.term),
        ', ' order by u.place
    )
    into v_shares
    from unnest(p_terms) with ordinality as u (term, place);

    counted := v_planned <= 1.5 * p_most;
    if counted then
        v_lengths := _lexical_lengths(p_namespaces, p_most);
        counted := v_lengths.counted;
    end if;
    if not counted then
        -- Pages of chance, since ids and times may follow an order of their own: enough for 1,500 of these memories, but
        -- no more than 5,000 pages.
        select greatest(c.relpages, 1) into v_pages
        from pg_class as c where c.oid = 'memory_plugin.memory_records'::regclass;
        v_planned := greatest(v_planned, p_most);
        v_part := least(100, 150000 / v_planned, 500000 / v_pages);
        execute
            'with drawn as ('
            '    select r.expires_at is null or r.expires_at > now() as live, d.t, 1::double precision as weight '
            '    from memory_plugin.memory_records as r tablesample system ($2) repeatable (1) '
            '    cross join lateral (select ts_delete(r.content_tsv, $t$$t$) as t offset 0) as d '
            '    where r.namespace = any ($1)'
            '), '
            'w as materialized (select s.t, s.weight, ' || c_words || ' as words from drawn as s where s.live) '
            'select '
            '    count(*) / (select count(*) from drawn)::double precision, avg(w.words), '
            '    array[' || v_shares || ']::double precision[] '
            'from w having count(*) > 0'
        into v_live, average_length, shares
        using p_namespaces, v_part;
        if average_length is not null then
            total := greatest(v_planned * v_live, 1);
            average_length := greatest(average_length, 1);
            return;
        end if;
        v_lengths := _lexical_lengths(p_namespaces, 2147483646);
    end if;

    total := v_lengths.total;
    average_length := v_lengths.average;
    -- The first and the last ids of each namespace stand for the rest of it: of random ones any part would do.
    execute
        'with s as materialized ('
        '    select z.namespace, z.n, e.id, e.t '
        '    from unnest($1, $2) as z (namespace, n) cross join lateral ('
        '        (select * from (' || _lexical_ends('asc') || ') as a) union (' || _lexical_ends('desc') || ')'
        '    ) as e'
        '), '
        'w as materialized ('
        '    select s.t, s.n::double precision / count(*) over (partition by s.namespace) as weight from s'
        ') '
        'select array[' || v_shares || ']::double precision[] from w'
    into shares
    using v_lengths.names, v_lengths.memories, greatest(250 / cardinality(p_namespaces), 1);
end
$function$;

comment on function memory_plugin._lexical_sample(text[], tsquery[], integer) is
    'What a part of the namespaces tells of the whole: live memories and their average number of words (both counted '
    'where there are p_most at most), and the share of them that each term occurs in.';

create or replace function memory_plugin._lexical_ends(p_order text)
returns text
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return
        'select r.id, d.t from memory_plugin.memory_records as r '
        'cross join lateral (select ts_delete(r.content_tsv, $t$$t$) as t offset 0) as d '
        'where r.namespace = z.namespace and (r.expires_at is null or r.expires_at > now()) '
        'order by r.id ' || p_order || ' limit $3';
end
$function$;

comment on function memory_plugin._lexical_ends(text) is
    'The query for the first or last $3 live memories of a namespace by id, for _lexical_sample.';

create or replace function memory_plugin._lexical_rarest(p_namespaces text[], p_terms tsquery[], p_most integer)
returns tsquery[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if cardinality(p_terms) <= p_most then
        return p_terms;
    end if;
    return array(
        with docs as materialized (
            select ts_delete(r.content_tsv, '') as t
            from memory_records as r where r.namespace = any (p_namespaces)
            limit greatest(100, 100000 / cardinality(p_terms))
        ),

        kept as (
            select u.term, u.place
            from unnest(p_terms) with ordinality as u (term, place)
            -- Of words that none of them holds the longest are the rarest.
            order by
                (select count(*) from docs as d where d.t @@ u.term), octet_length(u.term::text) desc, u.place
            limit p_most
        )

        select k.term from kept as k order by k.place
    );
end
$function$;

comment on function memory_plugin._lexical_rarest(text[], tsquery[], integer) is
    'The terms of a query, in their order; of more than p_most those that occur in the fewest of some hundred memories '
    'of the namespaces.';

create or replace function memory_plugin._lexical_wide(p_query tsquery)
returns tsquery
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return regexp_replace(p_query::text, e'<(-|\\d+)>', '&', 'g')::tsquery;
end
$function$;

comment on function memory_plugin._lexical_wide(tsquery) is
    'What the index on words knows of a query: its phrases as words that stand anywhere. The memories that match this '
    'are read for the phrase.';

create or replace function memory_plugin._lexical_count(
    p_namespaces text[], p_terms tsquery[], p_wanted boolean[], p_shares double precision[]
)
returns bigint[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set enable_seqscan = off
as $function$
declare
    -- Of words that stand in more than a tenth, a look at every memory counts all at once, in the time in which the index
    -- counts two or three of them.
    v_common boolean[] := array(
        select coalesce(u.wanted and u.share > 0.1, false)
        from unnest(p_wanted, p_shares) with ordinality as u (wanted, share, place) order by u.place
    );
    v_counts bigint[];
    v_all bigint[];
begin
    if cardinality(array_positions(v_common, true)) < 3 then
        v_common := array_fill(false, array[cardinality(p_terms)]);
    else
        execute (
            select
                'select array[' || string_agg(
                    case
                        when u.common then format('count(*) filter (where d.t @@ %L::tsquery)', u.term)
                        else 'null'
                    end,
                    ', ' order by u.place
                ) || ']::bigint[] from memory_plugin.memory_records as r '
                -- Nothing is deleted: this fetches the words once for all terms.
                'cross join lateral (select ts_delete(r.content_tsv, $t$$t$) as t offset 0) as d '
                'where r.namespace = any ($1) and (r.expires_at is null or r.expires_at > now())'
            from unnest(p_terms, v_common) with ordinality as u (term, common, place)
        )
        into v_all
        using p_namespaces;
    end if;
    execute (
        select
            'select array[' || string_agg(
                case
                    when u.wanted and not u.common then format(
                        '(select count(*) from memory_plugin.memory_records as r where r.namespace = any ($1) '
                        'and r.content_tsv @@ %L::tsquery and (r.expires_at is null or r.expires_at > now()))',
                        u.term
                    )
                    else 'null'
                end,
                ', ' order by u.place
            ) || ']::bigint[]'
        from unnest(p_terms, p_wanted, v_common) with ordinality as u (term, wanted, common, place)
    )
    into v_counts
    using p_namespaces;
    return array(
        select coalesce(u.one, u.every) from unnest(v_counts, v_all) with ordinality as u (one, every, place) order by u.place
    );
end
$function$;

comment on function memory_plugin._lexical_count(text[], tsquery[], boolean[], double precision[]) is
    'How many live memories of the namespaces each wanted term occurs in; null for the others. p_shares: in what part '
    'of them each is thought to occur.';
