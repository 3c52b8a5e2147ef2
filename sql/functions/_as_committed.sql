create or replace function memory_plugin._redacts_on_commit()
returns boolean
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select exists (select from settings as s where s.name = 'redact_on_commit' and s.value = 'true')
$function$;

comment on function memory_plugin._redacts_on_commit() is 'The setting redact_on_commit.';

create or replace function memory_plugin._as_committed(p_content text)
returns text
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if not exists (select from settings as s where s.name = 'redact_on_commit' and s.value = 'true') then
        return p_content;
    end if;
    -- Rather no memory than one with a password in it.
    if to_regprocedure('memory_plugin.redact(text)') is null then
        raise exception using errcode = 'MP009',
            message = 'redact_on_commit is on and this server cannot redact: it has no PL/Python',
            hint = 'Install plpython3u and run memory-plugin install, or: select memory_plugin.configure(redact_on_commit => false)';
    end if;
    return redact(p_content);
end
$function$;

comment on function memory_plugin._as_committed(text) is
    'A content as it is stored: masked where redact_on_commit is on. Errors: MP009 where it is on and cannot be done.';
