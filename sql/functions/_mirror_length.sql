create or replace function memory_plugin._lexical_length(p_words tsvector)
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return @word_count(p_words)@;
end
$function$;

comment on function memory_plugin._lexical_length(tsvector) is
    'How many words a text has, stop words apart: what BM25 calls its length.';

create or replace function memory_plugin._mirror_length()
returns trigger
language plpgsql volatile parallel unsafe
-- Whoever may write memories, in whatever way, need not have any right on the lengths.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set lock_timeout = '1s'
-- A session keeps the plan that it made while the table was small; the key is right at every size.
set enable_seqscan = off
as $function$
begin
    if tg_op = 'INSERT' then
        -- A new memory meets no other, and every commit pays for this: no conflict is looked for, and no function called.
        insert into memory_lengths (namespace, id, expires_at, words)
        values (
            new.namespace, new.id, new.expires_at,
            @word_count(new.content_tsv)@
        );
        return null;
    end if;
    if tg_op = 'TRUNCATE' then
        truncate memory_lengths;
        return null;
    end if;
    if tg_op = 'DELETE' or (new.namespace, new.id) is distinct from (old.namespace, old.id) then
        delete from memory_lengths as l where l.namespace = old.namespace and l.id = old.id;
    end if;
    if tg_op = 'UPDATE' then
        insert into memory_lengths as l (namespace, id, expires_at, words)
        values (new.namespace, new.id, new.expires_at, _lexical_length(new.content_tsv))
        on conflict (namespace, id) do update set expires_at = excluded.expires_at, words = excluded.words;
    end if;
    return null;
end
$function$;

comment on function memory_plugin._mirror_length() is
    'Trigger of memory_records: keeps memory_lengths as the memories are. No error of its own.';
