create or replace function memory_plugin.embedding_failures(max_rows integer default 100)
returns table (namespace text, id uuid, tries integer, reason text)
language plpgsql stable parallel safe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
begin
    perform _check_range('max_rows', max_rows, 1, 1000000);
    return query
    select a.namespace, a.id, a.tries, a.reason
    from embedding_attempts as a
    inner join memory_records as r on a.namespace = r.namespace and a.id = r.id
    where a.failed and r.embedding is null and a.content_hash = _embedding_hash(r.content)
    order by a.namespace, a.id
    limit max_rows;
end
$function$;

comment on function memory_plugin.embedding_failures(integer) is
    'The memories that the embedding provider refused three times, or failed at ten times, with the reason; lexical '
    'search finds them all the same. retry_embeddings() gives them another chance. Errors: MP001 for a bad argument.';

revoke all on function memory_plugin.embedding_failures(integer) from public;
