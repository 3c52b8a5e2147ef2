drop trigger if exists memory_records_mirror_vector on memory_plugin.memory_records;
drop trigger if exists memory_records_empty_vectors on memory_plugin.memory_records;
drop table memory_plugin.memory_vectors;
drop function if exists memory_plugin._mirror_vector();
drop function if exists memory_plugin._steered(@extschema:vector@.vector, text, text[], real[]);

create index memory_records_embedding
on memory_plugin.memory_records
using hnsw (
    (@extschema:vector@.l2_normalize(embedding)::@extschema:vector@.halfvec(@dimensions@))
    @extschema:vector@.halfvec_cosine_ops
);

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '006_vectors';
