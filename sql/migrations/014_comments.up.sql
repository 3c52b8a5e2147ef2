-- What \d+ says of the tables that people look into.
comment on table memory_plugin.memory_namespaces is
    'Where memories belong, and until when. Written by upsert_namespace, patch_namespace and delete_namespace, and by '
    'commit_memory for a name that is not there yet.';
comment on column memory_plugin.memory_namespaces.name is
    'A kind, a colon and a name of its own: ^[a-z]+:[A-Za-z0-9_:.\-]+$, at most 256 characters.';
comment on column memory_plugin.memory_namespaces.kind is 'workspace, team, org or custom.';
comment on column memory_plugin.memory_namespaces.expires_at is
    'From then on the namespace and its memories are as if absent; sweep() deletes them. Null: never.';
comment on column memory_plugin.memory_namespaces.metadata is 'A JSON object, for clients.';
comment on column memory_plugin.memory_namespaces.created_at is 'When it was created.';

comment on table memory_plugin.memory_records is
    'The memories, one row each, by namespace and id. Written by commit_memory and forget_memory, read by search; a '
    'trigger keeps memory_vectors and memory_lengths in step, so that plain SQL may write here too.';
comment on column memory_plugin.memory_records.id is
    'Unique within the namespace; given by the client, or made here.';
comment on column memory_plugin.memory_records.namespace is 'The namespace that it belongs to.';
comment on column memory_plugin.memory_records.content is 'The text that was remembered, not blank.';
comment on column memory_plugin.memory_records.kind is 'fact, summary or checkpoint.';
comment on column memory_plugin.memory_records.source is 'Who wrote it: agent, runtime or user.';
comment on column memory_plugin.memory_records.expires_at is
    'From then on it is as if absent; sweep() deletes it. Null: never.';
comment on column memory_plugin.memory_records.propagation is 'A JSON object, for clients.';
comment on column memory_plugin.memory_records.pin is 'Listed before all that are not pinned.';
comment on column memory_plugin.memory_records.embedding is
    'As the client sent it, or the database fetched it; of the store''s dimensions. Null: found by words only.';
comment on column memory_plugin.memory_records.content_tsv is
    'The words of content, by the store''s text search configuration.';
comment on column memory_plugin.memory_records.created_at is
    'When it was first committed, or again after it had expired.';
