create type memory_plugin.memory as (
    id uuid,
    namespace text,
    content text,
    kind text,
    source text,
    expires_at timestamptz,
    propagation jsonb,
    pin boolean,
    created_at timestamptz
);

comment on type memory_plugin.memory is 'One memory, as get_memory returns it. The embedding is never returned.';

create type memory_plugin.memory_hit as (
    id uuid,
    namespace text,
    content text,
    kind text,
    source text,
    expires_at timestamptz,
    propagation jsonb,
    pin boolean,
    created_at timestamptz,
    score double precision,
    parts jsonb
);

comment on type memory_plugin.memory_hit is
    'One search result. score: higher is better, null in a listing. parts: what the score is made of.';

create type memory_plugin._filter as (
    kinds text[],
    sources text[],
    created_after timestamptz,
    created_before timestamptz
);

comment on type memory_plugin._filter is 'Which memories a search may return; a null field does not restrict.';

create type memory_plugin._candidate as (namespace text, id uuid, score double precision);

comment on type memory_plugin._candidate is
    'One row of one search arm, best first in an array; score: higher is better.';

create type memory_plugin._search_answer as (
    hits memory_plugin.memory_hit[],
    mode text,
    exact boolean,
    candidates bigint,
    degraded text
);

comment on type memory_plugin._search_answer is
    'A search and how it was found. mode: listing, substring, lexical, semantic or hybrid; exact: no better row '
    'exists; '
    'candidates: rows scored; degraded: the arm that could not run.';
