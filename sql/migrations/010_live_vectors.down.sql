drop index if exists memory_plugin.memory_vectors_live;

create index if not exists memory_vectors_kind
on memory_plugin.memory_vectors (namespace, kind);

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '010_live_vectors';
