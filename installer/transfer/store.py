"""Open a store for moving rows: a suitable transaction, and checks that spare an operator half an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from memory_plugin.installer import waiting
from memory_plugin.installer.connect import Connection, open_connection
from memory_plugin.installer.errors import MissingPrivilegeError, VerifyFailedError, quoted
from memory_plugin.installer.settings import Settings

_LOOK = """
select
    n.oid is not null as found,
    pg_catalog.to_regclass('memory_plugin.memory_namespaces') is not null
    and pg_catalog.to_regclass('memory_plugin.memory_records') is not null
    and pg_catalog.to_regprocedure('memory_plugin._creation_refusal(timestamptz)') is not null as complete,
    (
        select pg_catalog.bool_and(pg_catalog.pg_has_role(c.relowner, 'usage'))
        from pg_catalog.pg_class as c
        where c.relnamespace = n.oid and c.relname in ('memory_namespaces', 'memory_records')
    ) as owned,
    (
        select v.nspname::text
        from pg_catalog.pg_extension as e inner join pg_catalog.pg_namespace as v on e.extnamespace = v.oid
        where e.extname = 'vector'
    ) as vector_schema,
    current_user::text as role
from (values (1)) as one (row)
left join pg_catalog.pg_namespace as n
    on n.nspname = 'memory_plugin' and pg_catalog.has_schema_privilege(n.oid, 'usage')
"""

_MAY_STAGE = """
select
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'temporary'),
    pg_catalog.format('grant temporary on database %I to %I', pg_catalog.current_database(), current_user)
"""


@contextmanager
def session(settings: Settings, purpose: str, *, autocommit: bool = False) -> Iterator[Connection]:
    """Open a connection; a statement that fails on it is one of our errors, and what was not committed is undone."""
    connection = open_connection(settings, purpose, autocommit=autocommit)
    try:
        with waiting.naming(connection, settings, purpose):
            yield connection
    finally:
        connection.close()


def begin(connection: Connection, settings: Settings) -> sql.Identifier:
    """Begin a transaction on a complete store of which this role is an owner; return the schema of pgvector.

    Row-level security would show any other role some of the rows, and an export of some of the rows is a lost backup.
    """
    waiting.prepare_transaction(connection, settings)
    connection.execute("set local timezone = 'UTC'")
    row = connection.execute(_LOOK).fetchone()
    if row is None:
        raise VerifyFailedError("the catalogue gave no answer")
    found, complete, owned, vector_schema, role = row
    if not found or not complete:
        raise VerifyFailedError(
            "there is no complete store in the schema memory_plugin that this role may use",
            hint="run memory-plugin install on this database first",
        )
    if not owned:
        raise MissingPrivilegeError(
            f"role {role} is not a member of the owner of the store's tables",
            hint=f"connect as one, or have a superuser run: grant memory_plugin_owner to {quoted(str(role))}",
        )
    return sql.Identifier(str(vector_schema))


def check_temporary(connection: Connection, why: str) -> None:
    """Raise MissingPrivilegeError with the statement that mends it where this role may make no temporary table."""
    may, grant = one(connection, _MAY_STAGE)
    if not may:
        raise MissingPrivilegeError(
            f"this role may make no temporary table, {why}", hint=f"have a database administrator run: {grant}"
        )


def check_staging(connection: Connection) -> None:
    """Raise MissingPrivilegeError where rows cannot be staged."""
    check_temporary(connection, "in which rows are checked before the store gets them")


def one(connection: Connection, query: str | sql.Composed, parameters: object = None) -> tuple[object, ...]:
    """Return the single row of a query."""
    row = connection.execute(query, parameters).fetchone()  # type: ignore[call-overload]
    if row is None:
        raise LookupError("an aggregate without a row")
    return tuple(row)


def numbers(connection: Connection, query: str | sql.Composed, parameters: object = None) -> tuple[int, ...]:
    """Return the single row of a query for numbers."""
    row = one(connection, query, parameters)
    found = tuple(value for value in row if isinstance(value, int))
    if len(found) < len(row):
        raise TypeError("a count that is no number")
    return found


def number(connection: Connection, query: str | sql.Composed, parameters: object = None) -> int:
    """Return the single number of a query."""
    return numbers(connection, query, parameters)[0]
