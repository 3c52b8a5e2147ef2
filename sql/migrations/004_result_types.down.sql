drop type memory_plugin._search_answer;
drop type memory_plugin._candidate;
drop type memory_plugin._filter;
drop type memory_plugin.memory_hit;
drop type memory_plugin.memory;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '004_result_types';
