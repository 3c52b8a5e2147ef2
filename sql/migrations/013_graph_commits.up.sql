-- memory-plugin: no-transaction
-- How far a commit looks for the neighbours of its vector. Above 1,100 dimensions 80 of them instead of 100: a commit
-- takes a tenth less, and searches find the same (docs/search.md). Below, a commit is cheap enough, and in a namespace
-- of half a million memories a graph made with fewer loses rows. What is in the graph stays as it is.
--
-- A server may want the index for itself, which keeps whoever uses it waiting, and whoever waits for it does too: ask
-- briefly, and again.
do $migration$
declare
    v_deadline constant timestamptz
        := clock_timestamp() + greatest(current_setting('lock_timeout')::interval, '1s');
begin
    if @dimensions@ <= 1100 then
        return;
    end if;
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            alter index if exists memory_plugin.memory_vectors_embedding set (ef_construction = 80);
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
