create or replace function memory_plugin._semantic_candidates(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_filter memory_plugin._filter, p_limit integer,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    exact := true;
    execute
        'select array_agg(row(s.namespace, s.id, 1 - s.distance)::memory_plugin._candidate '
        '    order by s.distance, s.created_at desc, s.id), max(s.total) '
        'from ('
        '    select r.namespace, r.id, r.created_at, r.embedding operator(@extschema:vector@.<=>) $2 as '
        'distance, count(*) over () as total '
        '    from memory_plugin.memory_records as r '
        '    where r.namespace = any ($1) and r.embedding is not null '
        '        and (r.expires_at is null or r.expires_at > now()) '
        '        and ($3 is null or r.kind = any ($3)) and ($4 is null or r.source = any ($4)) '
        '        and ($5 is null or r.created_at > $5) and ($6 is null or r.created_at < $6) '
        '    order by distance, r.created_at desc, r.id limit $7'
        ') as s'
    into candidates, scored
    using p_namespaces, p_embedding, p_filter.kinds, p_filter.sources, p_filter.created_after,
        p_filter.created_before, p_limit;
    scored := coalesce(scored, 0);
end
$function$;

comment on function memory_plugin._semantic_candidates(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer
) is
    'The p_limit memories nearest to an embedding by cosine distance, nearest first; score is the cosine similarity. '
    'exact: no nearer one exists. scored: rows looked at.';
