"""Move what an earlier boot left in public into the store, all or nothing."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError, ConflictError, MissingPrivilegeError
from memory_plugin.installer.transfer import store

_TABLES = ("memory_namespaces", "memory_records")
# Column -> what stands for it where an earlier shape lacks it; None: it cannot be done without.
_NAMESPACE = {
    "name": None,
    "kind": None,
    "expires_at": "null::timestamptz",
    "metadata": "null::jsonb",
    "created_at": "now()",
}
_RECORD = {
    **dict.fromkeys(("namespace", "id", "content", "kind", "source")),
    "expires_at": "null::timestamptz",
    "propagation": "null::jsonb",
    "pin": "false",
    "created_at": "now()",
}
_WANTED = {"memory_namespaces": _NAMESPACE, "memory_records": {**_RECORD, "embedding": "null"}}
# Column -> the types that it may have; the first is the store's.
_TYPES = {
    **dict.fromkeys(("expires_at", "created_at"), ("timestamptz", "timestamp", "date")),
    **dict.fromkeys(("metadata", "propagation"), ("jsonb",)),
    "id": ("uuid",),
    "pin": ("bool",),
}
_TEXT = ("text", "varchar", "bpchar")
# A domain is what it is made of.
_COLUMNS = """
select a.attname::text, coalesce(b.typname, t.typname)::text, a.attgenerated <> ''
from pg_catalog.pg_attribute as a
inner join pg_catalog.pg_class as c on a.attrelid = c.oid
inner join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
inner join pg_catalog.pg_type as t on a.atttypid = t.oid
left join pg_catalog.pg_type as b on t.typbasetype = b.oid
where n.nspname = 'public' and c.relname = %s and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
"""
# As _check_time: an expiry that never comes is none.
_NEVER = "update pg_temp.{} set expires_at = null where expires_at = 'infinity'"
# Public's tables may have lost their keys: what would then be dropped as a duplicate is refused.
_REFUSE_NAMESPACES = """
update pg_temp.adopted_namespaces as p set refusal = coalesce(
    memory_plugin._namespace_refusal(p.name, p.kind, p.expires_at, p.metadata),
    memory_plugin._creation_refusal(p.created_at),
    case
        when p.name in (select d.name from pg_temp.adopted_namespaces as d group by 1 having pg_catalog.count(*) > 1)
            then 'it stands more than once in public'
    end
)
"""
_REFUSE_RECORDS = """
update pg_temp.adopted_records as p set
    pin = coalesce(p.pin, false),
    refusal = coalesce(
        memory_plugin._refusal(p.namespace, p.content, p.kind, p.source, p.expires_at, p.propagation, p.embedding),
        memory_plugin._creation_refusal(p.created_at),
        case
            when p.id is null then 'id is null'
            when (p.namespace, p.id) in (
                select d.namespace, d.id from pg_temp.adopted_records as d group by 1, 2 having pg_catalog.count(*) > 1
            ) then 'it stands more than once in public'
        end
    )
"""
_NAMESPACE_CONFLICTS = """
select 'namespace ' || coalesce(p.name, '(null)'),
    case when m.name is null then p.refusal
    else 'the store has it with another kind, expires_at or metadata' end as reason
from pg_temp.adopted_namespaces as p
left join memory_plugin.memory_namespaces as m
    on p.name = m.name and (m.expires_at is null or m.expires_at > pg_catalog.now())
where case when m.name is null then p.refusal is not null
    else (p.kind, p.expires_at, p.metadata) is distinct from (m.kind, m.expires_at, m.metadata) end
"""
_RECORD_CONFLICTS = """
select 'memory ' || coalesce(p.id::text, '(null)') || ' in ' || coalesce(p.namespace, '(null)'),
    case when m.id is null then p.refusal else 'the store has another memory under this id' end as reason
from pg_temp.adopted_records as p
left join memory_plugin.memory_records as m on p.namespace = m.namespace and p.id = m.id
    and (m.expires_at is null or m.expires_at > pg_catalog.now())
where case when m.id is null then p.refusal is not null
    else (p.content, p.kind, p.source, p.expires_at, p.propagation, p.pin, p.embedding is null)
        is distinct from (m.content, m.kind, m.source, m.expires_at, m.propagation, m.pin, m.embedding is null)
        or p.embedding operator({vector}.<>) m.embedding end
