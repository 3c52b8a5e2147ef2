do $migration$
begin
    -- `create schema if not exists` asks for the right to create schemas even where the schema is there.
    if pg_catalog.to_regnamespace('memory_plugin') is null then
        create schema memory_plugin;
    end if;
    if (
        select pg_catalog.pg_has_role(n.nspowner, 'usage')
        from pg_catalog.pg_namespace as n
        where n.nspname = 'memory_plugin'
    ) then
        comment on schema memory_plugin is
            'Memory for AI agents: tables, rules and search. Start at \df memory_plugin.* ; every function has '
            'a comment.';
    end if;
end
$migration$;
