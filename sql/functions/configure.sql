create or replace function memory_plugin.configure(redact_on_commit boolean default null)
returns jsonb
language plpgsql volatile parallel unsafe
-- The settings' table is the owner's; access.sql lets nobody else run this.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
begin
    if configure.redact_on_commit and to_regprocedure('memory_plugin.redact(text)') is null then
        raise exception using errcode = 'MP001',
            message = 'redact_on_commit needs the function redact, which this store does not have',
            hint = 'It comes with plpython3u: install that, then run memory-plugin install as a superuser.';
    end if;
    if configure.redact_on_commit is not null then
        insert into settings as s (name, value)
        values ('redact_on_commit', to_jsonb(configure.redact_on_commit))
        on conflict (name) do update
        set value = excluded.value, changed_at = now(), changed_by = session_user
        where s.value <> excluded.value;
    end if;
    return jsonb_build_object('redact_on_commit', _redacts_on_commit());
end
$function$;

comment on function memory_plugin.configure(boolean) is
    'Set what is given, and return all settings; without arguments only return them. redact_on_commit (off at first): '
    'mask credentials in a content before it is stored, indexed or embedded. For the owner alone. Errors: MP001 where '
    'the server cannot redact.';

revoke all on function memory_plugin.configure(boolean) from public;
