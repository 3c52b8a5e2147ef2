"""The system catalogue queries of discovery and verification; all of them only read."""

from __future__ import annotations

SERVER = """
select
    pg_catalog.current_setting('server_version_num')::int as server_version,
    pg_catalog.current_setting('server_version') as server_version_text,
    pg_catalog.current_database()::text as database,
    current_user::text as role,
    (select rolsuper from pg_catalog.pg_roles where rolname = current_user) as superuser,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.current_setting('server_encoding') as encoding,
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create') as can_create_schema
"""

NAMESPACE = """
select
    n.oid is not null as schema_exists,
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false) as schema_usable,
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'create'), false) as can_create_in_schema
from (values (1)) as one (row)
left join pg_catalog.pg_namespace as n on n.nspname = 'memory_plugin'
"""

EXTENSIONS = """
select
    wanted.name,
    available.default_version as available,
    e.extversion as installed,
    pg_catalog.quote_ident(n.nspname) as schema,
    pg_catalog.has_schema_privilege(n.oid, 'usage') as usable,
    (select rolsuper from pg_catalog.pg_roles where rolname = current_user)
    or not version.superuser
    or (version.trusted and pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create')) as creatable
from (values ('vector'), ('plpython3u')) as wanted (name)
left join pg_catalog.pg_available_extensions as available on available.name = wanted.name
left join pg_catalog.pg_available_extension_versions as version
    on version.name = available.name and version.version = available.default_version
left join pg_catalog.pg_extension as e on e.extname = wanted.name
left join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
"""

# What of vector {role} may not use, with its schema and without. Rights that nobody has changed are null, and public
# has them. Its members come first: else every function of the database is looked at anew for each of them.
VECTOR_RIGHTS = """
with members as materialized (
    select d.classid, d.objid, pg_catalog.quote_ident(n.nspname) || '.' as schema
    from pg_catalog.pg_extension as e
    inner join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
    inner join pg_catalog.pg_depend as d
        on d.refclassid = 'pg_catalog.pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    where e.extname = 'vector'
)
select refused.privilege, refused.name, pg_catalog.replace(refused.name, refused.schema, '') as bare
from (
    select 'execute on routine' as privilege, p.oid::regprocedure::text as name, m.schema
    from members as m
    inner join pg_catalog.pg_proc as p on m.classid = 'pg_catalog.pg_proc'::regclass and p.oid = m.objid
    where p.proacl is not null and not pg_catalog.has_function_privilege({role}, p.oid, 'execute')
    union all
    select 'usage on type', t.oid::regtype::text, m.schema
    from members as m
    inner join pg_catalog.pg_type as t on m.classid = 'pg_catalog.pg_type'::regclass and t.oid = m.objid
    where t.typacl is not null and not pg_catalog.has_type_privilege({role}, t.oid, 'usage')
) as refused
order by refused.privilege desc, refused.name
"""

TABLES = """
select
    c.relname::text as name,
    c.relkind::text as kind,
    pg_catalog.pg_has_role(c.relowner, 'usage') as owned,
    pg_catalog.has_table_privilege(c.oid, 'select') as readable,
    case when c.relkind in ('r', 'p') then (
        select pg_catalog.json_agg(
            pg_catalog.json_build_object(
                'name', a.attname,
                'type', t.typname,
                'builtin', t.typnamespace = 'pg_catalog'::regnamespace,
                'not_null', a.attnotnull,
                'generated', case when a.attgenerated <> '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end
            )
            order by a.attnum
        )
        from pg_catalog.pg_attribute as a
        inner join pg_catalog.pg_type as t on t.oid = a.atttypid
        left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    ) end as columns,
    (
        select pg_catalog.array_agg(a.attname::text order by k.position)
        from pg_catalog.pg_constraint as con
        cross join pg_catalog.unnest(con.conkey) with ordinality as k (attnum, position)
        inner join pg_catalog.pg_attribute as a on a.attrelid = con.conrelid and a.attnum = k.attnum
        where con.conrelid = c.oid and con.contype = 'p'
    ) as primary_key,
    (
        select pg_catalog.array_agg(distinct fn.nspname || '.' || f.relname)
        from pg_catalog.pg_constraint as con
        inner join pg_catalog.pg_class as f on f.oid = con.confrelid
        inner join pg_catalog.pg_namespace as fn on fn.oid = f.relnamespace
        where con.conrelid = c.oid and con.contype = 'f'
    ) as references
from pg_catalog.pg_class as c
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where
    n.nspname = 'memory_plugin' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    and not exists (
        select from pg_catalog.pg_depend as dep
        where dep.classid = 'pg_catalog.pg_class'::regclass and dep.objid = c.oid and dep.deptype in ('e', 'i')
    )
order by c.relname
"""

