drop index if exists memory_plugin.memory_vectors_near;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '012_near_vectors';
