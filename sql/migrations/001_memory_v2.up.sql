-- Does nothing where the extension is already there, in whatever schema.
create extension if not exists vector with schema memory_plugin;

create table if not exists memory_plugin.memory_namespaces (
    name text primary key,
    kind text not null check (kind in ('workspace', 'team', 'org', 'custom')),
    expires_at timestamptz,
    metadata jsonb,
    created_at timestamptz not null default now()
);

create table if not exists memory_plugin.memory_records (
    id uuid primary key default gen_random_uuid(),
    namespace text not null references memory_plugin.memory_namespaces (name) on delete cascade,
    content text not null,
    kind text not null check (kind in ('fact', 'summary', 'checkpoint')),
    source text not null check (source in ('agent', 'runtime', 'user')),
    expires_at timestamptz,
    propagation jsonb,
    pin boolean not null default false,
    embedding @extschema:vector@.vector(@dimensions@),
    content_tsv tsvector generated always as (to_tsvector('@text_search_config@', content)) stored,
    created_at timestamptz not null default now()
);
