drop index memory_plugin.memory_records_embedding;
drop index memory_plugin.memory_records_content_tsv;
drop index memory_plugin.memory_namespaces_expiry;
drop index memory_plugin.memory_records_expiry;
drop index memory_plugin.memory_records_listing;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '003_indexes';
