create or replace function memory_plugin.v1_commit_memories(namespaces text[], bodies text[])
returns text
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
-- One plan for every call, from the few requests to their namespaces.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
#variable_conflict use_column
declare
    v_answers text;
begin
    with asked as materialized (
        select u.name, x.*, u.place
        from unnest(v1_commit_memories.namespaces, v1_commit_memories.bodies) with ordinality as u (name, body, place)
        cross join lateral json_to_record(u.body::json) as x (
            content json, kind json, source json, id json, expires_at json, propagation json, pin json, embedding json
        )
    ),

    -- What is right beyond question. The rules themselves are commit_memory's, and what they say of the rest.
    plain as materialized (
        select a.place, gen_random_uuid() as id, a.name, a.content #>> '{}' as content, a.kind #>> '{}' as kind,
            a.source #>> '{}' as source, coalesce(a.pin::text = 'true', false) as pin
        from asked as a
        inner join memory_namespaces as n on a.name = n.name
        where (n.expires_at is null or n.expires_at > now())
            and json_typeof(a.content) = 'string' and ascii(a.content #>> '{}') between 33 and 126
            and a.kind::text in (@json_kinds@)
            and a.source::text in (@json_sources@)
            and coalesce(a.pin::text, 'null') in ('true', 'false', 'null')
            and num_nonnulls(a.id, a.expires_at, a.propagation, a.embedding) = 0
            and not exists (select from settings as s where s.name = 'redact_on_commit' and s.value = 'true')
        -- Nothing here waits for anybody: one request would keep all the others waiting with it.
        for key share of n skip locked
    ),

    written as (
        insert into memory_records (namespace, id, content, kind, source, pin)
        select p.name, p.id, p.content, p.kind, p.source, p.pin
        from plain as p
    )

    select
        string_agg(
            coalesce('{"id":"' || p.id || '","namespace":"' || p.name || '"}', ''), e'\n' order by a.place
        )
    into v_answers
    from asked as a left join plain as p on a.place = p.place;
    return v_answers;
exception
    -- Whatever it is: committed by itself, each will have its answer, and the one it concerns will be told.
    when others then
        return repeat(e'\n', cardinality(v1_commit_memories.namespaces) - 1);
end
$function$;

comment on function memory_plugin.v1_commit_memories(text[], text[]) is
    'Several v1_commit_memory calls in one statement, for requests that arrive together. Returns a line for each: '
    'its answer, or nothing. A request without an answer has had no effect; v1_commit_memory then commits it or '
    'says why not. Only plain memories get an answer: without id, expiry, propagation and embedding, into a '
    'namespace that exists and is not locked. No error of its own.';

revoke all on function memory_plugin.v1_commit_memories(text[], text[]) from public;
