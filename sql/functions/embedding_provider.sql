create or replace function memory_plugin.embedding_provider()
returns jsonb
language sql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select jsonb_build_object(
        'url', p.url, 'model', p.model, 'dimensions', p.dimensions, 'has_key', p.api_key is not null,
        'batch_size', p.batch_size, 'timeout_ms', p.timeout_ms, 'query_timeout_ms', p.query_timeout_ms,
        'max_characters', p.max_characters, 'send_dimensions', p.send_dimensions, 'text_prefix', p.text_prefix,
        'query_prefix', p.query_prefix, 'has_ca_certificate', p.ca_certificate is not null,
        'configured_at', p.configured_at
    )
    from embedding_provider as p
    where p.slot = 'current'
$function$;

comment on function memory_plugin.embedding_provider() is
    'The configured embedding provider without its key; null when there is none. For the owner alone.';

revoke all on function memory_plugin.embedding_provider() from public;
