drop table memory_plugin.reembedding_refused;
drop table memory_plugin.reembedding;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '009_reembedding';
