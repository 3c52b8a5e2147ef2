create schema if not exists memory_plugin;

comment on schema memory_plugin is
    'Memory for AI agents: tables, rules and search. Start at \df memory_plugin.* ; every function has a comment.';
