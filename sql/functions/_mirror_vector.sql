create or replace function memory_plugin._mirror_vector()
returns trigger
language plpgsql volatile parallel unsafe
-- Whoever may write memories, in whatever way, need not have any right on the copy.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
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
            _steered(new.embedding, new.namespace, array[new.kind], '@stored_tail@')
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

comment on function memory_plugin._mirror_vector() is
    'Trigger of memory_records: does to memory_vectors and memory_sketches what was done to the memory. No error of '
    'its own.';
