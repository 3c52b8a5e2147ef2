-- The steps of memory-plugin reembed: the second vector of every memory, from the provider in the slot next.

create or replace function memory_plugin._embedding_url(p_url text)
returns text
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- No message shows a url that breaks a rule: it may hold a secret.
    if p_url is null or char_length(p_url) > 2000
        or p_url !~ (
            '^https?://([A-Za-z0-9_-]{1,63}([.][A-Za-z0-9_-]{1,63})*[.]?|[[][0-9A-Fa-f:.]+[]])' || '(:[0-9]{1,5})?(/[!-~]*)?$'
        )
        or p_url ~ e'[#@\\\\"<>]'
    then
        raise exception using errcode = 'MP001',
            message = 'url must be http:// or https://, a host, and a path, without user, password or fragment';
    end if;
    if substring(p_url from '^[a-z]+://[^/]*:([0-9]+)(?:/|$)')::integer not between 1 and 65535 then
        raise exception using errcode = 'MP001', message = 'url must have a port from 1 to 65535';
    end if;
    return case
        when p_url ~ '^[a-z]+://[^/]+/?$' then rtrim(p_url, '/') || '/v1/embeddings'
        when p_url ~ '/v1/?$' then rtrim(p_url, '/') || '/embeddings'
        else p_url
    end;
end
$function$;

comment on function memory_plugin._embedding_url(text) is
    'The url of an embedding provider, with the path that it usually has. Errors: MP001 without showing the url.';

create or replace function memory_plugin._same_server(p_url text, p_other text)
returns boolean
language sql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select substring(p_url from '^[a-z]+://[^/]+') = substring(p_other from '^[a-z]+://[^/]+')
$function$;

comment on function memory_plugin._same_server(text, text) is
    'Whether two urls name the same server, for which a key and certificates were given; null where one is null.';

create or replace function memory_plugin._check_embedding_secrets(p_api_key text, p_ca_certificate text)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    -- No message shows a key that breaks a rule.
    if p_api_key <> '' and p_api_key !~ '^[!-~]+$' or char_length(p_api_key) > 4096 then
        raise exception using errcode = 'MP001',
            message = 'api_key must be at most 4096 printable ASCII characters without a space';
    end if;
    if p_ca_certificate <> '' and p_ca_certificate not like '%-----BEGIN CERTIFICATE-----%' then
        raise exception using errcode = 'MP001', message = 'ca_certificate must be a certificate in PEM';
    end if;
end
$function$;

comment on function memory_plugin._check_embedding_secrets(text, text) is
    'Check the key of an embedding provider and the certificates to trust, either of which may be null or empty. '
    'Errors: MP001 without showing them.';

create or replace function memory_plugin._reembed_renew(
    p_url text, p_api_key text, p_send_dimensions boolean, p_text_prefix text, p_query_prefix text,
    p_ca_certificate text
)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '1s'
as $function$
declare
    v_url text := case when p_url is not null then _embedding_url(p_url) end;
begin
    perform _check_embedding_secrets(p_api_key, p_ca_certificate);
    if exists (
        select from embedding_provider as p
        where p.slot = 'next'
            and (p_send_dimensions and not p.send_dimensions or nullif(p_text_prefix, '') <> p.text_prefix
                or nullif(p_query_prefix, '') <> p.query_prefix)
    ) then
        raise exception using errcode = 'MP001',
            message = 'send_dimensions, text_prefix and query_prefix stay as the change was begun with';
    end if;
    update embedding_provider as p
    set
        url = coalesce(v_url, p.url),
        api_key = coalesce(p_api_key, case when _same_server(coalesce(v_url, p.url), p.url) then p.api_key end),
        ca_certificate = nullif(
            coalesce(p_ca_certificate, case when _same_server(coalesce(v_url, p.url), p.url) then p.ca_certificate end), ''
        )
    where p.slot = 'next';
    -- Its service may have been mended since: what it refused is worth another try.
    delete from reembedding_refused;
end
$function$;

comment on function memory_plugin._reembed_renew(text, text, boolean, text, text, text) is
    'Go on with a change of the model, at another url, with another key or certificate where these are given: what was '
    'refused is tried again. As ever, key and certificate are kept for the same server only. Errors: MP001.';

create or replace function memory_plugin._reembed_pending(p_most integer)
returns table (namespace text, id uuid, content text, due boolean)
language plpgsql stable parallel safe security invoker
rows 100
set search_path = pg_catalog, memory_plugin, pg_temp
-- Nothing is known yet of a column that is being filled: along its index, whatever the planner thinks.
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_sort = off
set jit = off
as $function$
#variable_conflict use_column
begin
    return query
    select
        r.namespace, r.id, r.content,
        coalesce(a.next_at <= now() or a.content_hash <> _embedding_hash(r.content), true) as due
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    left join reembedding_refused as a on r.namespace = a.namespace and r.id = a.id
    where
        r.embedding_spare is null
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now())
        and (a.id is null or a.tries < 3 or a.content_hash <> _embedding_hash(r.content))
    order by r.created_at
    limit p_most;
end
$function$;

comment on function memory_plugin._reembed_pending(integer) is
    'The p_most oldest live memories without a second vector, those that were refused three times left out; due: '
    'not refused a moment ago.';

