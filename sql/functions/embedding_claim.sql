create or replace function memory_plugin.embedding_claim(
    max_rows integer,
    probe boolean default false,
    out action text,
    out seconds double precision,
    out revision uuid,
    out namespaces text[],
    out ids uuid[],
    out hashes text[],
    out texts text[]
)
language plpgsql volatile parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
#variable_conflict use_column
declare
    v_provider embedding_provider;
    v_state embedding_state;
    v_most integer;
    v_now timestamptz := clock_timestamp();
    -- The longest that anything here is put off, which is the hour a provider may ask for. A time further off was
    -- written by a clock that has been set back since: it has come.
    c_longest constant interval := '1 hour 1 minute';
begin
    perform _check_range('max_rows', max_rows, 1, 1000000);
    seconds := 0;
    select * into v_provider from embedding_provider as p where p.slot = 'current';
    if not found then
        action := 'off';
        return;
    end if;
    revision := v_provider.revision;
    select * into strict v_state from embedding_state;
    if v_state.retry_at > v_now and v_state.retry_at < v_now + c_longest then
        action := 'wait';
        seconds := extract(epoch from v_state.retry_at - v_now);
        return;
    end if;
    if v_state.retry_at is not null or v_state.query_off_until not between v_now and v_now + c_longest
        or (probe and v_state.query_off_until is null)
    then
        action := 'probe';
    elsif exists (select from _embedding_pending(1)) then
        action := 'embed';
    else
        -- Of memories that are gone, or were embedded by their writer.
        delete from embedding_attempts as a
        where not exists (
            select from memory_records as r
            where r.namespace = a.namespace and r.id = a.id and r.embedding is null
        );
        update embedding_attempts as a set next_at = v_now where a.next_at > v_now + c_longest and not a.failed;
        action := 'done';
        return;
    end if;

    -- Not an advisory lock: that of a transaction would end with this one, a session's may be stranded by a pooler.
    update embedding_state as s
    set
        lease_pid = pg_backend_pid(),
        lease_until = v_now + (v_provider.timeout_ms + 20000) * interval '1 millisecond'
    where
        s.lease_until is null or s.lease_until not between v_now and v_now + c_longest
        or s.lease_pid = pg_backend_pid()
        or not exists (select from pg_stat_activity as a where a.pid = s.lease_pid);
    if not found then
        action := 'elsewhere';
        seconds := 1;
        return;
    end if;
    if action = 'probe' then
        return;
    end if;

    -- After a failure a smaller batch: the size may be what the provider minds.
    v_most := greatest(1, least(max_rows, v_provider.batch_size) / (2 ^ least(v_state.failures, 11))::integer);
    -- What somebody holds could not be stored, and would be sent again and again. Locked only now that nobody else
    -- embeds: a lock of ours would keep another's vectors from being stored.
    with held as materialized (
        select d.*
        from _embedding_pending(v_most + 1000) as d
        inner join memory_records as r on d.namespace = r.namespace and d.id = r.id
        where r.embedding is null
        order by d.created_at
        limit v_most
        for no key update of r skip locked
    ),

    due as (
        select h.*, row_number() over (order by h.created_at, h.namespace, h.id) as place from held as h
    ),

    cut as (
        select d.*, left(d.content, v_provider.max_characters) as cut from due as d
    ),

    -- One that is to go alone goes when it is the oldest.
    chosen as (
        select c.*, sum(char_length(c.cut)) over (order by c.place) as characters
        from cut as c
        where c.place = 1 or (not c.alone and not exists (select from cut as f where f.place = 1 and f.alone))
    )

    select
        array_agg(c.namespace order by c.place), array_agg(c.id order by c.place),
        array_agg(_embedding_hash(c.content) order by c.place),
        array_agg(v_provider.text_prefix || c.cut order by c.place)
    into namespaces, ids, hashes, texts
    from chosen as c
    where c.place = 1 or c.characters <= 250000;
    if ids is null then
        action := 'done';
        update embedding_state set lease_pid = null, lease_until = null where lease_pid = pg_backend_pid();
    end if;
end
$function$;

comment on function memory_plugin.embedding_claim(integer, boolean) is
    'A step of embed_pending: what is to be done now, and a lease on doing it. action: embed (texts), probe '
    '(see whether '
    'the provider is well), wait (seconds, it failed lately), elsewhere (another session has the lease), done '
    '(nothing is '
    'pending), off (no provider). Errors: MP001 for a bad argument.';

revoke all on function memory_plugin.embedding_claim(integer, boolean) from public;
