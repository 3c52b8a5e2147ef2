"""The embedding provider as an operator sees it: set it after a live check, show it, test it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import psycopg
from psycopg import sql

from memory_plugin.installer import secret
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import (
    BadSettingError,
    ConflictError,
    DimensionsDifferError,
    MissingPrivilegeError,
    PlpythonMissingError,
    ProviderError,
)
from memory_plugin.installer.transfer import store

PLPYTHON_HINT = "install postgresql-plpython3-N, then run memory-plugin install as superuser"

_STORE_DIMENSIONS = """
select a.atttypmod from pg_catalog.pg_attribute as a
where a.attrelid = 'memory_plugin.memory_records'::pg_catalog.regclass and a.attname = 'embedding'
"""

# The model whose vectors the store holds, if it holds any.
_FORMER = """
select p.model from memory_plugin.embedding_provider as p
where p.slot = 'current' and exists (select from memory_plugin.memory_vectors)
"""

_PROVIDER = """
select memory_plugin.embedding_provider(), s.facts -> 'embedding', s.facts -> 'reembedding'
from memory_plugin.stats() as s (facts)
"""


def configure(
    connection: Connection, wishes: dict[str, object], *, check: bool, force: bool = False
) -> dict[str, Any] | None:
    """Set the provider and, if asked, try it first; return what the check found, None without one.

    `wishes` are arguments of configure_embedding() by name; absent dimensions are the store's. Commits. Raises
    BadSettingError, DimensionsDifferError, PlpythonMissingError, MissingPrivilegeError, ProviderError for a check that
    failed, or ConflictError for another model than that of the vectors which are there, unless `force`.
    """
    wishes = {"dimensions": store.number(connection, _STORE_DIMENSIONS), **wishes}
    found = None
    try:
        former = connection.execute(_FORMER).fetchone()
        if former is not None and former[0] != wishes["model"] and not force:
            raise ConflictError(
                f"memories are embedded with {former[0]}, and no other model's vectors compare with theirs",
                hint="memory-plugin reembed changes them too; --force where it is the same model by another name",
            )
        key = secret.send(connection, cast("str | None", wishes.pop("api_key", None)))
        if check:
            # Nothing is written, and so nothing is locked, while the provider is asked.
            values = {"p_slot": "current", **{f"p_{name}": value for name, value in wishes.items()}}
            wish = _call(sql.SQL("memory_plugin._embedding_wish({})"), values, "p_api_key", key)
            # By itself: where there is no PL/Python, there is nothing to try it with, and this says so.
            connection.execute(sql.SQL("select {} is null").format(wish), values)
            found = _good(connection.execute(sql.SQL("select memory_plugin._test_embedding({})").format(wish), values))
        stored = _call(sql.SQL("select memory_plugin.configure_embedding({})"), wishes, "api_key", key)
        connection.execute(stored, wishes)
    except psycopg.Error as error:
        raise _refusal(error) from None
    connection.commit()
    return found


def _call(function: sql.SQL, arguments: Iterable[str], of_key: str, key: sql.Composable) -> sql.Composed:
    """Return a call with the arguments by name, and with the key."""
    named = [sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments]
    named.append(sql.SQL("{} => {}").format(sql.Identifier(of_key), key))
    return function.format(sql.SQL(", ").join(named))


def provider(connection: Connection) -> dict[str, Any] | None:
    """Return the provider without its key, how embedding goes, and a change of the model; None if there is nothing."""
    try:
        row = store.one(connection, _PROVIDER)
    except psycopg.Error as error:
        raise _refusal(error) from None
    provider, status, change = cast("tuple[dict[str, Any] | None, ...]", row)
    found = {} if provider is None else {**provider, "status": status}
    return (found or None) if change is None else {**found, "reembedding": change}


def check(connection: Connection) -> dict[str, Any]:
    """Ask the provider for one embedding; return {ok, took_ms}. Raises ProviderError for a wrong one."""
    try:
        return _good(connection.execute("select memory_plugin.test_embedding()"))
    except psycopg.Error as error:
        raise _refusal(error) from None


def _good(cursor: psycopg.Cursor[Any]) -> dict[str, Any]:
    """Return what a test found; ProviderError for what is not good."""
    row = cursor.fetchone()
    found = None if row is None else row[0]
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
        # The server's own hint for a function that is not there speaks of types.
        return PlpythonMissingError("the database cannot fetch embeddings itself", hint=PLPYTHON_HINT)
    if error.sqlstate == "42501":
        return MissingPrivilegeError(text)
    return error
