create or replace function memory_plugin._visible_namespaces(p_namespaces text[])
returns text[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    -- Inside a security definer function current_user is the owner; the caller is the role that was set, or the login.
    v_caller name := coalesce(nullif(current_setting('role', true), 'none'), session_user);
begin
    -- A caller that is none of these counts as a reader: it may have come here through a reader's own function.
    if pg_has_role(v_caller, current_user, 'usage')
        or to_regrole('memory_plugin_reader') is null
        or (to_regrole('memory_plugin_api') is not null and pg_has_role(v_caller, 'memory_plugin_api', 'usage'))
    then
        return p_namespaces;
    end if;
    return array(select unnest(p_namespaces) intersect select unnest(_session_namespaces()));
end
$function$;

comment on function memory_plugin._visible_namespaces(text[]) is
    'The namespaces that the caller may see: all for a member of memory_plugin_owner or memory_plugin_api, for anybody '
    'else those that the setting memory_plugin.namespaces lists. All, too, where there are no such roles.';

create or replace function memory_plugin._session_namespaces()
returns text[]
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select string_to_array(replace(current_setting('memory_plugin.namespaces', true), ' ', ''), ',')
$function$;

comment on function memory_plugin._session_namespaces() is
    'The namespaces of the setting memory_plugin.namespaces, a list with commas; null where it is unset.';

create or replace function memory_plugin._live_namespaces(p_namespaces text[])
returns text[]
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- Making a plan for each call takes longer than the look at some names.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    v_visible constant text[] := _visible_namespaces(p_namespaces);
begin
    return (
        select array_agg(n.name)
        from memory_namespaces as n
        where n.name = any (v_visible) and (n.expires_at is null or n.expires_at > now())
    );
end
$function$;

comment on function memory_plugin._live_namespaces(text[]) is
    'Those of the namespaces that exist, have not expired and may be seen by the caller; null where there are none.';
