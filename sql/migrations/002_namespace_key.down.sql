-- Refused by Postgres, changing nothing, while one id stands in two namespaces.
alter table memory_plugin.memory_records
drop constraint memory_records_pkey,
add constraint memory_records_pkey primary key (id);

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '002_namespace_key';
