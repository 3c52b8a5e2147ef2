-- memory-plugin: no-transaction
-- Where the store fetches the embeddings that its writers leave out. One provider; a second row is for a change of
-- model. Nobody but the owner may read it: it holds the key.
create table if not exists memory_plugin.embedding_provider (
    slot text primary key default 'current' check (slot in ('current', 'next')),
    url text not null,
    model text not null,
    dimensions integer not null,
    api_key text,
    batch_size integer not null,
    timeout_ms integer not null,
    query_timeout_ms integer not null,
    max_characters integer not null,
    send_dimensions boolean not null,
    text_prefix text not null,
    query_prefix text not null,
    ca_certificate text,
    revision uuid not null default gen_random_uuid(),
    configured_at timestamptz not null default now()
);

comment on table memory_plugin.embedding_provider is
    'The embedding service, its key included. Written by configure_embedding, read by the owner alone.';

-- Only the memories that the provider could not embed; no row is written for one that goes well.
create table if not exists memory_plugin.embedding_attempts (
    namespace text not null,
    id uuid not null,
    content_hash text not null,
    tries integer not null,
    alone boolean not null,
    failed boolean not null,
    next_at timestamptz not null,
    reason text not null,
    primary key (namespace, id)
);

comment on table memory_plugin.embedding_attempts is
    'Memories that the embedding provider refused: how often, why, and when they are tried again; failed: no more.';

create table if not exists memory_plugin.embedding_state (
    singleton boolean primary key default true check (singleton),
    lease_pid integer,
    lease_until timestamptz,
    failures integer not null default 0,
    retry_at timestamptz,
    problem text,
    query_off_until timestamptz,
    embedded bigint not null default 0,
    rate double precision not null default 0,
    rate_at timestamptz not null default now()
);

comment on table memory_plugin.embedding_state is
    'How embedding goes: who is at it, whether the provider is being left alone and why, how much was done how fast.';

insert into memory_plugin.embedding_state default values
on conflict (singleton) do nothing;

-- Empty where every memory has an embedding.
create index concurrently if not exists memory_records_unembedded
on memory_plugin.memory_records (created_at)
where embedding is null;
