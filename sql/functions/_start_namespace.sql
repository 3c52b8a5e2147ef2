create or replace function memory_plugin._check_emptied(p_name text)
returns void
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- As many as delete_namespace removes itself: what goes in one statement well within the time of a request.
    c_most constant integer := 10000;
begin
    -- Of a live namespace that somebody has started meanwhile, the rows are its own.
    if exists (select from memory_namespaces as n where n.name = p_name and n.expires_at <= now())
        and (
            select count(*) > c_most
            from (select from memory_records as r where r.namespace = p_name limit c_most + 1) as counted
        )
    then
        raise exception using errcode = 'MP009',
            message = format('the former memories of namespace %s are still being removed; try again', p_name),
            hint = 'The sidecar is at it; without one, call memory_plugin.sweep(100000) until it returns less.';
    end if;
end
$function$;

comment on function memory_plugin._check_emptied(text) is
    'Raise MP009 while an expired namespace holds more memories than a request can remove before it starts anew.';

create or replace function memory_plugin._lock_namespace(p_name text)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    perform pg_advisory_xact_lock(hashtextextended('memory_plugin.namespace ' || p_name, 0));
end
$function$;

comment on function memory_plugin._lock_namespace(text) is
    'Let one session at a time look whether a namespace has expired, and start it anew.';

create or replace function memory_plugin._start_namespace(
    p_name text, p_kind text, p_expires_at timestamptz, p_metadata jsonb
)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- Two sessions that find the same expired namespace would each wait for the other's row lock.
    perform _lock_namespace(p_name);
    delete from memory_namespaces as n where n.name = p_name and n.expires_at <= now();
    insert into memory_namespaces as n (name, kind, expires_at, metadata)
    values (p_name, p_kind, p_expires_at, p_metadata)
    on conflict (name) do nothing;
end
$function$;

comment on function memory_plugin._start_namespace(text, text, timestamptz, jsonb) is
    'Make sure that a live namespace stands under this name: an expired one goes, with its memories; a live one '
    'stays as it is.';

create or replace function memory_plugin._kind_of_namespace(p_name text)
returns text
language sql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select
        case
            when split_part(p_name, ':', 1) in ('workspace', 'team', 'org') then split_part(p_name, ':', 1)
            else 'custom'
        end
$function$;

comment on function memory_plugin._kind_of_namespace(text) is
    'The kind that a namespace gets when a commit creates it: its prefix, or custom.';
