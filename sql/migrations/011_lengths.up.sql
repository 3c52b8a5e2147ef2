-- memory-plugin: no-transaction
-- How long each memory is, in words, and when it expires: what a search by words needs of every live memory of its
-- namespaces. In a narrow table by itself this is read from the key's index, 140 memories a page; from the memories
-- themselves it would be a page a memory.

-- The functions as this migration needs them; those in force stand in sql/functions, applied after it.
create or replace function memory_plugin._lexical_length(p_words tsvector)
returns integer
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return coalesce(round(1e-20 / nullif(ts_rank('{1,1,1,1}', p_words, $t$' ' & '  '$t$, 2), 0)), 0);
end
$function$;

create or replace function memory_plugin._mirror_length()
returns trigger
language plpgsql volatile parallel unsafe
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if tg_op = 'TRUNCATE' then
        truncate memory_lengths;
        return null;
    end if;
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and (new.namespace, new.id) is distinct from (old.namespace, old.id) then
        delete from memory_lengths as l where l.namespace = old.namespace and l.id = old.id;
    end if;
    if tg_op <> 'DELETE' then
        insert into memory_lengths as l (namespace, id, expires_at, words)
        values (new.namespace, new.id, new.expires_at, _lexical_length(new.content_tsv))
        on conflict (namespace, id) do update set expires_at = excluded.expires_at, words = excluded.words;
    end if;
    return null;
end
$function$;

do $migration$
declare
    v_owner name;
begin
    if to_regclass('memory_plugin.memory_lengths') is not null then
        return;
    end if;
    create table memory_plugin.memory_lengths (
        expires_at timestamptz,
        id uuid not null,
        namespace text not null,
        words integer not null,
        primary key (namespace, id) include (expires_at, words)
    );
    -- As the memories themselves: to be done before the trigger writes here, since each of these locks the table.
    select r.rolname into v_owner
    from pg_class as c inner join pg_roles as r on c.relowner = r.oid
    where c.oid = 'memory_plugin.memory_records'::regclass;
    if v_owner <> current_user then
        execute format('alter table memory_plugin.memory_lengths owner to %I', v_owner);
    end if;
    execute format(
        'create policy memory_plugin_owner on memory_plugin.memory_lengths to %I using (true) with check (true)', v_owner
    );
    alter table memory_plugin.memory_lengths enable row level security, force row level security;
end
$migration$;

comment on table memory_plugin.memory_lengths is
    'How many words each memory has, for a search by words: kept by triggers of memory_records and never written by '
    'hand.';

-- The triggers' lock keeps writers waiting, and whoever waits for it does too: ask briefly, and again.
do $migration$
declare
    v_deadline constant timestamptz
        := clock_timestamp() + greatest(current_setting('lock_timeout')::interval, '1s');
    v_trigger record;
begin
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            for v_trigger in
                select t.name, t.events
                from (
                    values
                    ('memory_records_mirror_length', 'after insert or delete on memory_plugin.memory_records for each row'),
                    (
                        'memory_records_change_length',
                        'after update on memory_plugin.memory_records for each row when '
                        '((old.namespace, old.id, old.expires_at, old.content) '
                        'is distinct from (new.namespace, new.id, new.expires_at, new.content))'
                    ),
                    ('memory_records_empty_lengths', 'after truncate on memory_plugin.memory_records for each statement')
                ) as t (name, events)
                where not exists (
                    select from pg_trigger as h
                    where h.tgrelid = 'memory_plugin.memory_records'::regclass and h.tgname = t.name
                )
            loop
                execute format(
                    'create trigger %I %s execute function memory_plugin._mirror_length()', v_trigger.name, v_trigger.events
                );
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
end
$migration$;

-- Memories from before the triggers, a batch a transaction and in the order of the key, so that a namespace lies
-- together. Cut off, it starts over and passes quickly over what is there.
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
                select r.expires_at, r.id, r.namespace, r.content_tsv
                from memory_plugin.memory_records as r
                where (r.namespace, r.id) > (v_namespace, v_id)
                order by r.namespace, r.id
                limit 2000
                -- A memory that is deleted or changed meanwhile must not be counted as it was.
                for share
            ),

            counted as (
                insert into memory_plugin.memory_lengths (expires_at, id, namespace, words)
                select b.expires_at, b.id, b.namespace, memory_plugin._lexical_length(b.content_tsv)
                from batch as b
                where not exists (
                    select from memory_plugin.memory_lengths as l where l.namespace = b.namespace and l.id = b.id
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
            -- A writer holds one of these memories: let go of the others meanwhile.
            when lock_not_available or deadlock_detected then
                if clock_timestamp() > v_deadline then
                    raise;
                end if;
        end;
        commit;
    end loop;
end
$migration$;

-- For index-only scans.
vacuum (analyze) memory_plugin.memory_lengths;
