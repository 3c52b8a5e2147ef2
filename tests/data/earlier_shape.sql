-- A database as the earlier Go plugin left it: the tables, some rows, no ledger. The caller's search_path says where.
create table memory_namespaces (
    name text primary key,
    kind text not null check (kind in ('workspace', 'team', 'org', 'custom')),
    expires_at timestamptz,
    metadata jsonb,
    created_at timestamptz not null default now()
);

create table memory_records (
    id uuid primary key default gen_random_uuid(),
    namespace text not null references memory_namespaces (name) on delete cascade,
    content text not null,
    kind text not null check (kind in ('fact', 'summary', 'checkpoint')),
    source text not null check (source in ('agent', 'runtime', 'user')),
    expires_at timestamptz,
    propagation jsonb,
    pin boolean not null default false,
    embedding vector(1536),
    content_tsv tsvector generated always as (to_tsvector('english', content)) stored,
    created_at timestamptz not null default now()
);

insert into memory_namespaces (name, kind, expires_at, metadata, created_at) values
('workspace:a', 'workspace', null, '{"owner": "ada"}', '2026-01-02 03:04:05+00'),
('team:b', 'team', '2030-01-01 00:00:00+00', null, '2026-01-03 03:04:05+00');

insert into memory_records
(id, namespace, content, kind, source, expires_at, propagation, pin, embedding, created_at) values
(
    '00000000-0000-4000-8000-000000000001', 'workspace:a', 'tabs, never spaces', 'fact', 'user',
    null, '{"to": ["team:b"]}', true, array_fill(0.25::real, array[1536])::vector, '2026-02-01 00:00:00+00'
),
(
    '00000000-0000-4000-8000-000000000002', 'workspace:a', 'the release is on Friday', 'summary', 'agent',
    null, null, false, null, '2026-02-02 00:00:00+00'
),
(
    '00000000-0000-4000-8000-000000000003', 'team:b', 'an old checkpoint', 'checkpoint', 'runtime',
    '2026-03-01 00:00:00+00', null, false, null, '2026-02-03 00:00:00+00'
);
