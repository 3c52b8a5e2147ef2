create or replace function memory_plugin.embedding_query_failed()
returns boolean
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
begin
    -- embed_pending, which is due now, looks whether the provider is well; the pause ends with that, or by itself.
    with free as (
        select s.singleton
        from embedding_state as s
        where s.query_off_until is null or s.query_off_until < clock_timestamp() - interval '10 seconds'
        -- Whoever holds it is about to say how the provider is.
        for no key update skip locked
    )

    update embedding_state as s
    set query_off_until = clock_timestamp()
    from free as f
    where s.singleton = f.singleton;
    return found;
end
$function$;

comment on function memory_plugin.embedding_query_failed() is
    'Report that a search had to do without the embedding of its query: for ten seconds, or until embed_pending '
    'finds the provider working, no search of any session waits for one. False if that was known already. Called by '
    'the sidecar.';

revoke all on function memory_plugin.embedding_query_failed() from public;
