-- The contract's rules for many rows at once: the reason against a row is a value, so that one bad row can be named
-- among a million.

create or replace function memory_plugin._refusal(
    p_namespace text,
    p_content text,
    p_kind text,
    p_source text,
    p_expires_at timestamptz,
    p_propagation jsonb,
    p_embedding @extschema:vector@.vector
)
returns text
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    perform _check_namespace('namespace', p_namespace);
    perform _check_choice('kind', p_kind, '{@kinds@}');
    perform _check_choice('source', p_source, '{@sources@}');
    perform _check_time('expires_at', p_expires_at);
    perform _check_object('propagation', p_propagation);
    perform _check_embedding(p_embedding);
    if p_content is null or _trim(p_content) = '' then
        return 'content must not be blank';
    end if;
    -- As in commit_memory: shorter texts are quickly taken apart into words.
    if octet_length(p_content) > @unchecked_bytes@ then
        perform _check_words('content', p_content);
    end if;
    return null;
exception
    when sqlstate 'MP001' or sqlstate 'MP002' then
        return sqlerrm;
end
$function$;

comment on function memory_plugin._refusal(
    text, text, text, text, timestamptz, jsonb, @extschema:vector@.vector
) is
    'Why commit_memory would refuse this row, as the message that it would raise; null where it would take it.';

create or replace function memory_plugin._creation_refusal(p_created_at timestamptz)
returns text
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if p_created_at is null then
        return 'created_at is null';
    end if;
    -- Infinity is a time without end for what expires, and for nothing else.
    perform _check_time('created_at', case when p_created_at = 'infinity' then '-infinity' else p_created_at end);
    return null;
exception
    when sqlstate 'MP001' then
        return sqlerrm;
end
$function$;

comment on function memory_plugin._creation_refusal(timestamptz) is
    'Why a row with this created_at cannot be brought; null where it can.';

create or replace function memory_plugin._namespace_refusal(
    p_name text, p_kind text, p_expires_at timestamptz, p_metadata jsonb
)
returns text
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    perform _check_namespace('name', p_name);
    perform _check_choice('kind', p_kind, array['workspace', 'team', 'org', 'custom']);
    perform _check_time('expires_at', p_expires_at);
    perform _check_object('metadata', p_metadata);
    return null;
exception
    when sqlstate 'MP001' then
        return sqlerrm;
end
$function$;

comment on function memory_plugin._namespace_refusal(text, text, timestamptz, jsonb) is
    'Why upsert_namespace would refuse these values, as the message it would raise; null where it would take them.';

create or replace function memory_plugin._import_line(
    p_line json,
    out line_type text,
    out namespace text,
    out id uuid,
    out content text,
    out kind text,
    out source text,
    out expires_at timestamptz,
    out propagation jsonb,
    out pin boolean,
    out embedding @extschema:vector@.vector,
    out metadata jsonb,
    out created_at timestamptz,
    out refusal text
)
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
#variable_conflict use_variable
declare
    v_line record;
    v_id_text text;
    v_detail text;
begin
    if json_typeof(p_line) <> 'object' then
        refusal := 'a line must be a JSON object';
        return;
    end if;
    select x.* into v_line
    from json_to_record(p_line) as x (
        type json, name json, namespace json, id json, content json, kind json, source json, expires_at json,
        propagation json, pin json, embedding json, metadata json, created_at json
    );
    line_type := case json_typeof(v_line.type) when 'string' then v_line.type #>> '{}' else _json_text('type', v_line.type) end;
    if line_type is null or line_type not in ('namespace', 'memory') then
        perform _check_choice('type', line_type, array['namespace', 'memory']);
    end if;
    kind := case json_typeof(v_line.kind) when 'string' then v_line.kind #>> '{}' else _json_text('kind', v_line.kind) end;
    -- A rule's function costs more than all the rest of a line. It is asked wherever the value could break its rule.
    if v_line.expires_at is not null then
        expires_at := _check_time('expires_at', _json_time('expires_at', v_line.expires_at));
    end if;
    created_at := coalesce(_check_time('created_at', _json_time('created_at', v_line.created_at)), now());
    if line_type = 'namespace' then
        namespace := case json_typeof(v_line.name) when 'string' then v_line.name #>> '{}' else _json_text('name', v_line.name) end;
        metadata := _json_object('metadata', v_line.metadata);
        return;
    end if;
    namespace := case json_typeof(v_line.namespace) when 'string' then v_line.namespace #>> '{}' else _json_text('namespace', v_line.namespace) end;
    content := case json_typeof(v_line.content) when 'string' then v_line.content #>> '{}' else _json_text('content', v_line.content) end;
    source := case json_typeof(v_line.source) when 'string' then v_line.source #>> '{}' else _json_text('source', v_line.source) end;
    if v_line.propagation is not null then
        propagation := _json_object('propagation', v_line.propagation);
    end if;
    pin := v_line.pin is not null and coalesce(_json_boolean('pin', v_line.pin), false);
    if v_line.embedding is not null then
        embedding := _check_embedding(_json_embedding(v_line.embedding));
    end if;
    v_id_text := case json_typeof(v_line.id) when 'string' then v_line.id #>> '{}' else _json_text('id', v_line.id) end;
    if v_id_text !~* '^@uuid@$' then
        refusal := 'id must be a UUID';
        return;
    end if;
    id := coalesce(v_id_text::uuid, gen_random_uuid());
    -- A visible ASCII character is no white space.
    if content is null or (content !~ '[!-~]' and _trim(content) = '') then
        refusal := 'content must not be blank';
    elsif octet_length(content) > @unchecked_bytes@ then
        perform _check_words('content', content);
    end if;
exception
    when sqlstate 'MP001' or sqlstate 'MP002' or data_exception or program_limit_exceeded then
        get stacked diagnostics v_detail = pg_exception_detail;
        -- Postgres' own details may repeat the line, which is somebody's memory: these do not.
        refusal := left(sqlerrm, 200) || case when v_detail ~ e'^(\\\\u0000|Unicode )' then ' (' || v_detail || ')' else '' end;
end
$function$;

comment on function memory_plugin._import_line(json) is
    'One line of an export, read and checked but for namespace, kind and source, which are few and checked by '
    '_import_group. A namespace line has its name in namespace. refusal is the first rule that the line breaks, '
    'else null.';

create or replace function memory_plugin._import_group(p_line_type text, p_namespace text, p_kind text, p_source text)
returns text
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    perform _check_choice('type', p_line_type, array['namespace', 'memory']);
    if p_line_type = 'namespace' then
        return _namespace_refusal(p_namespace, p_kind, null, null);
    end if;
    return _refusal(p_namespace, 'content is checked line by line', p_kind, p_source, null, null, null);
exception
    when sqlstate 'MP001' then
        return sqlerrm;
end
$function$;

comment on function memory_plugin._import_group(text, text, text, text) is
    'Why the lines of an export that share these values are refused; null where they are not.';
