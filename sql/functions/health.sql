create or replace function memory_plugin.health(out status text, out version text, out capabilities text[])
language sql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
    select
        'ok',
        '1.0.0',
        array['fts', 'embedding', 'ttl', 'pin', 'propagation', 'hybrid', 'explain']
        || case when to_regprocedure('memory_plugin.redact(text)') is not null then array['redaction'] end
        || case when _embedding_ready() then array['server_embedding'] end
    -- Touches both tables, so that a store without them is not called healthy.
    from (select 1) as one
    where
        not exists (select from memory_namespaces where false)
        and not exists (select from memory_records where false)
$function$;

comment on function memory_plugin.health() is
    'Status, contract version and capabilities of this store: what GET /v1/health shows.';

revoke all on function memory_plugin.health() from public;
