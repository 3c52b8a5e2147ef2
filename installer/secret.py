"""Pass a key to the server so that no log setting reveals it."""

from __future__ import annotations

import re

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.transfer import store

_TABLE = "memory_plugin_key"


def send(connection: Connection, key: str | None) -> sql.Composable:
    """Return an expression that is the key, for statements of the transaction that the connection is in.

    Statements and their parameters are logged by log_statement, log_min_duration_statement and with an error; the data
    of a COPY is not. It needs a temporary table. Raises BadSettingError for what is no key, without showing it, and
    MissingPrivilegeError where the role may make no such table.
    """
    if key is None:
        return sql.SQL("null::text")
    # Before any of it is sent: an error in a COPY would show the line.
    if not re.fullmatch(r"[!-~]{1,4096}", key):
        raise BadSettingError("the key must be at most 4096 printable ASCII characters without a space")
    store.check_temporary(connection, "in which alone a key passes the server's log by")
    connection.execute(f"create temporary table {_TABLE} (api_key text) on commit drop".encode())
    with connection.cursor().copy(f"copy pg_temp.{_TABLE} from stdin".encode()) as copy:
        copy.write_row((key,))
    return sql.SQL(f"(select k.api_key from pg_temp.{_TABLE} as k)")  # noqa: S608