"""
_THERE = """
select pg_catalog.count(*) from pg_temp.adopted_records as p
inner join memory_plugin.memory_records as m on p.namespace = m.namespace and p.id = m.id
where m.expires_at is null or m.expires_at > pg_catalog.now()
"""
_NAMESPACES_THERE = """
select pg_catalog.count(*) from pg_temp.adopted_namespaces as p
inner join memory_plugin.memory_namespaces as m on p.name = m.name
where m.expires_at is null or m.expires_at > pg_catalog.now()
"""
# As everywhere, what has expired in the store is as if absent, and makes room.
_EXPIRED = (
    """
delete from memory_plugin.memory_namespaces as m
where m.expires_at <= pg_catalog.now() and m.name in (
    select name from pg_temp.adopted_namespaces union all select namespace from pg_temp.adopted_records
)
""",
    """
delete from memory_plugin.memory_records as m using pg_temp.adopted_records as p
where m.expires_at <= pg_catalog.now() and m.namespace = p.namespace and m.id = p.id
""",
)
_NAMESPACES = """
insert into memory_plugin.memory_namespaces (name, kind, expires_at, metadata, created_at)
select name, kind, expires_at, metadata, created_at from pg_temp.adopted_namespaces order by name
on conflict (name) do nothing
"""
_ORPHANS = """
insert into memory_plugin.memory_namespaces (name, kind)
select distinct namespace, memory_plugin._kind_of_namespace(namespace) from pg_temp.adopted_records order by 1
on conflict (name) do nothing
"""
_RECORDS = """
insert into memory_plugin.memory_records (
    namespace, id, content, kind, source, expires_at, propagation, pin, embedding, created_at
)
select
    namespace, id, content, kind, source, expires_at, propagation, pin,
    memory_plugin._check_embedding(embedding), created_at
from pg_temp.adopted_records order by namespace, id
on conflict (namespace, id) do nothing
"""


_Shape = dict[str, tuple[str, bool]]
"""Name -> type of a table's columns, and whether Postgres computes it."""


@dataclass(frozen=True)
class Adoption:
    """What was, or with a dry run would be, moved."""

    found: tuple[str, ...]
    """The tables there are in public."""
    namespaces: int = 0
    memories: int = 0
    already_there: int = 0
    """Memories that the store has just so; they only leave public."""
    conflicts: tuple[tuple[str, str], ...] = ()
    """Rows that stop the move, each with its reason; nothing is moved when there is one."""


def move(connection: Connection, vector: sql.Identifier, *, drop: bool, dry_run: bool) -> Adoption:
    """Move the rows within the caller's transaction; with conflicts or `dry_run` only tell.

    Raises BadSettingError when the tables have another shape, MissingPrivilegeError when this role does not see all of
    their rows, ConflictError when the store is written to meanwhile.
    """
    shapes = {table: _columns(connection, table) for table in _TABLES}
    found = tuple(table for table in _TABLES if shapes[table])
    if not found:
        return Adoption(found)
    if not dry_run:
        # Writers of the earlier boot wait, readers do not.
        tables = ", ".join(f"public.{table}" for table in found)
        connection.execute(f"lock table {tables} in share row exclusive mode")
    for table in found:
        _check_types(table, shapes[table])
        _check_every_row(connection, table)
    namespaces, memories = _take(connection, shapes, vector)
    conflicts = [column for table in found for column in _left_over(connection, table, shapes[table])]
    conflicts += connection.execute(
        sql.SQL(_NAMESPACE_CONFLICTS + " union all " + _RECORD_CONFLICTS + " order by 1").format(vector=vector)
    ).fetchall()
    if conflicts:
        return Adoption(found, namespaces, memories, conflicts=tuple((str(what), str(why)) for what, why in conflicts))
    there = store.number(connection, _THERE)
    if dry_run:
        return Adoption(found, namespaces, memories - there, there)
    named = store.number(connection, _NAMESPACES_THERE)
    for statement in _EXPIRED:
        connection.execute(statement)
    named += connection.execute(_NAMESPACES).rowcount
    connection.execute(_ORPHANS)
    moved = connection.execute(_RECORDS).rowcount
    if (named, there + moved) != (namespaces, memories):
        # What was inserted since the comparison is not public's row, and public's would now be deleted.
        told = "another session wrote the same namespaces or memories to the store at this moment"
        raise ConflictError(told, hint="run this again: it lists the rows that differ then")
    for table in reversed(found):
        connection.execute(f"delete from public.{table}")
    if drop:
        connection.execute(f"drop table {', '.join(f'public.{table}' for table in reversed(found))}")
    return Adoption(found, namespaces, moved, memories - moved)


