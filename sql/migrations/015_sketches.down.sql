-- Without sketches; those of the version that is installed next take their place, and save some work.
create or replace function memory_plugin._mirror_vector()
returns trigger
language plpgsql volatile parallel unsafe
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set lock_timeout = '1s'
set enable_seqscan = off
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
            _steered(new.embedding, new.namespace, array[new.kind], '{1,0.25}')
        )
        on conflict (namespace, id) do update
        set
            expires_at = excluded.expires_at,
            created_at = excluded.created_at,
            kind = excluded.kind,
            source = excluded.source,
            embedding = excluded.embedding;
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
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_vectors_spare;
        return null;
    end if;
    if tg_op = 'DELETE'
        or tg_op = 'UPDATE' and ((new.namespace, new.id) is distinct from (old.namespace, old.id) or new.embedding_spare is null)
    then
        delete from memory_vectors_spare as v where v.namespace = old.namespace and v.id = old.id;
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
    end if;
    return null;
end
$function$;

drop table if exists memory_plugin.memory_sketches_spare;
drop table memory_plugin.memory_sketches;

-- The next install may apply it again.
delete from memory_plugin.schema_migrations
where name = '015_sketches';
