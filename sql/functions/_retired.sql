-- What an earlier version had under a name that is still ours, with fewer arguments: a call would not know which.
drop function if exists memory_plugin.search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean
);

drop function if exists memory_plugin._search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean
);

drop function if exists memory_plugin._check_search(
    text[], integer, memory_plugin._filter, double precision, double precision, double precision, double precision,
    integer
);

drop function if exists memory_plugin.search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean, double precision
);

drop function if exists memory_plugin._search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean, double precision
);

drop function if exists memory_plugin._check_search(
    text[], integer, memory_plugin._filter, double precision, double precision, double precision, double precision,
    integer, double precision
);

drop function if exists memory_plugin._fuse(
    memory_plugin._candidate[], memory_plugin._candidate[], memory_plugin._lexical_plan, @extschema:vector@.vector,
    memory_plugin._filter, double precision, double precision
);

drop function if exists memory_plugin._embedding_blame(text[], uuid[], text[], boolean, text);

drop function if exists memory_plugin._reembed_provider(text, text, integer, text, boolean, text, text);

drop function if exists memory_plugin._reembed_start(text, integer);

-- Had another way to take a sample.
drop function if exists memory_plugin._lexical_total(text[], integer);

drop function if exists memory_plugin._lexical_read(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer, double precision, tsquery, integer
);

drop function if exists memory_plugin._lexical_count(text[], tsquery[], boolean[]);

drop function if exists memory_plugin._semantic_scan(
    text[], @extschema:vector@.halfvec, memory_plugin._filter, integer
);

drop function if exists memory_plugin._semantic_contrast(
    memory_plugin._candidate[], text[], @extschema:vector@.halfvec, integer
);

drop function if exists memory_plugin._lexical_few(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer
);

drop function if exists memory_plugin._semantic_candidates(
    text[], @extschema:vector@.vector, memory_plugin._filter, integer
);

drop function if exists memory_plugin._lexical_planned(text[]);

drop function if exists memory_plugin._semantic_convinces(
    memory_plugin._candidate[], text[], @extschema:vector@.halfvec, memory_plugin._filter, integer
);

drop function if exists memory_plugin._semantic_crowded(
    memory_plugin._candidate[], integer, double precision
);

drop function if exists memory_plugin._lexical_rarest(text[], tsquery[]);

drop function if exists memory_plugin._lexical_scan(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer
);

drop function if exists memory_plugin._lexical_parse(text);

drop function if exists memory_plugin._lexical_candidates(text[], text, memory_plugin._filter, integer);

drop function if exists memory_plugin._rank(
    memory_plugin._candidate[], memory_plugin._candidate[], integer, integer, double precision, double precision,
    double precision, double precision, boolean
);

drop function if exists memory_plugin._question_sketch(@extschema:vector@.vector);

drop function if exists memory_plugin._asked_sketch(@extschema:vector@.vector);

drop function if exists memory_plugin._fuse(
    memory_plugin._candidate[], memory_plugin._candidate[], memory_plugin._lexical_plan, @extschema:vector@.vector,
    memory_plugin._filter, double precision, double precision, double precision
);

drop function if exists memory_plugin._check_answer(bigint);

drop function if exists memory_plugin._lexical_parse(text, boolean);

drop function if exists memory_plugin._lexical_candidates(text[], text, memory_plugin._filter, integer, boolean);

drop function if exists memory_plugin._rank(
    memory_plugin._scored[], text, integer, integer, double precision, double precision, boolean
);

drop function if exists memory_plugin._json_texts(text, json);

drop function if exists memory_plugin._near_pairs(text, uuid[], integer[], double precision);

drop function if exists memory_plugin._reembed_renew(text, text, boolean, text, text);

drop function if exists memory_plugin._rank(
    memory_plugin._scored[], integer, integer, double precision, double precision, boolean
);
