drop table memory_plugin.redaction_patterns;
drop function if exists memory_plugin._compile_redaction_pattern();
drop table memory_plugin.settings;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '008_settings';
