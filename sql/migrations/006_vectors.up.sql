-- memory-plugin: no-transaction
-- A narrow copy of what a search by embedding reads: unit vectors in half precision beside the columns it filters by,
-- and after each vector a tail that depends on the namespace and the kind. Neighbours in the graph are then neighbours
-- within one namespace, so that one index serves every namespace as an index of its own would.

-- The functions as this migration needs them; those in force stand in sql/functions, applied after it.
create or replace function memory_plugin._steered(
    p_embedding @extschema:vector@.vector, p_namespace text, p_kinds text[], p_weights real[]
)
returns @extschema:vector@.halfvec
language sql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select
        case
            -- hnsw takes up to 4,000 numbers of half precision: above 3,981 there is no room for the tail.
            when @dimensions@ > 3981 then @extschema:vector@.l2_normalize(p_embedding)
            else
                @extschema:vector@.l2_normalize(p_embedding)
                operator(@extschema:vector@.||)
                (
                    @extschema:vector@.l2_normalize(
                        (
                            select array_agg((get_byte(decode(md5(p_namespace), 'hex'), b.i) - 127.5)::real order by b.i)
                            from generate_series(0, 15) as b (i)
                        )::@extschema:vector@.vector
                    )
                    operator(@extschema:vector@.*) array_fill(p_weights[1], array[16])::@extschema:vector@.vector
                )
                operator(@extschema:vector@.||) array[
                    case when 'fact' = any (p_kinds) then p_weights[2] else 0 end,
                    case when 'summary' = any (p_kinds) then p_weights[2] else 0 end,
                    case when 'checkpoint' = any (p_kinds) then p_weights[2] else 0 end
                ]::@extschema:vector@.vector
        end::@extschema:vector@.halfvec
$function$;

create or replace function memory_plugin._mirror_vector()
returns trigger
language plpgsql volatile parallel unsafe
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_vectors;
        return null;
    end if;
    if tg_op = 'DELETE'
        or tg_op = 'UPDATE' and ((new.namespace, new.id) is distinct from (old.namespace, old.id) or new.embedding is null)
    then
        delete from memory_vectors as v where v.namespace = old.namespace and v.id = old.id;
    end if;
    if tg_op <> 'DELETE' and new.embedding is not null then
        insert into memory_vectors as v (expires_at, created_at, id, namespace, kind, source, embedding)
        values (
            new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source,
            _steered(new.embedding, new.namespace, array[new.kind], '{1,0.25}'::real[])
        )
        on conflict (namespace, id) do update
        set
            expires_at = excluded.expires_at, created_at = excluded.created_at, kind = excluded.kind,
            source = excluded.source, embedding = excluded.embedding;
    end if;
    return null;
end
$function$;

do $migration$
declare
    v_dimensions constant integer := @dimensions@;
    v_owner name;
begin
    if to_regclass('memory_plugin.memory_vectors') is not null then
        return;
    end if;
    execute format(
        'create table memory_plugin.memory_vectors ('
        '    expires_at timestamptz,'
        '    created_at timestamptz not null,'
        '    id uuid not null,'
        '    namespace text not null,'
        '    kind text not null,'
        '    source text not null,'
        -- The tail: 16 numbers for the namespace, one for each kind.
        '    embedding @extschema:vector@.halfvec(%s) not null,'
        '    primary key (namespace, id)'
        ')',
        case when v_dimensions <= 3981 then v_dimensions + 19 else v_dimensions end
    );
    -- Out of line, reading a vector costs several times what comparing it does; only the largest do not fit a page.
    execute format(
        'alter table memory_plugin.memory_vectors alter column embedding set storage %s',
        case when v_dimensions <= 3600 then 'plain' else 'external' end
    );
    -- As the memories themselves: to be done before the trigger writes here, since each of these locks the table.
    select r.rolname into v_owner
    from pg_class as c inner join pg_roles as r on c.relowner = r.oid
    where c.oid = 'memory_plugin.memory_records'::regclass;
    if v_owner <> current_user then
        execute format('alter table memory_plugin.memory_vectors owner to %I', v_owner);
    end if;
    execute format(
        'create policy memory_plugin_owner on memory_plugin.memory_vectors to %I using (true) with check (true)', v_owner
    );
    alter table memory_plugin.memory_vectors enable row level security, force row level security;
