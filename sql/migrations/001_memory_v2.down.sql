drop table memory_plugin.memory_records;
drop table memory_plugin.memory_namespaces;
