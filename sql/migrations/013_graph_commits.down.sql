alter index if exists memory_plugin.memory_vectors_embedding set (ef_construction = 100);

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '013_graph_commits';