FUNCTIONS = """
select p.proname::text as name, l.lanname::text as language
from pg_catalog.pg_proc as p
inner join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
inner join pg_catalog.pg_language as l on l.oid = p.prolang
where
    n.nspname = 'memory_plugin'
    and not exists (
        select from pg_catalog.pg_depend as dep
        where dep.classid = 'pg_catalog.pg_proc'::regclass and dep.objid = p.oid and dep.deptype = 'e'
    )
order by p.proname
"""

# A composite type made by `create type` has a relation of kind c; a table's row type has the table.
TYPES = """
select t.typname::text as name
from pg_catalog.pg_type as t
inner join pg_catalog.pg_namespace as n on n.oid = t.typnamespace
left join pg_catalog.pg_class as c on c.oid = t.typrelid
where
    n.nspname = 'memory_plugin' and (c.relkind = 'c' or t.typtype in ('e', 'd', 'r'))
    and not exists (
        select from pg_catalog.pg_depend as dep
        where dep.classid = 'pg_catalog.pg_type'::regclass and dep.objid = t.oid and dep.deptype = 'e'
    )
order by t.typname
"""

LEDGER = """
select name, sha256, program_version, applied_at::text as applied_at, applied_by, adopted
from only memory_plugin.schema_migrations
order by name collate "C"
"""

DIMENSIONS = """
select (
    select a.atttypmod
    from pg_catalog.pg_attribute as a
    inner join pg_catalog.pg_class as c on c.oid = a.attrelid
    inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    inner join pg_catalog.pg_type as t on t.oid = a.atttypid
    where
        n.nspname = 'memory_plugin' and c.relname = 'memory_records' and a.attname = 'embedding'
        and not a.attisdropped and t.typname = 'vector'
) as dimensions
"""

CONFIGS = """
select case when n.nspname = 'pg_catalog' then c.cfgname::text else n.nspname || '.' || c.cfgname end as name
from pg_catalog.pg_ts_config as c
inner join pg_catalog.pg_namespace as n on n.oid = c.cfgnamespace
order by 1
"""

INVALID_INDEXES = """
select c.relname::text as name
from pg_catalog.pg_index as i
inner join pg_catalog.pg_class as c on c.oid = i.indexrelid
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = 'memory_plugin' and not i.indisvalid
order by c.relname
"""

COUNT = "select pg_catalog.count(*) as rows from (select from public.{table} limit {limit}) as counted"

PUBLIC = """
select
    c.relname::text as name,
    pg_catalog.has_table_privilege(c.oid, 'select') and pg_catalog.has_schema_privilege(n.oid, 'usage') as readable
from pg_catalog.pg_class as c
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relname in ('memory_namespaces', 'memory_records') and c.relkind in ('r', 'p')
order by c.relname
"""

ROUTINES = """
select
    p.proname, p.oid::regprocedure::text, p.prosrc,
    (
        select pg_catalog.substr(setting, pg_catalog.length('search_path=') + 1)
        from pg_catalog.unnest(p.proconfig) as setting
        where setting like 'search\\_path=%'
    ),
    case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end
from pg_catalog.pg_proc as p
inner join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where
    n.nspname = 'memory_plugin'
    and not exists (
        select from pg_catalog.pg_depend as dep
        where dep.classid = 'pg_catalog.pg_proc'::regclass and dep.objid = p.oid and dep.deptype = 'e'
    )
"""

INDEXES = """
select c.relname::text as name
from pg_catalog.pg_class as c
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = 'memory_plugin' and c.relkind in ('i', 'I')
order by c.relname
"""

# A disabled trigger is as good as none.
TRIGGERS = """
select t.tgname
from pg_catalog.pg_trigger as t
inner join pg_catalog.pg_class as c on c.oid = t.tgrelid
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = 'memory_plugin' and not t.tgisinternal and t.tgenabled in ('O', 'A')
"""

REDACTS_ON_COMMIT = "select memory_plugin._redacts_on_commit()"
PLPYTHON_SIGNATURES = """
select p.oid::regprocedure::text
from pg_catalog.pg_proc as p
inner join pg_catalog.pg_language as l on l.oid = p.prolang
where
    p.pronamespace = 'memory_plugin'::regnamespace and l.lanname = 'plpython3u' and p.proname = any(%s)
"""
