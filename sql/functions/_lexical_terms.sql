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

create or replace function memory_plugin._lexical_any(p_terms tsquery[])
returns tsquery
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return (select string_agg('(' || u.term::text || ')', ' | ')::tsquery from unnest(p_terms) as u (term));
end
$function$;

comment on function memory_plugin._lexical_any(tsquery[]) is 'What matches a memory with any of the terms.';

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
    'The document frequency of each wanted term, in live memories of the namespaces; null for the others. p_shares: '
    'the share of the memories that each is estimated to occur in.';
