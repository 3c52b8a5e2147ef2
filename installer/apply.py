"""Carry out a plan: one migration a transaction, the ledger row in it, all under the installer's lock."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg

from memory_plugin import __version__
from memory_plugin.installer import (
    access,
    catalog,
    discover,
    foreign_code,
    functions,
    inventory,
    plpython,
    sources,
    statements,
    waiting,
)
from memory_plugin.installer import plan as planning
from memory_plugin.installer.connect import Connection, open_connection, server_error, set_back
from memory_plugin.installer.errors import ExtensionForbiddenError, InstallError, VectorMissingError, one_line
from memory_plugin.installer.failure import statement_failure
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.sources import Migration, Sources

Report = Callable[[str], None]

CREATE_LEDGER = """
create table if not exists memory_plugin.schema_migrations (
    name text primary key,
    sha256 text not null,
    program_version text not null,
    applied_at timestamptz not null default pg_catalog.now(),
    applied_by text not null default current_user,
    adopted boolean not null default false
);
"""
COMMENT_LEDGER = (
    "comment on table memory_plugin.schema_migrations is "
    "'The migrations this database has: which file (sha256), by which program, when, by whom.';"
)
CREATE_VECTOR = "create extension if not exists vector with schema {schema};"
_CONCURRENT_INDEX = re.compile(
    r"create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?\"?(?P<name>[a-z0-9_]+)\"?\s+on\b",
    re.IGNORECASE,
)
# What no transaction may hold, and what is brief and patient in its own way. An operator's statements may be any.
_BY_ITSELF = re.compile(r"\b(?:concurrently|vacuum|lock_timeout)\b", re.IGNORECASE)


@dataclass
class Outcome:
    """What was done, as it is being done."""

    applied: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    functions: int = 0
    plpython: bool = False
    notes: list[str] = field(default_factory=list)


class Apply:
    """One installation on one connection."""

    def __init__(self, connection: Connection, settings: Settings, source: Sources, report: Report) -> None:
        """Take an open connection that is in no transaction."""
        self._connection = connection
        self._settings = settings
        self._source = source
        self._report = report
        self._plpython_names = plpython.names()
        self.outcome = Outcome()

    def run(self) -> Plan:
        """Bring the database to the wanted state, one step a transaction; return the plan of the last step.

        Every step looks again, under the lock: whatever a rival has done in between is seen and not done twice.
        """
        while True:
            with self._step("looking at the database"):
                waiting.begin_locked(self._connection, self._settings)
                plan = self._plan()
                if plan.adopt:
                    self._adopt(plan)
                    continue
                if not plan.run:
                    self.outcome.functions = functions.apply(self._connection, self._settings, self._source, plan)
                    self._report(f"applied the functions ({self.outcome.functions} files)")
                    self.outcome.plpython, line = functions.apply_plpython(self._connection, self._settings, plan)
                    for note in (line, *access.apply(self._connection, self._settings, self._source, plan)):
                        self._report(note)
                        self.outcome.notes.append(note)
                    self._connection.commit()
                    break
                migration = plan.run[0]
                if migration.transactional:
                    self._transactional(migration, plan)
                    continue
            self._no_transaction(migration, plan)
        for name in plan.indexes:
            self._build_again(name, plan)
        return plan

    def _plan(self) -> Plan:
        """Return the plan for the database as it is now."""
        with waiting.naming(self._connection, self._settings, "looking at the database"):
            facts = discover.facts(self._connection)
            plan = planning.make(facts, self._source, self._settings, self._plpython_names)
            if not (self.outcome.adopted or self.outcome.applied):
                # Later on, what is there is what the installation has made.
                foreign_code.refuse(self._connection, facts, self._source, plan)
        return plan

    def _adopt(self, plan: Plan) -> None:
        """Record what an earlier program did, changing none of it.

        The bootstrap is run all the same: it makes only what is missing, which is the schema's comment.
        """
        for migration in plan.adopt:
            if migration.name == planning.BOOTSTRAP:
                self._connection.execute(sources.render(migration.text, plan.placeholders, migration.name))
        self._connection.execute(CREATE_LEDGER + COMMENT_LEDGER)
        for migration in plan.adopt:
            self._record(migration, adopted=True)
        self._connection.commit()
        for migration in plan.adopt:
            self.outcome.adopted.append(migration.name)
            self._report(f"adopted {migration.name}: its tables are there from an earlier boot")

    def _transactional(self, migration: Migration, plan: Plan) -> None:
        """Run one migration and its ledger row in the transaction that holds the lock."""
        began = time.monotonic()
        text = sources.render(migration.text, plan.placeholders, migration.name)
        if migration.name == planning.FIRST_SHAPE and plan.create_vector:
            self._create_vector(plan)
        with waiting.Watch(self._settings, self._connection.info.backend_pid) as watch, self._failing(migration, watch):
            self._search_path(self._connection, migration, plan)
            waiting.patiently(self._connection, self._settings, partial(self._connection.execute, text))
            self._connection.execute("set local search_path = pg_catalog, pg_temp")
        if migration.name == planning.BOOTSTRAP:
            self._connection.execute(CREATE_LEDGER + COMMENT_LEDGER)
        self._record(migration)
        self._connection.commit()
        self._applied(migration, began)

    def _no_transaction(self, migration: Migration, plan: Plan) -> None:
        """Run one migration statement by statement on a second connection, while the first holds the lock.

        The holder's transaction only looks at the ledger before: idle, it keeps no lock on our tables and no snapshot,
        so `create index concurrently` does not wait for it. The look must be the simple protocol's, that is without
        parameters: an unnamed portal would keep its snapshot until the next statement.
        """
        began = time.monotonic()
        with self._step(f"applying {migration.name}"):
            waiting.begin_locked(self._connection, self._settings)
            names = self._connection.execute("select name from memory_plugin.schema_migrations").fetchall()
            if (migration.name,) in names:
                self._connection.rollback()
                return
            self._statements(migration, plan)
            self._record(migration)
            self._connection.commit()
        self._applied(migration, began)

    def _statements(self, migration: Migration, plan: Plan) -> None:
        """Run a migration's statements on a connection of their own."""
        with closing(open_connection(self._settings, "install", autocommit=True)) as worker:
            self._each(worker, migration, plan)

    def _each(self, worker: Connection, migration: Migration, plan: Plan) -> None:
        """Run a migration's statements, each by itself, after clearing away what a killed run left."""
        text = sources.render(migration.text, plan.placeholders, migration.name)
        milliseconds = round(self._settings.lock_timeout_s * 1000)
        watching = waiting.Watch(
            self._settings, worker.info.backend_pid, lambda line: self._report(f"{migration.name}: {line}")
        )
        session = waiting.session_settings(worker)
        restored = set_back(worker, ("lock_timeout", *session, "search_path"))
        with watching as watch, self._failing(migration, watch), restored:
            for name, value in {"lock_timeout": milliseconds, **session}.items():
                worker.execute(f"set {name} = {value}")
            self._search_path(worker, migration, plan)
            for name in self._invalid(worker, text):
                worker.execute(f'drop index concurrently if exists memory_plugin."{name}"')
                self._report(f"dropped the unfinished index {name}")
            for statement in statements.split(text):
                if migration.extra or _BY_ITSELF.search(statements.without_comments(statement)):
                    worker.execute(statement)
                else:
                    waiting.patiently(worker, self._settings, partial(worker.execute, statement))

    @staticmethod
    def _invalid(worker: Connection, text: str) -> list[str]:
        """Return the indexes that the text builds concurrently and that are there, unfinished."""
        names = {match["name"].lower() for match in _CONCURRENT_INDEX.finditer(statements.without_comments(text))}
        rows = worker.execute(catalog.INVALID_INDEXES).fetchall()
        return sorted(name for (name,) in rows if isinstance(name, str) and name in names)

    @staticmethod
    def _search_path(connection: Connection, migration: Migration, plan: Plan) -> None:
        """Set the path that a migration runs with: ours qualify every name, an operator's may lean on our schema."""
        path = f"memory_plugin, {plan.vector_schema}, pg_temp" if migration.extra else "pg_catalog, pg_temp"
        connection.execute(f"set {'session' if connection.autocommit else 'local'} search_path = {path}")

    def _build_again(self, name: str, plan: Plan) -> None:
        """Build an index that is missing or unfinished; where that fails it is told, as the store serves without."""
        began = time.monotonic()
        try:
            with self._step(f"building the index {name} again"):
                waiting.begin_locked(self._connection, self._settings)
                self._statements(inventory.making(self._source, name), plan)
            note = f"built the index {name} again ({time.monotonic() - began:.2f} s)"
        except InstallError as error:
            note = f"the index {name} could not be built again: {error.detail or error.message}"
        self._report(note)
        self.outcome.notes.append(note)

    def _record(self, migration: Migration, *, adopted: bool = False) -> None:
        """Write the ledger row."""
        self._connection.execute(
            "insert into memory_plugin.schema_migrations (name, sha256, program_version, adopted) "
            "values (%s, %s, %s, %s)",
            (migration.name, migration.sha256, __version__, adopted),
        )

    def _applied(self, migration: Migration, began: float) -> None:
        """Note a migration that is done."""
        self.outcome.applied.append(migration.name)
        self._report(f"applied {migration.name} ({time.monotonic() - began:.2f} s)")

    def _create_vector(self, plan: Plan) -> None:
        """Create the extension by itself, so that its refusal can be told from a migration's."""
        try:
            self._connection.execute(CREATE_VECTOR.format(schema=plan.vector_schema))
        except psycopg.Error as error:
            detail = one_line(error.diag.message_primary or str(error))
            if error.sqlstate == "42501":
                raise ExtensionForbiddenError(detail) from None
            if error.sqlstate in ("0A000", "58P01", "22023"):
                raise VectorMissingError(detail) from None
            raise

    @contextmanager
    def _failing(self, migration: Migration, watch: waiting.Watch) -> Iterator[None]:
        """Turn the failure of a migration's own statement into ours."""
        try:
            yield
        except psycopg.Error as error:
            kept = "" if migration.transactional else "the next run goes on after its finished statements"
            raise statement_failure(error, self._settings, migration.name, watch, kept) from None

    @contextmanager
    def _step(self, doing: str) -> Iterator[None]:
        """Roll back whatever a failed step had begun, and name what it was doing."""
        try:
            yield
        except psycopg.Error as error:
            raise server_error(error, self._settings, doing) from None
        finally:
            if not self._connection.closed:
                self._connection.rollback()
