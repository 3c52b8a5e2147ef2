"""Apply owner, row-level security and grants, in the transaction that holds the lock."""

from __future__ import annotations

import psycopg

from memory_plugin.installer import sources
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.failure import statement_failure
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.sources import Sources
from memory_plugin.installer.waiting import Watch, patiently

_WHAT = "sql/access.sql"


def apply(connection: Connection, settings: Settings, source: Sources, plan: Plan) -> list[str]:
    """Apply sql/access.sql; return a line for each thing that this role may not change and that stays as it is."""
    told: list[str] = []

    def tell(notice: psycopg.errors.Diagnostic) -> None:
        told.append("; ".join(filter(None, (notice.message_primary, notice.message_hint))))

    def work() -> None:
        told.clear()
        connection.execute("set local client_min_messages = notice")
        connection.execute(sources.render(source.access, plan.placeholders, _WHAT))

    connection.add_notice_handler(tell)
    try:
        with Watch(settings, connection.info.backend_pid) as watch:
            try:
                patiently(connection, settings, work)
            except psycopg.Error as error:
                raise statement_failure(error, settings, _WHAT, watch) from None
    finally:
        connection.remove_notice_handler(tell)
    return told
