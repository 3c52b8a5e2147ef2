create or replace function memory_plugin.embedding_status()
returns jsonb
language sql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select jsonb_build_object(
        'model', p.model,
        'pending', w.total - w.failed,
        'failed', w.failed,
        'oldest_seconds', coalesce(round(extract(epoch from now() - w.oldest), 1), 0),
        'embedded', s.embedded,
        'per_second', round((s.rate * exp(-greatest(extract(epoch from now() - s.rate_at), 0)::float8 / 60))::numeric, 2),
        'problem', s.problem
    )
    from embedding_provider as p
    cross join embedding_state as s
    cross join lateral (
        select
            count(*) as total,
            count(*) filter (where a.failed and a.content_hash = _embedding_hash(r.content)) as failed,
            min(r.created_at) filter (
                where a.id is null or not a.failed or a.content_hash <> _embedding_hash(r.content)
            ) as oldest
        from memory_records as r
        inner join memory_namespaces as n on r.namespace = n.name
        left join embedding_attempts as a on r.namespace = a.namespace and r.id = a.id
        where
            r.embedding is null
            and (r.expires_at is null or r.expires_at > now())
            and (n.expires_at is null or n.expires_at > now())
    ) as w
    where p.slot = 'current' and _embedding_ready()
$function$;

comment on function memory_plugin.embedding_status() is
    'The state of embedding by the server: model, pending and failed memories, age of the oldest pending in '
    'seconds, embedded so far, per_second (over about a minute), and the problem with the provider, if there is '
    'one. Null if the server fetches none, for want of PL/Python or of a provider.';

revoke all on function memory_plugin.embedding_status() from public;
