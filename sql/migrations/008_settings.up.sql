create table memory_plugin.settings (
    name text primary key,
    value jsonb not null,
    changed_at timestamptz not null default now(),
    changed_by text not null default session_user
);

comment on table memory_plugin.settings is
    'What the owner set with configure(), where it differs from the default.';

create table memory_plugin.redaction_patterns (
    kind text not null,
    pattern text not null,
    enabled boolean not null default true,
    created_at timestamptz not null default now(),
    -- What redact() works with, made from the pattern by a trigger.
    needle text not null,
    before integer not null,
    expression text not null,
    primary key (kind, pattern)
);

comment on table memory_plugin.redaction_patterns is
    'Credentials of your own for redact(), each masked as [redacted:kind]: insert kind and pattern. Errors: MP001 for '
    'a pattern that could be slow, or is none; docs/redaction.md says what one may hold.';

-- Its body stands in sql/functions; a trigger must exist before the first row does.
create function memory_plugin._compile_redaction_pattern()
returns trigger
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    raise exception using errcode = 'MP009', message = 'the installation is not finished';
end
$function$;

create trigger redaction_patterns_compile
before insert or update on memory_plugin.redaction_patterns
for each row execute function memory_plugin._compile_redaction_pattern();
