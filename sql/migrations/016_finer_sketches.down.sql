-- Sketches of four steps for each number, from those of eight: their signs are the first two. The triggers of the
-- version that is installed next take the place of these.
create or replace function memory_plugin._mirror_vector()
returns trigger
language plpgsql volatile parallel unsafe
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '1s'
set enable_seqscan = off
as $function$
declare
    v_sketch bit varying;
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_vectors, memory_sketches;
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
            v_sketch := substring(v_sketch for length(v_sketch) / 3) || substring(v_sketch for 2 * length(v_sketch) / 3);
            insert into memory_sketches as s (expires_at, created_at, id, namespace, kind, source, sketch)
            values (new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source, v_sketch)
            on conflict (namespace, id) do update
            set
                expires_at = excluded.expires_at,
                created_at = excluded.created_at,
                kind = excluded.kind,
                source = excluded.source,
                sketch = excluded.sketch;
        end if;
    end if;
    return null;
end
$function$;

create or replace function memory_plugin._mirror_spare()
returns trigger
language plpgsql volatile parallel unsafe
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '1s'
set enable_seqscan = off
as $function$
declare
    v_sketch bit varying;
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_vectors_spare, memory_sketches_spare;
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
            v_sketch := substring(v_sketch for length(v_sketch) / 3) || substring(v_sketch for 2 * length(v_sketch) / 3);
            insert into memory_sketches_spare as s (expires_at, created_at, id, namespace, kind, source, sketch)
            values (new.expires_at, new.created_at, new.id, new.namespace, new.kind, new.source, v_sketch)
            on conflict (namespace, id) do update
            set
                expires_at = excluded.expires_at,
                created_at = excluded.created_at,
                kind = excluded.kind,
                source = excluded.source,
                sketch = excluded.sketch;
        end if;
    end if;
    return null;
end
$function$;

do $migration$
declare
    v_table regclass;
begin
    lock table memory_plugin.memory_records in share mode;
    foreach v_table in array array_remove(
        array[to_regclass('memory_plugin.memory_sketches'), to_regclass('memory_plugin.memory_sketches_spare')], null
    ) loop
        execute format(
            'alter table %s add column sketch bit(%s)',
            v_table,
            (
                select a.atttypmod from pg_attribute as a
                where a.attrelid = v_table and a.attname = 'signs' and not a.attisdropped
            )
        );
        execute format(
            'update %s set sketch = substring(signs for length(signs) / 3) || substring(signs for 2 * length(signs) / 3)',
            v_table
        );
        -- Its index goes with the column.
        execute format(
            'alter table %s alter column sketch set not null, alter column sketch set storage plain, drop column signs',
            v_table
        );
    end loop;
end
$migration$;

create index memory_sketches_live
on memory_plugin.memory_sketches (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz)))
include (expires_at, created_at, id, source, sketch);

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '016_finer_sketches';
