create or replace function memory_plugin.commit_memory(
    namespace text,
    content text,
    kind text default 'fact',
    source text default 'agent',
    id uuid default null,
    expires_at timestamptz default null,
    propagation jsonb default null,
    pin boolean default false,
    embedding @extschema:vector@.vector default null
)
returns uuid
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
declare
    v_id uuid := coalesce(commit_memory.id, gen_random_uuid());
    v_embedding @extschema:vector@.vector;
    v_expires_at timestamptz := _check_time('expires_at', commit_memory.expires_at);
    v_redacts boolean;
    v_content text;
begin
    if commit_memory.embedding is not null then
        -- Held from here on, so that the store does not change to other dimensions after the check.
        perform from memory_records where false;
        v_embedding := _check_embedding(commit_memory.embedding);
    end if;
    -- Each of these functions is there to say what is wrong: calling it for what is right takes as long as an index.
    if commit_memory.namespace ~ '^@namespace_name@$' is not true or char_length(commit_memory.namespace) > @namespace_length@ then
        perform _check_namespace('namespace', commit_memory.namespace);
    end if;
    if commit_memory.kind = any ('{@kinds@}') is not true then
        perform _check_choice('kind', commit_memory.kind, '{@kinds@}');
    end if;
    if commit_memory.source = any ('{@sources@}') is not true then
        perform _check_choice('source', commit_memory.source, '{@sources@}');
    end if;
    perform _check_object('propagation', commit_memory.propagation);
    if ascii(commit_memory.content) between 33 and 126 is not true
        and coalesce(_trim(commit_memory.content), '') = ''
    then
        raise exception using errcode = 'MP001', message = 'content must not be blank';
    end if;
    -- Shorter texts are quickly taken apart into words.
    if octet_length(commit_memory.content) > @unchecked_bytes@ then
        perform _check_words('content', commit_memory.content);
    end if;
    loop
        -- The lock keeps the namespace from being deleted between this look and the insert.
        select exists (select from settings as s where s.name = 'redact_on_commit' and s.value = 'true')
        into v_redacts
        from memory_namespaces as n
        where n.name = commit_memory.namespace and (n.expires_at is null or n.expires_at > now())
        for key share;
        exit when found;
        perform _check_emptied(commit_memory.namespace);
        perform _start_namespace(
            commit_memory.namespace, _kind_of_namespace(commit_memory.namespace), null, null
        );
    end loop;
    v_content := case when v_redacts then _as_committed(commit_memory.content) else commit_memory.content end;
    if commit_memory.id is null then
        -- A new id meets no other: what a conflict would need costs a fifth of a commit.
        insert into memory_records (
            namespace, id, content, kind, source, expires_at, propagation, pin, embedding
        )
        values (
            commit_memory.namespace, v_id, v_content, commit_memory.kind, commit_memory.source,
            v_expires_at, commit_memory.propagation, coalesce(commit_memory.pin, false), v_embedding
        );
        return v_id;
    end if;
    insert into memory_records as r (
        namespace, id, content, kind, source, expires_at, propagation, pin, embedding
    )
    values (
        commit_memory.namespace, v_id, v_content, commit_memory.kind, commit_memory.source,
        v_expires_at, commit_memory.propagation, coalesce(commit_memory.pin, false), v_embedding
    )
    on conflict (namespace, id) do update
    set
        content = excluded.content,
        kind = excluded.kind,
        source = excluded.source,
        expires_at = excluded.expires_at,
        propagation = excluded.propagation,
        pin = excluded.pin,
        -- An embedding that is left out is not a wish to have none: that of unchanged text stays.
        embedding = case
            when excluded.embedding is null and r.content = excluded.content and r.expires_at <= now() is not true
                then r.embedding
            else excluded.embedding
        end,
        -- An expired row is as if absent: writing it again makes a new memory.
        created_at = case when r.expires_at <= now() then now() else r.created_at end
    -- A retry that changes nothing writes nothing, and costs no index entry.
    where
        (r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin)
        is distinct from (
            excluded.content, excluded.kind, excluded.source, excluded.expires_at, excluded.propagation, excluded.pin
        )
        or excluded.embedding is not null
        and (r.embedding is null or r.embedding operator(@extschema:vector@.<>) excluded.embedding)
        or r.expires_at <= now();
    return v_id;
end
$function$;

comment on function memory_plugin.commit_memory(
    text, text, text, text, uuid, timestamptz, jsonb, boolean, @extschema:vector@.vector
) is
    'Store a memory and return its id. A namespace that does not exist is created, with its kind taken from the '
    'name. With an id the call is idempotent: the same id in the same namespace is updated in place and keeps '
    'created_at, and its embedding too if the content is the same and embedding is left out. kind: fact, summary or '
    'checkpoint; source: agent, runtime or user; propagation: a JSON object; embedding: of the store''s dimensions. '
    'If configure() has set redact_on_commit, credentials in content are masked first. Errors: MP001 for a bad '
    'argument, MP002 for other dimensions, MP009 if it should mask and cannot, or while very many memories of an '
    'expired namespace of that name are still being removed.';

revoke all on function memory_plugin.commit_memory(
    text, text, text, text, uuid, timestamptz, jsonb, boolean, @extschema:vector@.vector
) from public;
