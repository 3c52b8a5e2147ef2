create or replace function memory_plugin.v1_search(body json)
returns json
language plpgsql stable parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
as $function$
#variable_conflict use_column
declare
    v_start timestamptz := clock_timestamp();
    v_body record;
    v_answer _search_answer;
    v_memories text;
    -- Names as the rules want them. An array of such, in JSON, is one in SQL but for the brackets.
    c_listing constant text :=
        '^[{]"namespaces": ?[[]"@namespace_name@"(, ?"@namespace_name@")*[]]'
        '(, ?"limit": ?([1-9][0-9]?|100))?[}]$';
    -- As _rfc3339 writes it, without a call for each of a hundred times.
    c_time constant text := '@time_format@';
begin
    -- The latest memories of some namespaces, which is what is asked most, take a short way: on the long one, reading
    -- the rows is the least of it. What does not look just so takes the long one.
    if octet_length(body::text) <= 256 and body::text ~ c_listing then
        return (
            _listing_json(
                ('{' || split_part(split_part(body::text, '[', 2), ']', 1) || '}')::text[],
                coalesce(nullif(rtrim(split_part(body::text, '"limit":', 2), '}'), '')::integer, 20)
            )
            || ',"took_ms":' || round(extract(epoch from clock_timestamp() - v_start) * 1000, 3) || '}}'
        )::json;
    end if;
    if json_typeof(body) is distinct from 'object' then
        perform _json_body(body);
    end if;
    select x.* into v_body
    from json_to_record(body) as x (
        namespaces json, query json, kinds json, "limit" json, embedding json,
        source json, created_after json, created_before json, min_score json, recency_half_life json,
        weights json, "offset" json, explain json, diversity json
    );
    if v_body.weights is not null and json_typeof(v_body.weights) not in ('object', 'null') then
        raise exception using errcode = 'MP001', message = 'weights must be a JSON object';
    end if;
    v_answer := _search(
        _json_texts('namespaces', v_body.namespaces),
        _json_text('query', v_body.query),
        _json_texts('kinds', v_body.kinds),
        _json_integer('limit', v_body."limit", 0, 100),
        _json_embedding(v_body.embedding),
        case json_typeof(v_body.source)
            when 'string' then array[_json_text('source', v_body.source)]
            else _json_texts('source', v_body.source, 'a string or ')
        end,
        _json_time('created_after', v_body.created_after),
        _json_time('created_before', v_body.created_before),
        _json_number('min_score', v_body.min_score)::double precision,
        _json_number('recency_half_life', v_body.recency_half_life)::double precision,
        _json_number('weights.lexical', v_body.weights -> 'lexical')::double precision,
        _json_number('weights.semantic', v_body.weights -> 'semantic')::double precision,
        _json_integer('offset', v_body."offset", 0, 10000),
        _json_boolean('explain', v_body.explain),
        _json_number('diversity', v_body.diversity)::double precision,
        _json_number('weights.neighbour', v_body.weights -> 'neighbour')::double precision
    );
    if cardinality(v_answer.hits) > 20 then
        perform _check_size((select sum(octet_length(h.content)) from unnest(v_answer.hits) as h));
    end if;
    select
        string_agg(
            '{"id":"' || h.id
            || '","namespace":"' || h.namespace
            || '","content":' || to_json(h.content)
            || ',"kind":"' || h.kind
            || '","source":"' || h.source || '"'
            || coalesce(',"expires_at":"' || to_char(h.expires_at at time zone 'UTC', c_time) || '"', '')
            || coalesce(',"propagation":' || h.propagation::text, '')
            || case when h.pin then ',"pin":true' else '' end
            || ',"created_at":"' || to_char(h.created_at at time zone 'UTC', c_time) || '"'
            || coalesce(',"score":' || h.score, '')
            || coalesce(',"explain":' || h.parts::text, '')
            || '}',
            ',' order by h.place
        )
    into v_memories
    from unnest(v_answer.hits) with ordinality as h (
        id, namespace, content, kind, source, expires_at, propagation, pin, created_at, score, parts, place
    );
    return (
        '{"memories":[' || coalesce(v_memories, '')
        || '],"search":{"mode":"' || v_answer.mode
        || '","exact":' || v_answer.exact
        || ',"candidates":' || v_answer.candidates
        || coalesce(',"degraded":"' || v_answer.degraded || '"', '')
        || ',"took_ms":' || round(extract(epoch from clock_timestamp() - v_start) * 1000, 3)
        || '}}'
    )::json;
end
$function$;

comment on function memory_plugin.v1_search(json) is
    'POST /v1/search: SearchRequest in, {memories, search: {mode, exact, candidates, took_ms}} out. Errors: '
    'MP001, MP002, MP009.';

revoke all on function memory_plugin.v1_search(json) from public;
