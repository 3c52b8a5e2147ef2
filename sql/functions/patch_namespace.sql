create or replace function memory_plugin.patch_namespace(
    name text,
    expires_at timestamptz default null,
    metadata jsonb default null,
    clear_expires_at boolean default false,
    clear_metadata boolean default false
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
    v_clear_expires_at boolean := coalesce(clear_expires_at, false);
    v_clear_metadata boolean := coalesce(clear_metadata, false);
    v_namespace memory_namespaces;
begin
    perform _check_namespace('name', patch_namespace.name);
    perform _check_object('metadata', patch_namespace.metadata);
    if patch_namespace.expires_at is null and patch_namespace.metadata is null
        and not v_clear_expires_at and not v_clear_metadata
    then
        raise exception using errcode = 'MP001', message = 'at least one of expires_at and metadata is required';
    end if;
    if v_clear_expires_at and patch_namespace.expires_at is not null then
        raise exception using errcode = 'MP001', message = 'expires_at must not be given with clear_expires_at';
    end if;
    if v_clear_metadata and patch_namespace.metadata is not null then
        raise exception using errcode = 'MP001', message = 'metadata must not be given with clear_metadata';
    end if;
    update memory_namespaces as n
    set
        expires_at = case
            when v_clear_expires_at then null
            when patch_namespace.expires_at is null then n.expires_at
            else _check_time('expires_at', patch_namespace.expires_at)
        end,
        metadata = case
            when v_clear_metadata then null
            else coalesce(patch_namespace.metadata, n.metadata)
        end
    where n.name = patch_namespace.name and (n.expires_at is null or n.expires_at > now())
    returning n.* into v_namespace;
    if not found then
        raise exception using errcode = 'MP004', message = format('namespace %s does not exist', patch_namespace.name);
    end if;
    return v_namespace;
end
$function$;

comment on function memory_plugin.patch_namespace(text, timestamptz, jsonb, boolean, boolean) is
    'Change expires_at, metadata or both of a namespace; null leaves a field as it is, clear_expires_at and '
    'clear_metadata '
    'empty it. Errors: MP001 for a bad argument or nothing to change, MP004 where there is no such live namespace.';

revoke all on function memory_plugin.patch_namespace(text, timestamptz, jsonb, boolean, boolean) from public;
