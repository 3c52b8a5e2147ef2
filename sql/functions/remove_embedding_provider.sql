create or replace function memory_plugin.remove_embedding_provider()
returns boolean
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
begin
    delete from embedding_provider where slot = 'current';
    if not found then
        return false;
    end if;
    delete from embedding_attempts;
    update embedding_state set failures = 0, retry_at = null, problem = null, query_off_until = null;
    return true;
end
$function$;

comment on function memory_plugin.remove_embedding_provider() is
    'Forget the embedding provider and its key; the embeddings stay. A change of the model that is not ended keeps '
    'its other provider, with a key, until memory-plugin reembed --finish or --abort. False when there was none. For '
    'the owner alone.';

revoke all on function memory_plugin.remove_embedding_provider() from public;
