create or replace function memory_plugin.retry_embeddings()
returns bigint
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
declare
    v_count bigint;
begin
    delete from embedding_attempts;
    get diagnostics v_count = row_count;
    update embedding_state set retry_at = now() where retry_at > now();
    return v_count;
end
$function$;

comment on function memory_plugin.retry_embeddings() is
    'Try again at once every memory that the embedding provider refused, and a provider that is paused after a '
    'failure; return how many memories.';

revoke all on function memory_plugin.retry_embeddings() from public;
