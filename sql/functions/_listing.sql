create or replace function memory_plugin._listing(
    p_namespaces text[], p_substring text, p_filter memory_plugin._filter, p_limit integer, p_offset integer
)
returns memory_plugin.memory_hit[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_hits memory_hit[];
begin
    -- Each namespace walks its own index for its first rows; the merge sorts only those.
    execute
        'select array_agg(h.hit order by (h.hit).pin desc, (h.hit).created_at desc, (h.hit).id, (h.hit).namespace) '
        'from ('
        '    select m.hit from unnest($1) as n (name) cross join lateral ('
        '        select row(r.id, r.namespace, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, '
        '            r.created_at, null, null)::memory_plugin.memory_hit as hit '
        '        from memory_plugin.memory_records as r '
        '        where r.namespace = n.name and (r.expires_at is null or r.expires_at > now()) '
        || case when p_substring is not null then 'and r.content ilike $2 ' else '' end
        || case when p_filter.kinds is not null then 'and r.kind = any ($3) ' else '' end
        || case when p_filter.sources is not null then 'and r.source = any ($4) ' else '' end
        || case when p_filter.created_after is not null then 'and r.created_at > $5 ' else '' end
        || case when p_filter.created_before is not null then 'and r.created_at < $6 ' else '' end
        || '        order by r.pin desc, r.created_at desc, r.id limit $7 + $8'
        '    ) as m '
        '    order by (m.hit).pin desc, (m.hit).created_at desc, (m.hit).id, (m.hit).namespace limit $7 offset $8'
        ') as h'
    into v_hits
    using p_namespaces,
        '%' || replace(replace(replace(p_substring, '\', '\\'), '%', '\%'), '_', '\_') || '%',
        p_filter.kinds, p_filter.sources, p_filter.created_after, p_filter.created_before, p_limit, p_offset;
    return v_hits;
end
$function$;

comment on function memory_plugin._listing(text[], text, memory_plugin._filter, integer, integer) is
    'Memories pinned first, then newest first, ties by id and namespace; p_substring, if given, must occur in '
    'the content.';