end
$migration$;

comment on table memory_plugin.memory_vectors is
    'What a search by embedding reads: a copy of the embeddings, kept by triggers of memory_records and never written '
    'by hand. Large namespaces are searched through its hnsw index: with pgvector 0.8 or newer the index scan goes on '
    'until enough rows passed the filters; with 0.7 what is missing then is found row by row, which takes longer.';

-- The trigger's lock keeps writers waiting, and whoever waits for it does too: ask briefly, and again.
do $migration$
declare
    v_deadline constant timestamptz
        := clock_timestamp() + greatest(current_setting('lock_timeout')::interval, '1s');
begin
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            if not exists (
                select from pg_trigger as t
                where t.tgrelid = 'memory_plugin.memory_records'::regclass and t.tgname = 'memory_records_mirror_vector'
            ) then
                create trigger memory_records_mirror_vector
                after insert or update or delete on memory_plugin.memory_records
                for each row execute function memory_plugin._mirror_vector();
            end if;
            if not exists (
                select from pg_trigger as t
                where t.tgrelid = 'memory_plugin.memory_records'::regclass and t.tgname = 'memory_records_empty_vectors'
            ) then
                create trigger memory_records_empty_vectors
                after truncate on memory_plugin.memory_records
                for each statement execute function memory_plugin._mirror_vector();
            end if;
            exit;
        exception
            when lock_not_available then
                if clock_timestamp() > v_deadline then
                    raise;
                end if;
        end;
        perform pg_sleep(0.2);
    end loop;
end
$migration$;

-- Rows from before the trigger, a batch a transaction and in the order of the key, so that a namespace lies together.
-- Cut off, it starts over and passes quickly over what is there.
do $migration$
declare
    v_patience constant interval := greatest(current_setting('lock_timeout')::interval, '1s');
    v_deadline timestamptz := clock_timestamp() + v_patience;
    v_namespace text := '';
    v_id uuid := '00000000-0000-0000-0000-000000000000';
    v_last record;
begin
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            with batch as materialized (
                select r.expires_at, r.created_at, r.id, r.namespace, r.kind, r.source, r.embedding
                from memory_plugin.memory_records as r
                where (r.namespace, r.id) > (v_namespace, v_id)
                order by r.namespace, r.id
                limit 1000
                -- A row that is deleted, or loses its embedding, meanwhile must not come back as a copy.
                for share
            ),

            copied as (
                insert into memory_plugin.memory_vectors (
                    expires_at, created_at, id, namespace, kind, source, embedding
                )
                select
                    b.expires_at, b.created_at, b.id, b.namespace, b.kind, b.source,
                    memory_plugin._steered(b.embedding, b.namespace, array[b.kind], '{1,0.25}'::real[])
                from batch as b
                where b.embedding is not null
                    and not exists (
                        select from memory_plugin.memory_vectors as v where v.namespace = b.namespace and v.id = b.id
                    )
                on conflict do nothing
            )

            select b.namespace, b.id into v_last
            from batch as b
            order by b.namespace desc, b.id desc
            limit 1;
            exit when not found;
            v_namespace := v_last.namespace;
            v_id := v_last.id;
            v_deadline := clock_timestamp() + v_patience;
        exception
            -- A writer holds one of these rows: let go of the others meanwhile.
            when lock_not_available or deadlock_detected then
                if clock_timestamp() > v_deadline then
                    raise;
                end if;
        end;
        commit;
    end loop;
end
$migration$;

create index concurrently if not exists memory_vectors_kind
on memory_plugin.memory_vectors (namespace, kind);

-- A denser graph than the default ef_construction of 64 makes; half precision pays for it.
create index concurrently if not exists memory_vectors_embedding
on memory_plugin.memory_vectors
using hnsw (embedding @extschema:vector@.halfvec_ip_ops) with (m = 16, ef_construction = 100)
where @dimensions@ <= 3981;

-- For index-only scans, which count the rows of a namespace before each search.
vacuum (analyze) memory_plugin.memory_vectors;

-- The former index over the wide table: nothing reads it any more, and each commit would pay for both.
drop index concurrently if exists memory_plugin.memory_records_embedding;
