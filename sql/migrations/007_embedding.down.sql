drop index memory_plugin.memory_records_unembedded;
drop table memory_plugin.embedding_state;
drop table memory_plugin.embedding_attempts;
drop table memory_plugin.embedding_provider;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '007_embedding';
