-- The second vectors of a store: the column memory_records.embedding_spare, its narrow copy memory_vectors_spare, and
-- memory_sketches_spare. While a change of the model is prepared they are the new model's; after the swap, which
-- exchanges the names, the old's.

create or replace function memory_plugin._forget_spare()
returns trigger
language plpgsql volatile parallel unsafe
-- As the other triggers: whoever writes, a superuser for one, lends it no right.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
as $function$
begin
    new.embedding_spare := null;
    return new;
end
$function$;

comment on function memory_plugin._forget_spare() is
    'Trigger of memory_records while it has second vectors: one of another content is none.';

create or replace function memory_plugin._mirror_spare()
returns trigger
language plpgsql volatile parallel unsafe
-- Whoever may write memories, in whatever way, need not have any right on the copy.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
-- As _mirror_vector(), of which this is a copy word by word: to choose the column by a name would cost every commit.
set enable_seqscan = off
as $function$
declare
    v_sketch bit varying;
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_vectors_spare, memory_sketches_spare;
        return null;
    end if;
    if tg_op = 'UPDATE'
        and (new.namespace, new.id, new.kind, new.source, new.expires_at, new.created_at)
        is not distinct from (old.namespace, old.id, old.kind, old.source, old.expires_at, old.created_at)
        and (new.embedding_spare is null) = (old.embedding_spare is null)
        and (new.embedding_spare is null or new.embedding_spare operator(@extschema:vector@.=) old.embedding_spare)
    then
        return null;
    end if;
    if tg_op = 'DELETE'
        or tg_op = 'UPDATE'
        and ((new.namespace, new.id) is distinct from (old.namespace, old.id) or new.embedding_spare is null)
    then
        delete from memory_vectors_spare as v where v.namespace = old.namespace and v.id = old.id;
        delete from memory_sketches_spare as s where s.namespace = old.namespace and s.id = old.id;
    end if;
    if tg_op <> 'DELETE' and new.embedding_spare is not null then
        insert into memory_vectors_spare as v (expires_at, created_at, id, namespace, kind, source, embedding)
        values (
            new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source,
            _steered(new.embedding_spare, new.namespace, array[new.kind], '@stored_tail@')
        )
        on conflict (namespace, id) do update
        set
            expires_at = excluded.expires_at,
            created_at = excluded.created_at,
            kind = excluded.kind,
            source = excluded.source,
            embedding = excluded.embedding;
        v_sketch := _sketch(new.embedding_spare);
        if v_sketch is not null then
            insert into memory_sketches_spare as s (expires_at, created_at, id, namespace, kind, source, signs)
            values (new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source, v_sketch)
            on conflict (namespace, id) do update
            set
                expires_at = excluded.expires_at,
                created_at = excluded.created_at,
                kind = excluded.kind,
                source = excluded.source,
                signs = excluded.signs;
        end if;
    end if;
    return null;
end
$function$;

comment on function memory_plugin._mirror_spare() is
    'Trigger of memory_records while it has second vectors: does to memory_vectors_spare and '
    'memory_sketches_spare what was done to the memory.';

create or replace function memory_plugin._reembed_owned(p_table text)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_spare constant text := p_table || '_spare';
    v_owner name;
begin
    execute format(
        'comment on table memory_plugin.%I is %L',
        v_spare, obj_description(format('memory_plugin.%I', p_table)::regclass, 'pg_class')
    );
    select r.rolname into v_owner
    from pg_class as c inner join pg_roles as r on c.relowner = r.oid
    where c.oid = 'memory_plugin.memory_records'::regclass;
    if v_owner <> current_user then
        execute format('alter table memory_plugin.%I owner to %I', v_spare, v_owner);
    end if;
    execute format(
        'create policy memory_plugin_owner on memory_plugin.%I to %I using (true) with check (true)', v_spare, v_owner
    );
    execute format('alter table memory_plugin.%I enable row level security, force row level security', v_spare);
end
$function$;

comment on function memory_plugin._reembed_owned(text) is
    'Give the spare table of a copy the comment, the owner and the row-level security of the copy itself.';

create or replace function memory_plugin._reembed_sketches(p_dimensions integer)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    execute format(
        'create table memory_plugin.%2$I ('
        '    expires_at timestamptz,'
        '    created_at timestamptz not null,'
        '    id uuid not null,'
        '    namespace text not null,'
        '    kind text not null,'
        '    source text not null,'
        '    signs bit(%1$s) not null,'
        '    constraint memory_sketches_pkey_spare primary key (id, namespace)'
        ') with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.02)',
        3 * p_dimensions, 'memory_sketches_spare'
    );
    alter table memory_plugin.memory_sketches_spare alter column signs set storage plain;
    perform _reembed_owned('memory_sketches');
end
$function$;

comment on function memory_plugin._reembed_sketches(integer) is
    'Make memory_sketches_spare, for vectors of so many dimensions.';

create or replace function memory_plugin._reembed_start(p_provider jsonb)
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_next constant embedding_provider := jsonb_populate_record(null::embedding_provider, p_provider);
    v_dimensions constant integer := v_next.dimensions;
