create or replace function memory_plugin._lexical_candidates(
    p_namespaces text[], p_query text, p_filter memory_plugin._filter, p_limit integer,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_query tsquery;
begin
    select string_agg(quote_literal(l.lexeme), ' | ')::tsquery into v_query
    from unnest(tsvector_to_array(to_tsvector('@text_search_config@', p_query))) as l (lexeme);
    exact := true;
    if v_query is null then
        scored := 0;
        return;
    end if;
    execute
        'select array_agg(row(s.namespace, s.id, s.score)::memory_plugin._candidate '
        '    order by s.score desc, s.created_at desc, s.id), max(s.total) '
        'from ('
        '    select r.namespace, r.id, r.created_at, ts_rank(r.content_tsv, $2)::double precision as score, '
        '        count(*) over () as total '
        '    from memory_plugin.memory_records as r '
        '    where r.namespace = any ($1) and r.content_tsv @@ $2 '
        '        and (r.expires_at is null or r.expires_at > now()) '
        '        and ($3 is null or r.kind = any ($3)) and ($4 is null or r.source = any ($4)) '
        '        and ($5 is null or r.created_at > $5) and ($6 is null or r.created_at < $6) '
        '    order by score desc, r.created_at desc, r.id limit $7'
        ') as s'
    into candidates, scored
    using p_namespaces, v_query, p_filter.kinds, p_filter.sources, p_filter.created_after, p_filter.created_before,
        p_limit;
    scored := coalesce(scored, 0);
end
$function$;

comment on function memory_plugin._lexical_candidates(text[], text, memory_plugin._filter, integer) is
    'The p_limit best memories for the words of a query, best first. exact: no better one exists. scored: rows '
    'looked at.';
