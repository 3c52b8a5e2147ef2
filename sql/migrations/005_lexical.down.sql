drop type memory_plugin._lexical_plan;
