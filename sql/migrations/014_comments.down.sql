-- What the tables are said to be does no harm.

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '014_comments';
