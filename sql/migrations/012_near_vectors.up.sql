-- memory-plugin: no-transaction
-- The live vectors of a namespace beside each other, where they fit an index: comparing every row then reads a page for
-- several of them, instead of a page for each. A row of an index may have 2,704 bytes: with the longest name of a
-- namespace there is room for vectors of 1,100 numbers. With more the index is there, and empty.
create index concurrently if not exists memory_vectors_near
on memory_plugin.memory_vectors (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz)))
include (expires_at, created_at, id, source, embedding)
where @dimensions@ <= 1100;
