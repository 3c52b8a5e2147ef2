drop type memory_plugin._scored;
drop type memory_plugin._lexical_plan;
