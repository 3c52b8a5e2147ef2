"""Look at a server and tell what is there, as frozen facts; nothing here writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from memory_plugin.installer.connect import Connection

SCHEMA = "memory_plugin"
LEDGER = "schema_migrations"
TABLES = ("memory_namespaces", "memory_records")
COUNT_LIMIT = 100_000
_CONFIG = re.compile(r"to_tsvector\('(?P<name>(?:[^']|'')+)'::(?:pg_catalog\.)?regconfig")


@dataclass(frozen=True)
class Extension:
    """One extension on this server: what could be created, what is there, what this role may do."""

    name: str
    available: str | None = None
    """The version that `create extension` would make."""
    installed: str | None = None
    schema: str | None = None
    """Where it is, quoted as an identifier."""
    usable: bool = False
    """This role may use the schema it is in."""
    creatable: bool = False
    """This role may create it, as far as the catalogue tells."""


@dataclass(frozen=True)
class LedgerRow:
    """One migration that the database says it has."""

    name: str
    sha256: str
    program_version: str
    applied_at: str
    applied_by: str
    adopted: bool


@dataclass(frozen=True)
class Column:
    """One column as the catalogue has it."""

    name: str
    type: str
    not_null: bool
    generated: str | None
    """The expression of a stored generated column."""


@dataclass(frozen=True)
class Table:
    """One relation in the schema memory_plugin."""

    name: str
    kind: str
    owned: bool
    readable: bool
    columns: tuple[Column, ...] = ()
    primary_key: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    """The tables its foreign keys point at, qualified."""

    def column(self, name: str) -> Column | None:
        """Return a column, or None."""
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True)
class Facts:
    """Everything a plan needs to know of a database."""

    server_version: int
    """As a number: 150020 is 15.20."""
    server_version_text: str
    database: str
    role: str
    superuser: bool
    in_recovery: bool
    encoding: str
    can_create_schema: bool
    schema_exists: bool
    schema_usable: bool
    can_create_in_schema: bool
    vector: Extension
    plpython: Extension
    tables: tuple[Table, ...]
    functions: tuple[str, ...]
    """Names of the functions in the schema, extension members left out."""
    plpython_functions: tuple[str, ...]
    types: tuple[str, ...]
    """Free-standing types in the schema, extension members left out."""
    ledger: tuple[LedgerRow, ...] | None
    """None when there is no ledger."""
    dimensions: int | None
    """Of the column embedding; -1 when it has none fixed; None when there is no such column."""
    text_search_config: str | None
    """Of the generated column content_tsv."""
    text_search_configs: tuple[str, ...]
    """Every configuration there is: bare names for pg_catalog's, qualified for others."""
    invalid_indexes: tuple[str, ...]

    @property
    def major(self) -> int:
        """Return the server's major version."""
        return self.server_version // 10000

    def table(self, name: str) -> Table | None:
        """Return a relation of the schema, or None."""
        return next((table for table in self.tables if table.name == name), None)


def facts(connection: Connection) -> Facts:
    """Read the facts; the caller's transaction decides what moment they are of."""
    server = _one(connection, _SERVER)
    schema = _one(connection, _NAMESPACE)
    extensions = {row["name"]: _extension(row) for row in _all(connection, _EXTENSIONS)}
    tables = tuple(_table(row) for row in _all(connection, _TABLES))
    routines = _all(connection, _FUNCTIONS)
    records = next((table for table in tables if table.name == "memory_records"), None)
    return Facts(
        **server,
        **schema,
        vector=extensions["vector"],
        plpython=extensions["plpython3u"],
        tables=tables,
        functions=tuple(row["name"] for row in routines),
        plpython_functions=tuple(row["name"] for row in routines if row["language"] == "plpython3u"),
        types=tuple(row["name"] for row in _all(connection, _TYPES)),
        ledger=_ledger(connection, tables),
        dimensions=_one(connection, _DIMENSIONS)["dimensions"],
        text_search_config=_config(records),
        text_search_configs=tuple(row["name"] for row in _all(connection, _CONFIGS)),
        invalid_indexes=tuple(row["name"] for row in _all(connection, INVALID_INDEXES)),
    )


def earlier_in_public(connection: Connection) -> tuple[tuple[str, int | None], ...]:
    """Return the tables an earlier boot left in `public`, each with its rows.

    Rows are counted up to COUNT_LIMIT + 1, and None where this role may not read them.
    """
    found: list[tuple[str, int | None]] = []
    for row in _all(connection, _PUBLIC):
        rows: int | None = None
        if row["readable"]:
            counted = f'select count(*) as rows from (select from public."{row["name"]}" limit {COUNT_LIMIT + 1}) as some'
            rows = _one(connection, counted)["rows"]
        found.append((row["name"], rows))
    return tuple(found)


def _ledger(connection: Connection, tables: tuple[Table, ...]) -> tuple[LedgerRow, ...] | None:
    """Read the ledger; a role that may not is told so by the server (42501)."""
    if not any(table.name == LEDGER for table in tables):
        return None
    return tuple(LedgerRow(**row) for row in _all(connection, _LEDGER))


def _config(records: Table | None) -> str | None:
    """Return the text search configuration that the generated column was made with."""
    column = records.column("content_tsv") if records is not None else None
    match = _CONFIG.search(column.generated or "") if column is not None else None
    return match["name"].replace("''", "'").removeprefix("pg_catalog.") if match else None


def _extension(row: dict[str, Any]) -> Extension:
    """Tell what may be done with an extension."""
    return Extension(
        name=row["name"],
        available=row["available"],
        installed=row["installed"],
        schema=row["schema"],
        usable=bool(row["usable"]),
        creatable=bool(row["creatable"]),
    )


def _table(row: dict[str, Any]) -> Table:
    """Build a table from its row and the JSON of its columns."""
    return Table(
        name=row["name"],
        kind=row["kind"],
        owned=row["owned"],
        readable=row["readable"],
        columns=tuple(Column(**column) for column in row["columns"] or ()),
        primary_key=tuple(row["primary_key"] or ()),
        references=tuple(row["references"] or ()),
    )


def _all(connection: Connection, query: str) -> list[dict[str, Any]]:
    """Return the rows of a query as dictionaries."""
    cursor = connection.execute(query)
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _one(connection: Connection, query: str) -> dict[str, Any]:
    """Return the single row of a query."""
    return _all(connection, query)[0]


_SERVER = """
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

_NAMESPACE = """
select
    n.oid is not null as schema_exists,
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'usage'), false) as schema_usable,
    coalesce(pg_catalog.has_schema_privilege(n.oid, 'create'), false) as can_create_in_schema
from (values (1)) as one (row)
left join pg_catalog.pg_namespace as n on n.nspname = 'memory_plugin'
"""

_EXTENSIONS = """
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

_TABLES = """
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

_FUNCTIONS = """
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
_TYPES = """
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

_LEDGER = """
select name, sha256, program_version, applied_at::text as applied_at, applied_by, adopted
from memory_plugin.schema_migrations
order by name collate "C"
"""

_DIMENSIONS = """
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

_CONFIGS = """
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

_PUBLIC = """
select c.relname::text as name, pg_catalog.has_table_privilege(c.oid, 'select') as readable
from pg_catalog.pg_class as c
inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relname in ('memory_namespaces', 'memory_records') and c.relkind in ('r', 'p')
order by c.relname
"""
