drop trigger if exists memory_records_mirror_length on memory_plugin.memory_records;
drop trigger if exists memory_records_change_length on memory_plugin.memory_records;
drop trigger if exists memory_records_empty_lengths on memory_plugin.memory_records;
drop table memory_plugin.memory_lengths;
drop function if exists memory_plugin._mirror_length();

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '011_lengths';
