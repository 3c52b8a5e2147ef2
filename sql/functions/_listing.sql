create or replace function memory_plugin._listing(
    p_namespaces text[], p_substring text, p_filter memory_plugin._filter, p_limit integer, p_offset integer
)
returns memory_plugin.memory_hit[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call, the walk along the index of this order: making a plan takes longer than the walk.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
declare
    v_hits memory_hit[];
    v_pattern text := _like_pattern(p_substring);
    v_rows integer := p_limit + p_offset;
    v_after timestamptz := coalesce(p_filter.created_after, '-infinity');
    v_before timestamptz := coalesce(p_filter.created_before, 'infinity');
    -- A character that nothing holds is looked for so far back; _search says so.
    v_most integer := case when p_substring is not null then _lexical_each(p_namespaces, _substring_reach()) end;
begin
    select
        array_agg(
            row(
                h.id, h.namespace, h.content, h.kind, h.source, h.expires_at, h.propagation, h.pin, h.created_at,
                null, null
            )::memory_hit
            order by h.pin desc, h.created_at desc, h.id, h.namespace
        )
    into v_hits
    from (
        -- Each namespace walks the index for its first rows, pinned or not, between the times asked for; the merge sorts
        -- only those.
        select m.*
        from unnest(p_namespaces) as n (name)
        cross join (values (true), (false)) as p (pin)
        cross join lateral (
            select w.*
            from (
                select r.id, r.namespace, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, r.created_at
                from memory_records as r
                where r.namespace = n.name and r.pin = p.pin and r.created_at > v_after and r.created_at < v_before
                    and (r.expires_at is null or r.expires_at > now())
                order by r.created_at desc, r.id
                limit v_most
            ) as w
            where (v_pattern is null or w.content ilike v_pattern)
                and (p_filter.kinds is null or w.kind = any (p_filter.kinds))
                and (p_filter.sources is null or w.source = any (p_filter.sources))
            limit v_rows
        ) as m
        order by m.pin desc, m.created_at desc, m.id, m.namespace
        limit p_limit offset p_offset
    ) as h;
    return v_hits;
end
$function$;

comment on function memory_plugin._listing(text[], text, memory_plugin._filter, integer, integer) is
    'Memories pinned first, then newest first, ties by id and namespace; p_substring, if given, must occur in '
    'the content, and is looked for in the newest _substring_reach().';

create or replace function memory_plugin._substring_reach()
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return 200000;
end
$function$;

comment on function memory_plugin._substring_reach() is
    'How many memories at most, pinned and others each, a query of one character looks at.';

create or replace function memory_plugin._listing_json(p_namespaces text[], p_limit integer)
returns text
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
declare
    v_memories text;
    v_rows bigint;
    -- As _rfc3339 writes it, without a call for each of a hundred times.
    c_time constant text := '@time_format@';
begin
    -- Of twenty, looking would take longer than is won.
    if p_limit > 20 then
        perform _check_size((
            select sum(octet_length(h.content))
            from (
                select m.content
                from unnest(_live_namespaces(p_namespaces)) as n (name)
                cross join lateral (
                    select r.id, r.namespace, r.content, r.pin, r.created_at
                    from memory_records as r
                    where r.namespace = n.name and (r.expires_at is null or r.expires_at > now())
                    order by r.pin desc, r.created_at desc, r.id
                    limit p_limit
                ) as m
                order by m.pin desc, m.created_at desc, m.id, m.namespace
                limit p_limit
            ) as h
        ));
    end if;
    select
        string_agg(
            '{"id":"' || h.id
            || '","namespace":"' || h.namespace
            || '","content":' || to_json(h.content)
            || ',"kind":"' || h.kind
            || '","source":"' || h.source || '"'
            || coalesce(',"expires_at":"' || to_char(h.expires_at at time zone 'UTC', c_time) || '"', '')
            || coalesce(',"propagation":' || h.propagation::text, '')
            || case when h.pin then ',"pin":true' else '' end
            || ',"created_at":"' || to_char(h.created_at at time zone 'UTC', c_time) || '"}',
            ',' order by h.pin desc, h.created_at desc, h.id, h.namespace
        ),
        count(*)
    into v_memories, v_rows
    from (
        select m.*
        from memory_namespaces as n
        cross join lateral (
            select r.id, r.namespace, r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin, r.created_at
            from memory_records as r
            where r.namespace = n.name and (r.expires_at is null or r.expires_at > now())
            order by r.pin desc, r.created_at desc, r.id
            limit p_limit
        ) as m
        where n.name = any (_visible_namespaces(p_namespaces)) and (n.expires_at is null or n.expires_at > now())
        order by m.pin desc, m.created_at desc, m.id, m.namespace
        limit p_limit
    ) as h;
    return '{"memories":[' || coalesce(v_memories, '') || '],"search":{"mode":"listing","exact":true,"candidates":' || v_rows;
end
$function$;

comment on function memory_plugin._listing_json(text[], integer) is
    'The answer of v1_search to a listing without a condition, but for its end: what _listing finds in the live '
    'namespaces.';