create or replace function memory_plugin._reembed_claim(
    p_most integer, out revision uuid, out namespaces text[], out ids uuid[], out hashes text[], out texts text[]
)
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_provider embedding_provider;
begin
    select p.* into v_provider
    from embedding_provider as p
    inner join reembedding as g on g.stage = 'filling'
    where p.slot = 'next';
    if not found then
        return;
    end if;
    revision := v_provider.revision;
    -- What somebody holds could not be stored, and would be sent again and again.
    with held as materialized (
        select r.namespace, r.id, r.content, r.created_at, left(r.content, v_provider.max_characters) as cut
        from _reembed_pending(least(p_most, v_provider.batch_size)) as e
        inner join memory_records as r on e.namespace = r.namespace and e.id = r.id
        where e.due
        for no key update of r skip locked
    ),

    placed as (
        select h.*, row_number() over (order by h.created_at, h.namespace, h.id) as place from held as h
    )

    select
        array_agg(c.namespace order by c.place), array_agg(c.id order by c.place),
        array_agg(_embedding_hash(c.content) order by c.place),
        array_agg(v_provider.text_prefix || c.cut order by c.place)
    into namespaces, ids, hashes, texts
    from (
        select p.*, sum(char_length(p.cut)) over (order by p.place) as characters from placed as p
    ) as c
    where c.place = 1 or c.characters <= 250000;
end
$function$;

comment on function memory_plugin._reembed_claim(integer) is
    'The next memories to fetch a second vector for, locked. revision: of the provider, null when no change is under '
    'way; ids: null when none is due, or others hold those that are.';

create or replace function memory_plugin._reembed_settle(
    p_revision uuid, p_namespaces text[], p_ids uuid[], p_hashes text[], p_vectors text[], p_problem text
)
returns integer
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '5s'
-- Few rows, each by its key.
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
-- A table without an index costs so much then that its scan would be compiled first.
set jit = off
as $function$
declare
    v_stored integer;
begin
    -- Locked: a swap or an abort comes before this or after it.
    perform from embedding_provider as p
    where p.slot = 'next' and p.revision = p_revision and exists (select from reembedding as g where g.stage = 'filling')
    for share;
    if not found then
        return 0;
    end if;
    -- A row that somebody holds is left for the next batch, so this waits for nobody and deadlocks with nobody.
    with held as materialized (
        select r.namespace, r.id, g.vector
        from memory_records as r
        inner join unnest(p_namespaces, p_ids, p_hashes, p_vectors) as g (namespace, id, hash, vector)
            on r.namespace = g.namespace and r.id = g.id
        where r.embedding_spare is null and g.vector is not null and _embedding_hash(r.content) = g.hash
        for no key update of r skip locked
    ),

    stored as (
        update memory_records as r
        set embedding_spare = h.vector::@extschema:vector@.vector
        from held as h
        where r.namespace = h.namespace and r.id = h.id
        returning r.namespace, r.id
    ),

    tried as (
        delete from reembedding_refused as a using stored as s where a.namespace = s.namespace and a.id = s.id
    )

    select count(*) into v_stored from stored;
    insert into reembedding_refused as a (namespace, id, content_hash, tries, next_at, reason)
    select g.namespace, g.id, g.hash, 1, now() + interval '2 seconds', coalesce(p_problem, 'no vector came back')
    from unnest(p_namespaces, p_ids, p_hashes, p_vectors) as g (namespace, id, hash, vector)
    where g.vector is null
    order by g.namespace, g.id
    on conflict (namespace, id) do update
    set
        tries = case when a.content_hash = excluded.content_hash then a.tries else 0 end + 1,
        content_hash = excluded.content_hash,
        next_at = excluded.next_at,
        reason = excluded.reason;
    return v_stored;
end
$function$;

comment on function memory_plugin._reembed_settle(uuid, text[], uuid[], text[], text[], text) is
    'Store the second vectors of memories whose content is still the one that was sent, and note those that got none; '
    'return how many were stored.';

create or replace function memory_plugin._reembed_counts(out memories bigint, out vectors bigint, out copies bigint)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    select count(*) into memories
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    where (r.expires_at is null or r.expires_at > now()) and (n.expires_at is null or n.expires_at > now());
    select count(*) into vectors from memory_records as r where r.embedding_spare is not null;
    select count(*) into copies from memory_vectors_spare;
end
$function$;

comment on function memory_plugin._reembed_counts() is
    'How many live memories, second vectors and copies of these there are.';

create or replace function memory_plugin._reembed_status()
returns jsonb
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_change reembedding;
begin
    select g.* into v_change from reembedding as g;
    -- Without a change there is no second vector to ask for.
    if v_change.stage is null then
        return null;
    end if;
    return (
        select
            to_jsonb(v_change) - 'singleton' || jsonb_build_object(
                'memories', count(*),
                'done', count(*) filter (
                    where case v_change.stage when 'filling' then r.embedding_spare else r.embedding end is not null
                ),
                'refused', (select count(*) from reembedding_refused as f where f.tries >= 3)
            )
        from memory_records as r
        inner join memory_namespaces as n on r.namespace = n.name
        where (r.expires_at is null or r.expires_at > now()) and (n.expires_at is null or n.expires_at > now())
    );
end
$function$;

comment on function memory_plugin._reembed_status() is
    'The change of the model that is under way, or done and not ended: stage, model, dimensions, started_at, '
    'swapped_at, live memories, how many of them have the new vector (done) and how many the new model refused. Null '
    'without one.';

create or replace function memory_plugin._reembed_rest()
returns bigint
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select count(*)
    from memory_records as r
    inner join memory_namespaces as n on r.namespace = n.name
    left join embedding_attempts as a
        on r.namespace = a.namespace and r.id = a.id and a.content_hash = _embedding_hash(r.content)
    where
        r.embedding is null
        and r.created_at <= (select g.swapped_at from reembedding as g)
        and a.failed is not true
        and (r.expires_at is null or r.expires_at > now())
        and (n.expires_at is null or n.expires_at > now())
$function$;

comment on function memory_plugin._reembed_rest() is
    'How many memories of before the swap still wait for a vector of the model in force.';
