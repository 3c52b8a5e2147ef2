create or replace function memory_plugin.stats()
returns jsonb
language sql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select jsonb_build_object(
        'postgres', current_setting('server_version'),
        'vector', (
            select jsonb_build_object('version', e.extversion, 'schema', n.nspname)
            from pg_extension as e inner join pg_namespace as n on e.extnamespace = n.oid
            where e.extname = 'vector'
        ),
        'dimensions', @dimensions@,
        'text_search_config', '@text_search_config@',
        'settings', jsonb_build_object('redact_on_commit', _redacts_on_commit()),
        'capabilities', (select to_jsonb(h.capabilities) from health() as h),
        'migrations', (select jsonb_agg(m.name order by m.name) from schema_migrations as m),
        'namespaces', (
            select jsonb_build_object('live', count(*) filter (where n.expires_at is null or n.expires_at > now()),
                'expired', count(*) filter (where n.expires_at <= now()))
            from memory_namespaces as n
        ),
        'memories', (
            select jsonb_build_object(
                'live', count(*) filter (where m.live),
                'fact', count(*) filter (where m.live and m.kind = 'fact'),
                'summary', count(*) filter (where m.live and m.kind = 'summary'),
                'checkpoint', count(*) filter (where m.live and m.kind = 'checkpoint'),
                'pinned', count(*) filter (where m.live and m.pin),
                'without_embedding', count(*) filter (where m.live and m.bare),
                'expired', count(*) filter (where not m.live)
            )
            from (
                select r.kind, r.pin, r.embedding is null as bare,
                    (r.expires_at is null or r.expires_at > now()) and (n.expires_at is null or n.expires_at > now()) as live
                from memory_records as r inner join memory_namespaces as n on r.namespace = n.name
            ) as m
        ),
        'embedding', embedding_status(),
        'reembedding', _reembed_status(),
        'bytes', (
            select jsonb_object_agg(c.relname, pg_table_size(c.oid))
            from pg_class as c where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind = 'r'
        ),
        'index_bytes', (
            select jsonb_object_agg(c.relname, pg_relation_size(c.oid))
            from pg_class as c where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind = 'i'
        )
    )
$function$;

comment on function memory_plugin.stats() is
    'Facts about this store as one object: versions, dimensions, migrations, namespaces and memories (live, by '
    'kind, pinned, without embedding, expired but not yet swept), embedding (embedding_status()), reembedding (the '
    'change of the model that memory-plugin reembed has not ended), bytes of tables and of indexes. Reads every row.';

revoke all on function memory_plugin.stats() from public;
