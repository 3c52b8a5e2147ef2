create or replace function memory_plugin.upsert_namespace(
    name text,
    kind text,
    expires_at timestamptz default null,
    metadata jsonb default null
)
returns memory_plugin.memory_namespaces
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
declare
    v_expires_at timestamptz := _check_time('expires_at', upsert_namespace.expires_at);
    v_namespace memory_namespaces;
begin
    perform _check_namespace('name', upsert_namespace.name);
    perform _check_choice('kind', upsert_namespace.kind, array['workspace', 'team', 'org', 'custom']);
    perform _check_object('metadata', upsert_namespace.metadata);
    -- First of all: an update that waits for a row, and finds it expired, keeps it from whoever starts it anew.
    perform _lock_namespace(upsert_namespace.name);
    loop
        update memory_namespaces as n
        set kind = upsert_namespace.kind, expires_at = v_expires_at, metadata = upsert_namespace.metadata
        where n.name = upsert_namespace.name and (n.expires_at is null or n.expires_at > now())
        returning n.* into v_namespace;
        if found then
            return v_namespace;
        end if;
        perform _check_emptied(upsert_namespace.name);
        perform _start_namespace(upsert_namespace.name, upsert_namespace.kind, null, upsert_namespace.metadata);
    end loop;
end
$function$;

comment on function memory_plugin.upsert_namespace(text, text, timestamptz, jsonb) is
    'Create a namespace, or replace the kind, expires_at and metadata of an existing one; created_at stays. An '
    'expired namespace starts afresh, without its old memories. kind: workspace, team, org or custom. metadata: a '
    'JSON object. Errors: MP001 for a bad argument, MP009 while very many old memories of that name are still being '
    'removed.';

revoke all on function memory_plugin.upsert_namespace(text, text, timestamptz, jsonb) from public;
