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
    'Statistics of the namespaces for BM25: live memories and their average length in words (counted where there are '
    'p_most at most, else estimated from a sample of pages), and estimated from a sample, the share of the memories '
    'that each term occurs in: its document frequency, divided by their number.';

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
