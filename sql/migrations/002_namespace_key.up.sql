-- memory-plugin: no-transaction
-- An id belongs to its namespace: two namespaces may hold the same id, and neither can reach the other's row.
-- The index is built beside the writers; the swap is one short statement.
create unique index concurrently if not exists memory_records_namespace_id
on memory_plugin.memory_records (namespace, id);

do $migration$
declare
    v_constraint name;
begin
    select con.conname into v_constraint
    from pg_catalog.pg_constraint as con
    where con.conrelid = 'memory_plugin.memory_records'::regclass and con.contype = 'p';
    execute pg_catalog.format(
        'alter table memory_plugin.memory_records '
        'drop constraint %I, '
        'add constraint memory_records_pkey primary key using index memory_records_namespace_id',
        v_constraint
    );
end
$migration$;
