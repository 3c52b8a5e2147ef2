"""The provider of embeddings as an operator sees it: set it with a live check, look at it, try it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import (
    BadSettingError,
    DimensionsDifferError,
    MissingPrivilegeError,
    PlpythonMissingError,
    ProviderError,
)
from memory_plugin.installer.transfer import store

_STORE_DIMENSIONS = """
select a.atttypmod from pg_catalog.pg_attribute as a
where a.attrelid = 'memory_plugin.memory_records'::pg_catalog.regclass and a.attname = 'embedding'
"""


def configure(connection: Connection, wishes: dict[str, object], *, check: bool) -> dict[str, Any] | None:
    """Set the provider and, if asked, try it; return what the check found, None without one. Commits only what works.

    `wishes` are arguments of configure_embedding() by name; absent dimensions are the store's. Raises BadSettingError,
    DimensionsDifferError, PlpythonMissingError, MissingPrivilegeError, or ProviderError for a check that failed.
    """
    wishes = {"dimensions": store.number(connection, _STORE_DIMENSIONS), **wishes}
    arguments = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in wishes
    )
    try:
        connection.execute(sql.SQL("select memory_plugin.configure_embedding({})").format(arguments), wishes)
    except psycopg.Error as error:
        raise _refusal(error) from None
    found = _answer(connection) if check else None
    connection.commit()
    return found


def provider(connection: Connection) -> dict[str, Any] | None:
    """Return the configured provider without its key, and how embedding goes; None when there is none."""
    try:
        row = store.one(connection, "select memory_plugin.embedding_provider(), memory_plugin.embedding_status()")
    except psycopg.Error as error:
        raise _refusal(error) from None
    return None if row[0] is None else {**row[0], "status": row[1]}  # type: ignore[dict-item]


def check(connection: Connection) -> dict[str, Any]:
    """Ask the provider for one embedding; return {ok, took_ms}. Raises ProviderError for a wrong one."""
    try:
        return _answer(connection)
    except psycopg.Error as error:
        raise _refusal(error) from None


def _answer(connection: Connection) -> dict[str, Any]:
    (found,) = store.one(connection, "select memory_plugin.test_embedding()")
    if not isinstance(found, dict):
        raise TypeError("test_embedding() gave no object")
    if not found["ok"]:
        raise ProviderError(str(found["problem"]))
    return found


def _refusal(error: psycopg.Error) -> Exception:
    """Return our error for what the functions refuse; another error as it is."""
    text, hint = error.diag.message_primary or "", error.diag.message_hint
    if error.sqlstate == "MP001":
        return BadSettingError(text, hint=hint)
    if error.sqlstate == "MP002":
        return DimensionsDifferError(text, hint="leave out --dimensions: a store holds the vectors of one model")
    if error.sqlstate in ("0A000", "42883"):
        return PlpythonMissingError("the database cannot fetch embeddings itself", hint=hint)
    if error.sqlstate == "42501":
        return MissingPrivilegeError(text)
    return error
