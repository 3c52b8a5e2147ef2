-- memory-plugin: no-transaction
-- Sketches of the same size that say more: eight steps for each number, as the sketch of a question, where there were
-- four, for of a row's three signs two were the same.

-- Until the functions of this version are there, every row is compared, and nobody reads a sketch.
create or replace function memory_plugin._semantic_nearest(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer, p_rows bigint,
    out nearest memory_plugin._candidate[], out exact boolean
)
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    select c.nearest, c.exact into nearest, exact
    from _semantic_compare(p_namespaces, p_unit, p_filter, p_limit) as c;
end
$function$;

-- The functions as this migration needs them; those in force stand in sql/functions, applied after it.
create or replace function memory_plugin._sketch_signs(
    p_embedding @extschema:vector@.vector, out high bit varying, out middle bit varying, out low bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    -- Eight steps of this width keep the most of numbers that are spread normally.
    v_step constant @extschema:vector@.vector
        := array_fill((0.586 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_twice constant @extschema:vector@.vector := v_step operator(@extschema:vector@.+) v_step;
    v_thrice constant @extschema:vector@.vector := v_twice operator(@extschema:vector@.+) v_step;
    v_above constant bit varying := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_twice);
    v_below constant bit varying := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_twice);
begin
    high := @extschema:vector@.binary_quantize(v_unit);
    middle := v_above | (v_below & ~ high);
    low := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_thrice)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_step) & ~ v_above)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_step) & ~ high)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_thrice) & ~ v_below);
end
$function$;

create or replace function memory_plugin._sketch(p_embedding @extschema:vector@.vector)
returns bit varying
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if @extschema:vector@.vector_dims(p_embedding) < 200 then
        return null;
    end if;
    return (select s.high || s.middle || s.low from _sketch_signs(p_embedding) as s);
end
$function$;

-- All at once: from the old column to the new one, and the triggers that fill it. The lock keeps writers waiting,
-- and whoever waits for it does too: ask briefly, and again.
do $migration$
declare
    v_deadline constant timestamptz
        := clock_timestamp() + greatest(current_setting('lock_timeout')::interval, '1s');
    v_table regclass;
    -- None of them where this was cut off before.
    v_old constant regclass[] := array(
        select c.oid::regclass
        from pg_class as c
        inner join pg_attribute as a on c.oid = a.attrelid
        where c.oid in (
            to_regclass('memory_plugin.memory_sketches'), to_regclass('memory_plugin.memory_sketches_spare')
        )
        and a.attname = 'sketch'
        and not a.attisdropped
    );