def _columns(connection: Connection, table: str) -> _Shape:
    """Return a table's columns; none where there is no such table."""
    found = connection.execute(_COLUMNS, (table,)).fetchall()
    return {str(name): (str(kind), bool(generated)) for name, kind, generated in found}


def _check_types(table: str, shape: _Shape) -> None:
    """Refuse a column that is called as one of ours and is of another type."""
    for name in _WANTED[table]:
        wanted = ("vector",) if name == "embedding" else _TYPES.get(name, _TEXT)
        held = shape.get(name, (wanted[0], False))[0]
        if held not in wanted:
            raise BadSettingError(
                f"public.{table}.{name} is of type {held}, not {wanted[0]}",
                hint=f"run: alter table public.{table} alter {name} type {wanted[0]} using {name}::{wanted[0]}",
            )


def _check_every_row(connection: Connection, table: str) -> None:
    """Refuse where a policy may hide rows: they would be lost without a word."""
    if store.one(connection, "select pg_catalog.row_security_active(%s::regclass)", (f"public.{table}",))[0]:
        raise MissingPrivilegeError(
            f"row-level security may hide rows of public.{table} from this role",
            hint="connect as a superuser or a role with bypassrls, or have the table's owner run: "
            f"alter table public.{table} disable row level security",
        )


def _left_over(connection: Connection, table: str, shape: _Shape) -> list[tuple[object, ...]]:
    """Return the columns that the store does not have and that hold something, each as a conflict."""
    names = [name for name, (_, generated) in shape.items() if name not in _WANTED[table] and not generated]
    if not names:
        return []
    counts = sql.SQL(", ").join(sql.SQL("pg_catalog.count({})").format(sql.Identifier(name)) for name in names)
    held = store.numbers(connection, sql.SQL("select {} from public.{}").format(counts, sql.Identifier(table)))
    why = "it has a value in {} rows, and the store has no such column; copy elsewhere what you need, then drop it"
    return [
        (f"column {name} of public.{table}", why.format(count))
        for name, count in zip(names, held, strict=True)
        if count
    ]


def _take(connection: Connection, shapes: dict[str, _Shape], vector: sql.Identifier) -> tuple[int, int]:
    """Copy the rows into temporary tables of one shape; return how many namespaces and memories there are."""
    store.check_staging(connection)
    namespaces = _select("memory_namespaces", shapes["memory_namespaces"])
    connection.execute(f"create temporary table adopted_namespaces on commit drop as {namespaces}")
    records = _select("memory_records", shapes["memory_records"])
    connection.execute(
        sql.SQL(
            "create temporary table adopted_records on commit drop as select {}, embedding::{}.vector from ({}) as p"
        ).format(sql.SQL(", ").join(map(sql.Identifier, _RECORD)), vector, sql.SQL(records))
    )
    for table in ("adopted_namespaces", "adopted_records"):
        connection.execute(f"alter table pg_temp.{table} add column refusal text")
        connection.execute(_NEVER.format(table))
    connection.execute(_REFUSE_NAMESPACES)
    connection.execute(_REFUSE_RECORDS)
    connection.execute(
        "update pg_temp.adopted_records set content = memory_plugin._as_committed(content)"
        " where refusal is null and memory_plugin._redacts_on_commit()"
    )
    for table in ("adopted_namespaces", "adopted_records"):
        connection.execute(f"analyze pg_temp.{table}")
    return (
        store.number(connection, "select pg_catalog.count(*) from pg_temp.adopted_namespaces"),
        store.number(connection, "select pg_catalog.count(*) from pg_temp.adopted_records"),
    )


def _select(table: str, shape: _Shape) -> str:
    """Return the query of a table in the shape of ours; a table that is not there has no rows."""
    wanted = _WANTED[table]
    if not shape:
        columns = ", ".join(f"null::{_TYPES.get(name, _TEXT)[0]} as {name}" for name in wanted)
        return f"select {columns} where false"
    missing = [name for name, stand_in in wanted.items() if stand_in is None and name not in shape]
    if missing:
        told = f"public.{table} has no column {', '.join(missing)}"
        raise BadSettingError(told, hint="it is not a table of an earlier boot")
    columns = ", ".join(name if name in shape else f"{stand_in} as {name}" for name, stand_in in wanted.items())
    return f"select {columns} from public.{table}"
