"""Apply the functions, the SQL ones and those in PL/Python, in the transaction that holds the lock."""

from __future__ import annotations

import psycopg

from memory_plugin.installer import catalog, plpython, sources
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import PlpythonMissingError, one_line
from memory_plugin.installer.failure import statement_failure
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.sources import Sources
from memory_plugin.installer.waiting import Watch

FUNCTION_SETTINGS = "set local search_path = pg_catalog, pg_temp; set local check_function_bodies = off;"
_WORDS = {"apply": "applied", "keep": "kept", "drop": "dropped", "skip": "not applied"}


def apply(connection: Connection, settings: Settings, source: Sources, plan: Plan) -> int:
    """Drop what is retired, apply every SQL function, and return how many files there were."""
    files = [("sql/functions/_retired.sql", source.retired)] if source.retired.strip() else []
    files += [(f"sql/functions/{file.name}.sql", file.text) for file in source.functions]
    what = "the functions"
    with Watch(settings, connection.info.backend_pid) as watch:
        try:
            connection.execute(FUNCTION_SETTINGS)
            for what, text in files:
                connection.execute(sources.render(text, plan.placeholders, what))
        except psycopg.Error as error:
            raise statement_failure(error, settings, what, watch) from None
    return len(source.functions)


def apply_plpython(connection: Connection, settings: Settings, plan: Plan) -> tuple[bool, str]:
    """Apply, keep, drop or skip the PL/Python functions; return whether they are there, and a line that says why.

    In `auto` their failure is told, and is the installation's only where the store is set to redact.
    """
    decision, reason = plan.plpython, plan.plpython_reason
    if decision == "apply":
        try:
            with connection.transaction():
                _create(connection, plan)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            reason = one_line(error.diag.message_primary or str(error))
            if settings.plpython == "require":
                raise PlpythonMissingError(reason) from None
            # What cannot be applied cannot be called either.
            decision = "drop"
    if decision in ("drop", "skip") and connection.execute(catalog.REDACTS_ON_COMMIT).fetchone() == (True,):
        # Every commit would be refused from now on.
        raise PlpythonMissingError(
            f"redact_on_commit is on, and without PL/Python nothing can be redacted: {reason}",
            hint="or turn it off: select memory_plugin.configure(redact_on_commit => false)",
        )
    if decision == "drop":
        for (signature,) in connection.execute(catalog.PLPYTHON_SIGNATURES, (list(plpython.names()),)).fetchall():
            connection.execute(f"drop routine {signature}")
    return decision in ("apply", "keep"), f"PL/Python functions {_WORDS[decision]}: {reason}"


def _create(connection: Connection, plan: Plan) -> None:
    """Create the language and its functions."""
    connection.execute("create extension if not exists plpython3u")
    # A package that was removed after the extension was made shows only when the language is used.
    connection.execute("do 'pass' language plpython3u")
    for name in plpython.names():
        connection.execute(plpython.build(name, plan.placeholders))