begin
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            lock table memory_plugin.memory_records in share mode;
            foreach v_table in array v_old loop
                execute format('lock table %s in access exclusive mode', v_table);
            end loop;
            exit;
        exception
            when lock_not_available then
                if clock_timestamp() > v_deadline then
                    raise;
                end if;
        end;
        perform pg_sleep(0.2);
    end loop;
    foreach v_table in array v_old loop
        execute format('truncate %s', v_table);
        -- Its index goes with the column.
        execute format(
            'alter table %s drop column sketch, add column signs bit(%s) not null',
            v_table,
            (
                select a.atttypmod from pg_attribute as a
                where a.attrelid = v_table and a.attname = 'sketch' and not a.attisdropped
            )
        );
        execute format('alter table %s alter column signs set storage plain', v_table);
    end loop;
    execute $statement$
        create or replace function memory_plugin._mirror_vector()
        returns trigger
        language plpgsql volatile parallel unsafe
        -- Whoever may write memories, in whatever way, need not have any right on the copy.
        security definer
        set search_path = pg_catalog, memory_plugin, pg_temp
        set lock_timeout = '1s'
        -- A session keeps the plan that it made while the copy was small; the key is right at every size.
        set enable_seqscan = off
        as $function$
        declare
            v_sketch bit varying;
        begin
            if tg_op = 'TRUNCATE' then
                truncate memory_vectors, memory_sketches;
                return null;
            end if;
            if tg_op = 'UPDATE'
                and (new.namespace, new.id, new.kind, new.source, new.expires_at, new.created_at)
                is not distinct from (old.namespace, old.id, old.kind, old.source, old.expires_at, old.created_at)
                and (new.embedding is null) = (old.embedding is null)
                and (new.embedding is null or new.embedding operator(@extschema:vector@.=) old.embedding)
            then
                return null;
            end if;
            if tg_op = 'DELETE'
                or tg_op = 'UPDATE' and ((new.namespace, new.id) is distinct from (old.namespace, old.id) or new.embedding is null)
            then
                delete from memory_vectors as v where v.namespace = old.namespace and v.id = old.id;
                delete from memory_sketches as s where s.namespace = old.namespace and s.id = old.id;
            end if;
            if tg_op <> 'DELETE' and new.embedding is not null then
                insert into memory_vectors as v (expires_at, created_at, id, namespace, kind, source, embedding)
                values (
                    new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source,
                    _steered(new.embedding, new.namespace, array[new.kind], '{1,0.25}')
                )
                on conflict (namespace, id) do update
                set
                    expires_at = excluded.expires_at,
                    created_at = excluded.created_at,
                    kind = excluded.kind,
                    source = excluded.source,
                    embedding = excluded.embedding;
                v_sketch := _sketch(new.embedding);
                if v_sketch is not null then
                    insert into memory_sketches as s (expires_at, created_at, id, namespace, kind, source, signs)
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
    $statement$;
    execute $statement$
        create or replace function memory_plugin._mirror_spare()
        returns trigger
        language plpgsql volatile parallel unsafe
        -- Whoever may write memories, in whatever way, need not have any right on the copy.
        security definer
        set search_path = pg_catalog, memory_plugin, pg_temp
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
                    _steered(new.embedding_spare, new.namespace, array[new.kind], '{1,0.25}')
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
    $statement$;
end
$migration$;

-- Rows from before, a batch a transaction and in the order of the key, so that a namespace lies together. Cut off, it
-- starts over and passes quickly over what is there.
do $migration$
declare
    v_patience constant interval := greatest(current_setting('lock_timeout')::interval, '1s');
    v_suffix text;
    v_deadline timestamptz;
    v_namespace text;
    v_id uuid;
    v_last record;
    v_rows bigint;
begin
    foreach v_suffix in array array['', '_spare'] loop
        continue when to_regclass('memory_plugin.memory_vectors' || v_suffix) is null;
        v_deadline := clock_timestamp() + v_patience;
        v_namespace := '';
        v_id := '00000000-0000-0000-0000-000000000000';
        loop
            begin
                perform set_config('lock_timeout', '300ms', true);
                execute format(
                    $batch$
                        with batch as materialized (
                            select
                                r.expires_at, r.created_at, r.id, r.namespace, r.kind, r.source, r.embedding%1$s as embedding
                            from memory_plugin.memory_records as r
                            where (r.namespace, r.id) > ($1, $2)
                            order by r.namespace, r.id
                            limit 1000
                            -- A memory that is deleted or changed meanwhile must not be sketched as it was.
                            for share
                        ),

                        sketched as (
                            insert into memory_plugin.memory_sketches%1$s (
                                expires_at, created_at, id, namespace, kind, source, signs
                            )
                            select
                                b.expires_at, b.created_at, b.id, b.namespace, b.kind, b.source, s.sketch
                            from batch as b
                            cross join lateral memory_plugin._sketch(b.embedding) as s (sketch)
                            where s.sketch is not null
                                and not exists (
                                    select from memory_plugin.memory_sketches%1$s as h
                                    where h.namespace = b.namespace and h.id = b.id
                                )
                            on conflict do nothing
                        )

                        select b.namespace, b.id
                        from batch as b
                        order by b.namespace desc, b.id desc
                        limit 1
                    $batch$,
                    v_suffix
                )
                into v_last
                using v_namespace, v_id;
                get diagnostics v_rows = row_count;
                exit when v_rows = 0;
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
    end loop;
end
$migration$;

-- Live rows only, as in memory_vectors_live.
create index concurrently if not exists memory_sketches_live
on memory_plugin.memory_sketches (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz)))
include (expires_at, created_at, id, source, signs);

-- For index-only scans.
vacuum (analyze) memory_plugin.memory_sketches;
