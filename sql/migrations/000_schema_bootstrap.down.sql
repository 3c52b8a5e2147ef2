-- Removes the store: every memory, every function, and pgvector where it lives in the schema. By hand only:
--     psql --no-psqlrc --set=ON_ERROR_STOP=1 --file=000_schema_bootstrap.down.sql DATABASE
-- Says what goes. Refuses, changing nothing, when something outside the schema would go with it, such as another
-- schema's vector column when pgvector lives in memory_plugin. To look first: begin, then \i this file, then rollback.
do $migration$
declare
    v_going text;
    v_outside text;
    v_rows bigint;
begin
    if pg_catalog.to_regnamespace('memory_plugin') is null then
        raise notice 'there is no schema memory_plugin';
        return;
    end if;

    -- What `cascade` would take: dependents of what goes, and owners of parts that go (a view of its rule).
    with recursive going as (
        select 'pg_catalog.pg_namespace'::regclass::oid as classid, n.oid as objid, 0 as objsubid
        from pg_catalog.pg_namespace as n
        where n.nspname = 'memory_plugin'
        union
        select step.classid, step.objid, step.objsubid
        from going as g
        cross join lateral (
            select d.classid, d.objid, d.objsubid
            from pg_catalog.pg_depend as d
            where
                d.refclassid = g.classid and d.refobjid = g.objid
                and (g.objsubid = 0 or d.refobjsubid = g.objsubid)
            union all
            select d.refclassid, d.refobjid, d.refobjsubid
            from pg_catalog.pg_depend as d
            where d.classid = g.classid and d.objid = g.objid and d.deptype in ('i', 'e') and g.objsubid = 0
        ) as step
    ),

    named as (
        select distinct
            o.type, o.schema, o.identity,
            -- What goes with its owner (the type of a view, the members of an extension) is told as the owner.
            not exists (
                select from pg_catalog.pg_depend as d
                where d.classid = g.classid and d.objid = g.objid and g.objsubid = 0 and d.deptype in ('i', 'e')
            )
            and case
                when o.schema is not null then o.schema not in ('memory_plugin', 'pg_toast')
                when o.type = 'schema' then o.identity <> 'memory_plugin'
                when o.type = 'extension' then o.identity <> 'vector'
                -- A default, a trigger, a policy, a cast, a table's place in a publication: in no schema of its own.
                -- It is ours where it belongs to something of ours and to nothing else.
                else (
                    select pg_catalog.bool_and(
                        case p.type when 'schema' then p.identity else p.schema end is not distinct from 'memory_plugin'
                    )
                    from pg_catalog.pg_depend as d
                    cross join lateral pg_catalog.pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) as p
                    where d.classid = g.classid and d.objid = g.objid and d.deptype = 'a'
                ) is not true
            end as outside
        from going as g
        cross join lateral pg_catalog.pg_identify_object(g.classid, g.objid, g.objsubid) as o
    )

    select
        pg_catalog.string_agg(pg_catalog.format('%s %s', type, identity), ', ' order by type, identity)
        filter (where (type = 'extension' and not outside) or (schema = 'memory_plugin' and type in ('table', 'view', 'materialized view'))),
        pg_catalog.string_agg(pg_catalog.format('%s %s', type, identity), ', ' order by type, identity)
        filter (where outside)
    into v_going, v_outside
    from named;

    if v_outside is not null then
        raise exception using
            errcode = 'dependent_objects_still_exist',
            message = 'dropping the schema memory_plugin would also drop: ' || v_outside,
            hint = 'Nothing was dropped. Where they need pgvector only: alter extension vector set schema public; '
                'then run this again.';
    end if;

    raise notice 'dropping the schema memory_plugin, with: %', v_going;
    if pg_catalog.to_regclass('memory_plugin.memory_records') is not null then
        execute 'select pg_catalog.count(*) from memory_plugin.memory_records' into v_rows;
        raise notice 'and with % memories', v_rows;
    end if;
    drop schema memory_plugin cascade;
end
$migration$;
