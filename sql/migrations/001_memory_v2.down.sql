drop table memory_plugin.memory_records;
drop table memory_plugin.memory_namespaces;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '001_memory_v2';