begin
    -- Left over, if one is there, from a change that was never begun.
    delete from embedding_provider where slot = 'next';
    insert into embedding_provider select (v_next).*;
    insert into reembedding (stage, model, dimensions) values ('filling', v_next.model, v_dimensions);
    execute format(
        'alter table memory_plugin.memory_records add column embedding_spare @extschema:vector@.vector(%s)', v_dimensions
    );
    execute format(
        'create table memory_plugin.memory_vectors_spare ('
        '    expires_at timestamptz,'
        '    created_at timestamptz not null,'
        '    id uuid not null,'
        '    namespace text not null,'
        '    kind text not null,'
        '    source text not null,'
        '    embedding @extschema:vector@.halfvec(%s) not null,'
        '    constraint memory_vectors_pkey_spare primary key (namespace, id)'
        ')',
        case when v_dimensions <= @graph_dimensions@ then v_dimensions + @tail_length@ else v_dimensions end
    );
    execute format(
        'alter table memory_plugin.memory_vectors_spare alter column embedding set storage %s',
        case when v_dimensions <= 3600 then 'plain' else 'external' end
    );
    perform _reembed_owned('memory_vectors');
    perform _reembed_sketches(v_dimensions);
    create trigger memory_records_forget_spare
    before update of content on memory_plugin.memory_records
    for each row when (old.content is distinct from new.content)
    execute function memory_plugin._forget_spare();
    create trigger memory_records_mirror_spare
    after insert or update or delete on memory_plugin.memory_records
    for each row execute function memory_plugin._mirror_spare();
    create trigger memory_records_empty_spare
    after truncate on memory_plugin.memory_records
    for each statement execute function memory_plugin._mirror_spare();
end
$function$;

comment on function memory_plugin._reembed_start(jsonb) is
    'Write down the provider of the model that the store changes to (a row of embedding_provider), and make the column '
    'and the table that hold the second vectors, and the triggers that keep them true.';

create or replace function memory_plugin._reembed_swap()
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_pair record;
    v_current embedding_provider;
    v_next embedding_provider;
begin
    -- A former table that was made before an index of today's does without it.
    for v_pair in
        select n.kind, n.name
        from (
            values
            ('table', 'memory_vectors'), ('index', 'memory_vectors_pkey'), ('index', 'memory_vectors_live'),
            ('index', 'memory_vectors_near'), ('index', 'memory_vectors_embedding'),
            ('table', 'memory_sketches'), ('index', 'memory_sketches_pkey'), ('index', 'memory_sketches_live'),
            ('index', 'memory_records_unembedded')
        ) as n (kind, name)
    loop
        execute format('alter %s if exists memory_plugin.%I rename to %I', v_pair.kind, v_pair.name, v_pair.name || '_swap');
        execute format('alter %s if exists memory_plugin.%I rename to %I', v_pair.kind, v_pair.name || '_spare', v_pair.name);
        execute format(
            'alter %s if exists memory_plugin.%I rename to %I', v_pair.kind, v_pair.name || '_swap', v_pair.name || '_spare'
        );
    end loop;
    alter table memory_plugin.memory_records rename column embedding to embedding_swap;
    alter table memory_plugin.memory_records rename column embedding_spare to embedding;
    alter table memory_plugin.memory_records rename column embedding_swap to embedding_spare;

    delete from embedding_provider where slot = 'current' returning * into v_current;
    delete from embedding_provider where slot = 'next' returning * into v_next;
    v_current.slot := 'next';
    v_next.slot := 'current';
    insert into embedding_provider select (v_current).* where v_current.url is not null;
    insert into embedding_provider select (v_next).* where v_next.url is not null;
    -- What the one refused the other may take.
    delete from embedding_attempts;
    insert into embedding_attempts (namespace, id, content_hash, tries, alone, failed, next_at, reason)
    select f.namespace, f.id, f.content_hash, f.tries, true, f.tries >= 3, f.next_at, f.reason
    from reembedding_refused as f;
    delete from reembedding_refused;
    update embedding_state
    set failures = 0, retry_at = null, problem = null, query_off_until = null, lease_pid = null, lease_until = null;
    update reembedding
    set
        stage = case stage when 'filling' then 'swapped' else 'filling' end,
        -- Not the transaction's time: what was written until now may lack its vector.
        swapped_at = case stage when 'filling' then clock_timestamp() end;
end
$function$;

comment on function memory_plugin._reembed_swap() is
    'Exchange the first and the second vectors, and their providers. The caller holds the tables, and applies the '
    'functions with the other dimensions in the same transaction.';

create or replace function memory_plugin._reembed_drop()
returns void
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    drop trigger memory_records_forget_spare on memory_plugin.memory_records;
    drop trigger memory_records_mirror_spare on memory_plugin.memory_records;
    drop trigger memory_records_empty_spare on memory_plugin.memory_records;
    drop table memory_plugin.memory_vectors_spare;
    drop table memory_plugin.memory_sketches_spare;
    -- Its index, which asks for rows without it, goes with the column.
    alter table memory_plugin.memory_records drop column embedding_spare;
    delete from embedding_provider where slot = 'next';
    delete from reembedding_refused;
    delete from reembedding;
end
$function$;

comment on function memory_plugin._reembed_drop() is
    'Drop the second vectors and all that belongs to them. The space in memory_records is free for new rows after '
    'its next vacuum full.';
