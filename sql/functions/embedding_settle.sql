create or replace function memory_plugin.embedding_settle(
    revision uuid,
    namespaces text[],
    ids uuid[],
    hashes text[],
    vectors text[],
    scope text,
    problem text,
    retry_after double precision,
    took_ms double precision
)
returns integer
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
-- Longer than others: what the provider gave would have to be asked for again.
set lock_timeout = '5s'
as $function$
#variable_conflict use_column
declare
    v_provider embedding_provider;
    v_now timestamptz := clock_timestamp();
    v_stored integer := 0;
    v_pause double precision;
begin
    select * into v_provider from embedding_provider as p
    where p.slot = 'current' and p.revision = embedding_settle.revision
    -- A change to another model comes before this or after it.
    for share;
    if not found then
        -- Another provider by now: these vectors are none of its.
        update embedding_state set lease_pid = null, lease_until = null where lease_pid = pg_backend_pid();
        return 0;
    end if;

    -- Waited for while no memory is held.
    perform from embedding_state for no key update;
    if vectors is not null and (scope is null or scope = 'some') then
        -- A row that somebody holds is left for the next batch, so this waits for nobody and deadlocks with nobody.
        with given as (
            select g.* from unnest(namespaces, ids, hashes, vectors) as g (namespace, id, hash, vector)
            where g.vector is not null
        ),

        held as materialized (
            select r.namespace, r.id, g.vector
            from memory_records as r inner join given as g on r.namespace = g.namespace and r.id = g.id
            where r.embedding is null and _embedding_hash(r.content) = g.hash
            for no key update of r skip locked
        ),

        stored as (
            update memory_records as r
            set embedding = _check_embedding(h.vector::@extschema:vector@.vector)
            from held as h
            where r.namespace = h.namespace and r.id = h.id
            returning r.namespace, r.id
        ),

        tried as (
            delete from embedding_attempts as a using stored as s where a.namespace = s.namespace and a.id = s.id
        )

        select count(*) into v_stored from stored;
    end if;
    if scope = 'some' then
        perform _embedding_blame(array_agg(g.namespace), array_agg(g.id), array_agg(g.hash), true, problem, 3, '5 s')
        from unnest(namespaces, ids, hashes, vectors) as g (namespace, id, hash, vector)
        where g.vector is null;
    elsif scope in ('texts', 'lost') then
        -- A provider of which one half is down loses texts that the other half takes: more tries than for a refusal.
        perform _embedding_blame(
            namespaces, ids, hashes, cardinality(ids) = 1, problem, case scope when 'texts' then 3 else 10 end, '5 s'
        );
    elsif scope = 'unclear' and cardinality(ids) = 1 then
        -- Sent alone, after the provider was found well again and again: perhaps it fails at this text. Others have
        -- their turn first.
        perform _embedding_blame(namespaces, ids, hashes, true, problem, 10, '1 min')
        where (select s.failures >= 4 from embedding_state as s)
            or exists (
                select from embedding_attempts as a
                where a.namespace = namespaces[1] and a.id = ids[1] and a.content_hash = hashes[1] and a.tries > 0
            );
    end if;

    if scope in ('provider', 'unclear') or (scope is not null and cardinality(ids) = 0) then
        update embedding_state as s
        set
            failures = s.failures + 1,
            -- 1 s, doubled up to a minute, a little more or less, and no sooner than the provider asks; it asks all of its
            -- clients for the same.
            retry_at = v_now + interval '1 second' * greatest(
                embedding_settle.retry_after * (1 + random() / 4), least(2 ^ least(s.failures, 6), 60) * (0.5 + random() / 2)
            ),
            problem = embedding_settle.problem,
            query_off_until = v_now + interval '2 seconds' + interval '1 second' * greatest(
                embedding_settle.retry_after, least(2 ^ least(s.failures, 6), 60)
            );
    elsif cardinality(ids) = 0 then
        -- Well again, as it seems: failures stays until a batch of memories goes through.
        v_pause := case when took_ms > v_provider.query_timeout_ms then 15 end;
        update embedding_state
        set retry_at = null, query_off_until = v_now + interval '1 second' * v_pause;
    else
        update embedding_state as s
        set
            failures = 0,
            problem = null,
            embedded = s.embedded + v_stored,
            -- A mean that forgets: what happened a minute ago counts a third.
            rate = s.rate * exp(-greatest(extract(epoch from v_now - s.rate_at), 0)::double precision / 60) + v_stored / 60.0,
            rate_at = v_now;
    end if;
    update embedding_state set lease_pid = null, lease_until = null where lease_pid = pg_backend_pid();
    return v_stored;
end
$function$;

comment on function memory_plugin.embedding_settle(
    uuid, text[], uuid[], text[], text[], text, text, double precision, double precision
) is
    'A step of embed_pending: store the vectors of memories whose content is still the one that was sent, note what '
    'failed, and give the lease back; return how many were stored. scope: null, some (rows without a vector are at '
    'fault), texts, lost, unclear or provider (who is).';

revoke all on function memory_plugin.embedding_settle(
    uuid, text[], uuid[], text[], text[], text, text, double precision, double precision
) from public;
