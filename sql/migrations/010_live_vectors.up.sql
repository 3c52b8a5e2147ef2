-- memory-plugin: no-transaction
-- An index of what is live: the rows of a namespace are counted, and compared, without a look at those that expired.
create index concurrently if not exists memory_vectors_live
on memory_plugin.memory_vectors (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz)))
-- Or no index-only scan may ask for it.
include (expires_at);

drop index concurrently if exists memory_plugin.memory_vectors_kind;
