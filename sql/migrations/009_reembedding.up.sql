-- How far a change of the embedding model is. The second vectors themselves stand in a column and a table that are made
-- when a change begins (sql/functions/_reembed_tables.sql), since most stores never need them.
create table memory_plugin.reembedding (
    singleton boolean primary key default true check (singleton),
    stage text not null check (stage in ('filling', 'swapped')),
    model text not null,
    dimensions integer not null,
    started_at timestamptz not null default now(),
    swapped_at timestamptz
);

comment on table memory_plugin.reembedding is
    'The change of the embedding model that is under way: filling (the second vectors are being fetched) or swapped '
    '(they are in force, and the former ones are kept). Written by memory-plugin reembed; no row when there is none.';

create table memory_plugin.reembedding_refused (
    namespace text not null,
    id uuid not null,
    content_hash text not null,
    tries integer not null,
    next_at timestamptz not null,
    reason text not null,
    primary key (namespace, id)
);

comment on table memory_plugin.reembedding_refused is
    'Memories that the model a store changes to did not take: how often, why, and when they are tried again. After '
    'three tries no more.';
