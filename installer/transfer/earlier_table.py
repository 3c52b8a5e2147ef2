"""The platform's earlier table `public.agent_memories` and the tree in `public.workspaces`: read, never written."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from memory_plugin.installer import waiting
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.transfer import store
from memory_plugin.installer.transfer.lineage import Lineage

TABLE = "public.agent_memories"
NEEDED = ("id", "workspace_id", "content", "scope", "created_at")

_COLUMNS = """
select a.attname::text, t.typname::text
from pg_catalog.pg_attribute as a inner join pg_catalog.pg_type as t on a.atttypid = t.oid
where a.attrelid = pg_catalog.to_regclass(%s) and a.attnum > 0 and not a.attisdropped
"""

Group = tuple[str | None, str | None]
"""A workspace and a scope."""


@dataclass(frozen=True)
class Earlier:
    """What is there to be read."""

    rows: int
    without_id: int
    """Rows whose id is null: no store can hold them."""
    embeddings: bool
    lineage: Lineage
    warnings: tuple[str, ...]


@contextmanager
def reading(connection: Connection, settings: Settings) -> Iterator[None]:
    """Open a transaction that only reads, and that sees every row or fails."""
    # The store's connection is open too: without this its session would take the error for its own.
    with waiting.naming(connection, settings, "reading the source"):
        connection.read_only = True
        waiting.prepare_transaction(connection, settings)
        connection.execute("set local timezone = 'UTC'")
        # A policy that hides rows would lose them without a word.
        connection.execute("set local row_security = off")
        yield
        connection.rollback()


def look(connection: Connection) -> Earlier:
    """Return the facts, or raise BadSettingError when the table is not there or not of the known shape."""
    columns = {str(name): str(kind) for name, kind in connection.execute(_COLUMNS, (TABLE,)).fetchall()}
    if not columns:
        raise BadSettingError(
            f"there is no table {TABLE} in this database", hint="name the database that has it with --source-url"
        )
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise BadSettingError(f"{TABLE} has no column {', '.join(missing)}")
    if columns["id"] != "uuid":
        raise BadSettingError(f"{TABLE}.id is of type {columns['id']}, not uuid")
    if columns.get("embedding", "vector") != "vector":
        raise BadSettingError(f"{TABLE}.embedding is of type {columns['embedding']}, not vector")
    parents, warnings = _parents(connection)
    return Earlier(
        rows=store.number(connection, f"select pg_catalog.count(*) from {TABLE}"),
        without_id=store.number(connection, f"select pg_catalog.count(*) from {TABLE} where id is null"),
        embeddings="embedding" in columns,
        lineage=Lineage(parents),
        warnings=warnings,
    )


def groups(connection: Connection) -> list[Group]:
    """Return every workspace and scope that occur together."""
    query = f"select workspace_id::text, scope::text from {TABLE} group by 1, 2 order by 1, 2"
    return [(row[0], row[1]) for row in connection.execute(query).fetchall()]  # type: ignore[misc]


def batch(
    connection: Connection,
    settings: Settings,
    earlier: Earlier,
    after: str | None,
    size: int,
    only: Sequence[Group] | None = None,
) -> Generator[memoryview | bytes | bytearray, None, None]:
    """Yield the binary COPY of the next rows by id, ties with the last one included."""
    statement = _batch(earlier, after, size, only)
    with reading(connection, settings), connection.cursor() as cursor, cursor.copy(statement) as rows:
        yield from rows


def _batch(earlier: Earlier, after: str | None, size: int, only: Sequence[Group] | None) -> sql.Composed:
    """Return the COPY of the next rows."""
    select = ["id", "workspace_id::text", "content::text", "scope::text", "created_at::timestamptz"]
    conditions = [sql.SQL("id is not null")]
    if after is not None:
        conditions.append(sql.SQL("id > {}::uuid").format(after))  # type: ignore[arg-type]
    if only is not None:
        pairs = sql.SQL(
            "exists (select from unnest({}::text[], {}::text[]) as g (w, s)"
            " where g.w is not distinct from workspace_id::text and g.s is not distinct from scope::text)"
        ).format([workspace for workspace, _ in only], [scope for _, scope in only])
        conditions.append(pairs)  # type: ignore[arg-type]
    return sql.SQL(
        "copy (select {} from {} where {} order by id fetch first {} rows with ties) to stdout (format binary)"
    ).format(
        sql.SQL(", ".join([*select, "embedding"] if earlier.embeddings else select)),
        sql.SQL(TABLE),
        sql.SQL(" and ").join(conditions),
        size,
    )


def _parents(connection: Connection) -> tuple[dict[str, str | None], tuple[str, ...]]:
    """Return workspace -> parent, and a warning where there is no tree to read."""
    if connection.execute(_COLUMNS, ("public.workspaces",)).fetchone() is None:
        return {}, ("there is no table public.workspaces: only LOCAL memories can be placed",)
    query = "select id::text, parent_id::text from public.workspaces"
    try:
        return {str(row[0]): row[1] for row in connection.execute(query).fetchall()}, ()  # type: ignore[misc]
    except psycopg.errors.UndefinedColumn as error:
        raise BadSettingError(f"public.workspaces: {error.diag.message_primary}") from None
