-- memory-plugin: no-transaction
-- The listing order: pinned first, then newest, ties by id.
create index concurrently if not exists memory_records_listing
on memory_plugin.memory_records (namespace, pin desc, created_at desc, id);

-- What the sweeper looks for.
create index concurrently if not exists memory_records_expiry
on memory_plugin.memory_records (expires_at)
where expires_at is not null;

create index concurrently if not exists memory_namespaces_expiry
on memory_plugin.memory_namespaces (expires_at)
where expires_at is not null;

create index concurrently if not exists memory_records_content_tsv
on memory_plugin.memory_records using gin (content_tsv);

-- Half precision serves up to 4,000 dimensions at half the size; candidates are ranked again by the stored vector.
-- Unit length first, so that no stored number leaves the range of half precision.
create index concurrently if not exists memory_records_embedding
on memory_plugin.memory_records
using hnsw (
    (@extschema:vector@.l2_normalize(embedding)::@extschema:vector@.halfvec(@dimensions@))
    @extschema:vector@.halfvec_cosine_ops
);
