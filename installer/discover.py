"""Look at a server and report what is there, as frozen facts; never writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

from memory_plugin.installer import catalog, waiting
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import MissingPrivilegeError

SCHEMA = "memory_plugin"
LEDGER = "schema_migrations"
TABLES = ("memory_namespaces", "memory_records")
COUNT_LIMIT = 100_000
COUNT_SECONDS = 2.0
_LEDGER_TYPES = {
    **dict.fromkeys(("name", "sha256", "program_version", "applied_by"), "text"),
    "applied_at": "timestamptz",
    "adopted": "bool",
}
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
    builtin: bool
    """The type is the server's own, and not another of that name."""
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
    indexes: tuple[str, ...] = ()
    """Every index in the schema, the invalid ones too."""
    vector_refused: tuple[tuple[str, str, str], ...] = ()
    """What of pgvector this role may not use: the privilege, the function or type, and that without its schema."""

    @property
    def major(self) -> int:
        """Return the server's major version."""
        return self.server_version // 10000

    def table(self, name: str) -> Table | None:
        """Return a relation of the schema, or None."""
        return next((table for table in self.tables if table.name == name), None)


def facts(connection: Connection) -> Facts:
    """Read the facts; the caller's transaction decides what moment they are of."""
    server = _one(connection, catalog.SERVER)
    schema = _one(connection, catalog.NAMESPACE)
    extensions = {row["name"]: _extension(row) for row in _all(connection, catalog.EXTENSIONS)}
    tables = tuple(_table(row) for row in _all(connection, catalog.TABLES))
    routines = _all(connection, catalog.FUNCTIONS)
    records = next((table for table in tables if table.name == "memory_records"), None)
    return Facts(
        **server,
        **schema,
        vector=extensions["vector"],
        plpython=extensions["plpython3u"],
        tables=tables,
        functions=tuple(row["name"] for row in routines),
        plpython_functions=tuple(row["name"] for row in routines if row["language"] == "plpython3u"),
        types=tuple(row["name"] for row in _all(connection, catalog.TYPES)),
        ledger=_ledger(connection, tables),
        dimensions=_one(connection, catalog.DIMENSIONS)["dimensions"],
        text_search_config=_config(records),
        text_search_configs=tuple(row["name"] for row in _all(connection, catalog.CONFIGS)),
        invalid_indexes=tuple(row["name"] for row in _all(connection, catalog.INVALID_INDEXES)),
        indexes=tuple(row["name"] for row in _all(connection, catalog.INDEXES)),
        vector_refused=tuple(
            (row["privilege"], row["name"], row["bare"])
            for row in _all(connection, catalog.VECTOR_RIGHTS.format(role="current_user"))
        ),
    )


def earlier_in_public(connection: Connection) -> tuple[tuple[str, int | None], ...]:
    """Return the tables an earlier boot left in `public`, each with its rows.

    Rows are counted up to COUNT_LIMIT + 1, and None where this role may not read them or they cannot be had soon.
    """
    return tuple(
        (row["name"], _count(connection, row["name"]) if row["readable"] else None)
        for row in _all(connection, catalog.PUBLIC)
    )


def _count(connection: Connection, table: str) -> int | None:
    """Count the rows of a table in `public` for a warning, which is worth no failure and no long wait."""
    try:
        # Rolled back, so that its settings end with it.
        with connection.transaction(force_rollback=True):
            connection.execute(f"set local lock_timeout = {round(waiting.BRIEF_S * 1000)}".encode())
            connection.execute(f"set local statement_timeout = {round(COUNT_SECONDS * 1000)}".encode())
            rows: int = _one(connection, catalog.COUNT.format(table=table, limit=COUNT_LIMIT + 1))["rows"]
    except psycopg.Error:
        return None
    return rows


def _ledger(connection: Connection, tables: tuple[Table, ...]) -> tuple[LedgerRow, ...] | None:
    """Read the ledger; raise MissingPrivilegeError where this role may not."""
    ledger = next((table for table in tables if table.name == LEDGER and table.kind == "r"), None)
    # Other programs call theirs the same. And to read a column of somebody's own type may be to run his functions.
    found = {} if ledger is None else {column.name: column.type for column in ledger.columns if column.builtin}
    if not found.items() >= _LEDGER_TYPES.items():
        return None
    if ledger is not None and not ledger.readable:
        raise MissingPrivilegeError(
            f"this role may not read memory_plugin.{LEDGER}",
            hint="connect as the store's owner; the sidecar of a member of memory_plugin_api, which installs nothing, "
            "starts with MEMORY_PLUGIN_SKIP_MIGRATE=1",
        )
    return tuple(LedgerRow(**row) for row in _all(connection, catalog.LEDGER))


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
