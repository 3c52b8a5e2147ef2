-- Embeddings fetched by the server itself; all of it needs the functions in PL/Python.

create or replace function memory_plugin._embedding_ready()
returns boolean
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select
        to_regprocedure('memory_plugin._embed_query(text)') is not null
        and exists (select from embedding_provider as p where p.slot = 'current')
$function$;

comment on function memory_plugin._embedding_ready() is
    'Whether this server can fetch embeddings: PL/Python is there and a provider is configured.';

create or replace function memory_plugin._embedding_revision()
returns uuid
-- Volatile: it sees what was committed since the statement began.
language sql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select p.revision from embedding_provider as p where p.slot = 'current'
$function$;

comment on function memory_plugin._embedding_revision() is
    'What changes with the provider of embeddings; null without one.';

create or replace function memory_plugin._embedding_hash(p_content text)
returns text
language sql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select encode(sha256(convert_to(p_content, 'UTF8')), 'hex')
$function$;

comment on function memory_plugin._embedding_hash(text) is
    'What tells whether a content is still the one whose embedding was asked for.';

create or replace function memory_plugin._embedding_pending(p_most integer)
returns table (namespace text, id uuid, content text, created_at timestamptz, alone boolean)
language sql stable parallel safe security invoker
rows 100
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select
        r.namespace, r.id, r.content, r.created_at,
        coalesce(a.alone and a.content_hash = _embedding_hash(r.content), false)
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    left join embedding_attempts as a on r.namespace = a.namespace and r.id = a.id
    where
        r.embedding is null
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now())
        and (
            a.id is null or (not a.failed and a.next_at <= now()) or a.content_hash <> _embedding_hash(r.content)
        )
    order by r.created_at
    limit p_most
$function$;

comment on function memory_plugin._embedding_pending(integer) is
    'The p_most oldest live memories without an embedding whose turn it is.';

create or replace function memory_plugin._embedding_blame(
    p_namespaces text[], p_ids uuid[], p_hashes text[], p_alone boolean, p_problem text, p_most integer,
    p_pause interval
)
returns void
language sql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    insert into embedding_attempts as a (namespace, id, content_hash, tries, alone, failed, next_at, reason)
    select g.namespace, g.id, g.hash, p_alone::integer, true, false, now() + p_alone::integer * p_pause, p_problem
    from unnest(p_namespaces, p_ids, p_hashes) as g (namespace, id, hash)
    order by g.namespace, g.id
    on conflict (namespace, id) do update
    set
        content_hash = excluded.content_hash,
        tries = case when a.content_hash = excluded.content_hash then a.tries else 0 end + excluded.tries,
        alone = true,
        failed = a.content_hash = excluded.content_hash and a.tries + excluded.tries >= p_most,
        -- Six times as long after each try, at most ten minutes, each a little more or less.
        next_at = now() + excluded.tries * (0.8 + 0.4 * random())
        * least(
            p_pause * case when a.content_hash = excluded.content_hash then 6 ^ a.tries else 1 end,
            interval '10 minutes'
        ),
        reason = excluded.reason
$function$;

comment on function memory_plugin._embedding_blame(text[], uuid[], text[], boolean, text, integer, interval) is
    'Note that the provider took everything but these. One that was sent alone (p_alone) has used up a try, is '
    'left alone for p_pause and then longer, and after p_most tries is tried no more; of several sent together each is '
    'tried alone.';

create or replace function memory_plugin._embedded_query(
    p_query text, out embedding @extschema:vector@.vector, out degraded text
)
language plpgsql stable parallel restricted security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if not _embedding_ready() then
        return;
    end if;
    -- Written out: where there is no PL/Python, a plan of it cannot be made.
    execute 'select memory_plugin._embed_query($1)::@extschema:vector@.vector' into embedding using p_query;
    if embedding is null or @extschema:vector@.vector_dims(embedding) <> @dimensions@ then
        embedding := null;
        degraded := 'embedding';
    end if;
end
$function$;

comment on function memory_plugin._embedded_query(text) is
    'The embedding of a query where this server can fetch one; degraded says that it could not now.';
