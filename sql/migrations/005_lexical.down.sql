drop type memory_plugin._scored;
drop type memory_plugin._lexical_plan;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '005_lexical';
