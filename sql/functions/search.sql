create or replace function memory_plugin.search(
    namespaces text[],
    query text default null,
    kinds text[] default null,
    max_results integer default 20,
    embedding @extschema:vector@.vector default null,
    sources text[] default null,
    created_after timestamptz default null,
    created_before timestamptz default null,
    min_score double precision default null,
    recency_half_life double precision default null,
    lexical_weight double precision default 0.5,
    semantic_weight double precision default 0.5,
    skip_results integer default 0,
    explain boolean default false,
    diversity double precision default null,
    neighbour_weight double precision default null
)
returns setof memory_plugin.memory_hit
language plpgsql stable parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
rows 20
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
declare
    -- As the argument of unnest it would be called twice: by the planner, too, who asks how many rows there will be.
    v_answer constant _search_answer := _search(
        namespaces, query, kinds, max_results, embedding, sources, created_after, created_before, min_score,
        recency_half_life, lexical_weight, semantic_weight, skip_results, explain, diversity, neighbour_weight
    );
begin
    return query select h.* from unnest(v_answer.hits) as h;
end
$function$;

comment on function memory_plugin.search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean, double precision, double precision
) is
    'Search live memories, only in the namespaces named. No query and no embedding: pinned first, then newest. '
    'query: any of its words may match, ranked; "a phrase"; -word must not occur; a single character matches as a '
    'substring. embedding: by cosine similarity. Both: fused by lexical_weight and semantic_weight (0 to 1e6). '
    'neighbour_weight (0 to 10; default 0.45 in a search by both, else 0): how much the memories committed around '
    'each one add. Filters: kinds (fact, summary, checkpoint), sources (agent, runtime, user), created_after, '
    'created_before, min_score. recency_half_life (seconds, 0.001 to 1e12) halves the score of a memory that old. '
    'max_results: 1 to 100 (0: 20); skip_results: 0 to 10000, for the next page. diversity (0 to 1) keeps '
    'near-copies from following each other. explain fills parts: lexical, semantic, neighbour, recency, and the '
    'rank in each arm. Errors: MP001 for a bad argument, MP002 for other dimensions, MP009 for a setting out of '
    'range.';

revoke all on function memory_plugin.search(
    text[], text, text[], integer, @extschema:vector@.vector, text[], timestamptz, timestamptz, double precision,
    double precision, double precision, double precision, integer, boolean, double precision, double precision
) from public;
