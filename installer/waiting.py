"""Bounded waiting: for the lock that lets one installation work at a time, and for whoever holds a table."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

import psycopg

from memory_plugin.installer.connect import KEEPALIVES, Connection, open_connection, server_error
from memory_plugin.installer.errors import InstallError, LockTimeoutError, one_line, standby_error
from memory_plugin.installer.settings import Settings

LOCK_KEY = "pg_catalog.hashtextextended('memory_plugin.install', 0)"

AS_WRITTEN = {"standard_conforming_strings": "on", "quote_all_identifiers": "off"}
"""Without these, literals are read and the catalogue's expressions are written in another way than ours."""

# Where the client's machine goes away without a word, its lock is free within a minute. A socket file ignores them.
_KEEPALIVES = "; ".join(f"set local tcp_{name} = {value}" for name, value in KEEPALIVES.items())

BRIEF_S = 0.3
"""So long a wait for a lock may keep those waiting who come after it."""

_HOLDER = """
select locks.pid, locks.virtualtransaction
from pg_catalog.pg_locks as locks
where
    locks.locktype = 'advisory' and locks.granted and locks.objsubid = 1
    and locks.database = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())
    and (locks.classid::bigint << 32 | locks.objid::bigint)
    = pg_catalog.hashtextextended('memory_plugin.install', 0)
"""

_DESCRIBE = """
select
    pid, coalesce(nullif(application_name, ''), 'unnamed'), coalesce(usename, '?'), coalesce(state, 'state hidden'),
    pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - xact_start)::text
from pg_catalog.pg_stat_activity
where pid = any(%s)
order by xact_start nulls last
"""


def session_settings(connection: Connection) -> dict[str, str]:
    """Return what to set against what a role or database may have set against statements that run by themselves."""
    return {
        **_endless(connection),
        "default_transaction_read_only": "off",
        "default_transaction_isolation": "'read committed'",
        **AS_WRITTEN,
    }


def _endless(connection: Connection) -> dict[str, str]:
    """Return the settings that end a statement or its transaction after a time, each with what turns it off."""
    names = ["statement_timeout"]
    if connection.info.server_version >= 170000:
        names.append("transaction_timeout")
    return dict.fromkeys(names, "0")


def begin_locked(connection: Connection, settings: Settings) -> None:
    """Begin a transaction that holds the installer's lock, with settings fit for changing a schema.

    Polls instead of waiting in the server: a session that waits inside a statement keeps a snapshot, which the
    holder's `create index concurrently` would wait for in turn, without Postgres seeing the circle. The clock starts
    anew whenever the lock passes to another transaction, so a queue of installations that moves does not time out.
    """
    deadline, last_holder, pause = time.monotonic() + settings.lock_timeout_s, None, 0.01
    while True:
        prepare_transaction(connection, settings)
        row = connection.execute(f"select pg_catalog.pg_try_advisory_xact_lock({LOCK_KEY})").fetchone()
        if row is not None and row[0]:
            connection.execute(_KEEPALIVES.encode())
            return
        holder = connection.execute(_HOLDER).fetchone()
        connection.rollback()
        if holder is not None and holder != last_holder:
            deadline, last_holder = time.monotonic() + settings.lock_timeout_s, holder
        if time.monotonic() > deadline:
            pids = [] if last_holder is None else [last_holder[0]]
            raise LockTimeoutError(f"another installation is at work: {describe(connection, pids)}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def prepare_transaction(connection: Connection, settings: Settings) -> None:
    """Set, for this transaction only, what role, database or pooler may have set against us.

    Raises BadSettingError for one that is to write on a standby, whose server would not even begin it.
    """
    if not connection.read_only and connection.info.parameter_status("in_hot_standby") == "on":
        raise standby_error()
    values = {
        "search_path": "pg_catalog, pg_temp",
        "lock_timeout": str(round(settings.lock_timeout_s * 1000)),
        **_endless(connection),
        "idle_in_transaction_session_timeout": "0",
        **AS_WRITTEN,
    }
    calls = ", ".join(["pg_catalog.set_config(%s, %s, true)"] * len(values))
    connection.execute(f"select {calls}", [text for pair in values.items() for text in pair])


def patiently(connection: Connection, settings: Settings, work: Callable[[], object], first_s: float = BRIEF_S) -> bool:
    """Run `work` in a transaction, or part of one, whose waits for locks are brief; anew while locks are not to be had.

    Whoever waits for a table keeps everybody behind him waiting, readers of it too: hence briefly, and again. The wait
    begins with `first_s` and grows to BRIEF_S, less than deadlock_timeout and than a commit's own patience. Where
    `work` returns False it is undone, and so is this.
    """
    deadline, wait = time.monotonic() + settings.lock_timeout_s, first_s
    while True:
        began = time.monotonic()
        try:
            done = True
            with connection.transaction():
                connection.execute(f"set local lock_timeout = {round(wait * 1000)}".encode())
                done = work() is not False
                if not done:
                    # Inside a transaction, what was locked would stay so until its end.
                    raise psycopg.Rollback
            return done
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if time.monotonic() > deadline:
                raise
        # Outside the queue of those who wait for the tables, and for no less than they may have waited.
        time.sleep(random.uniform(0.5, 1.5) * max(wait, time.monotonic() - began))  # noqa: S311
        wait = min(wait * 1.3, BRIEF_S)


def hold(
    connection: Connection,
    settings: Settings,
    tables: str,
    work: Callable[[], object],
    mode: str = "access exclusive",
) -> bool:
    """Run `work` with the tables for itself, keeping nobody waiting for long; where it returns False, undo it.

    In a weaker mode, `work` may ask for the stronger one, and is run again where it does not get it soon.
    """

    def locked() -> object:
        connection.execute(f"lock table {tables} in {mode} mode".encode())
        return work()

    with Watch(settings, connection.info.backend_pid) as watch:
        try:
            return patiently(connection, settings, locked, 0.05)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            why = f"waited {settings.lock_timeout_s:g} s for {watch.blockers}" if watch.blockers else ""
            raise LockTimeoutError(why or one_line(error.diag.message_primary or str(error))) from None


def describe(connection: Connection, pids: list[object]) -> str:
    """Say who the given backends are: pid, application, role, state, age of the transaction."""
    rows = connection.execute(_DESCRIBE, (pids,)).fetchall() if pids else []
    if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        connection.rollback()
    told = [f"pid {row[0]} ({row[1]}, role {row[2]}, {row[3]}{f', for {row[4]}' if row[4] else ''})" for row in rows]
    return ", ".join(told) or "it has ended in the meantime"


_INDEX = """
select
    coalesce(relation.relname::text, progress.index_relid::text), progress.phase,
    progress.blocks_done, progress.blocks_total, progress.tuples_done, progress.tuples_total
from pg_catalog.pg_stat_progress_create_index as progress
left join pg_catalog.pg_class as relation on progress.index_relid = relation.oid
where progress.pid = %s
"""
PROGRESS_S = 5.0
"""Seconds between two lines about an index that is being built."""


class Watch:
    """While open, note on a connection of its own who blocks the watched one, and tell how far its index is.

    A statement that has timed out no longer waits, so the server cannot be asked afterwards.
    """

    def __init__(
        self,
        settings: Settings,
        pid: int,
        tell: Callable[[str], None] | None = None,
        every_s: float | None = None,
        busy: Callable[[], bool] = lambda: True,
    ) -> None:
        """Prepare to watch the backend `pid`; connects only when something takes long."""
        # Whoever waits briefly, again and again, is seen waiting half of the time.
        self._every_s = min(1.0, settings.lock_timeout_s * 0.4) if every_s is None else every_s
        self._busy = busy
        self._settings = settings
        self._pid = pid
        self._tell = tell
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-plugin watch", daemon=True)
        self.blockers = ""
        """The last seen blockers; empty when none was seen."""

    def __enter__(self) -> Watch:
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch."""
        self._done.set()
        self._thread.join(timeout=self._settings.connect_timeout_s)

    def _run(self) -> None:
        """Ask again and again."""
        connection: Connection | None = None
        told = time.monotonic()
        try:
            while not self._done.wait(self._every_s):
                if not self._busy():
                    continue
                if connection is None:
                    connection = open_connection(self._settings, "watch", autocommit=True)
                row = connection.execute("select pg_catalog.pg_blocking_pids(%s)", (self._pid,)).fetchone()
                pids = row[0] if row is not None else None
                if isinstance(pids, list) and pids:
                    self.blockers = describe(connection, pids)
                if self._tell is not None and time.monotonic() - told >= PROGRESS_S * 0.9:
                    for index in connection.execute(_INDEX, (self._pid,)).fetchall():
                        told = time.monotonic()
                        self._tell(_so_far(*index))
        except (psycopg.Error, InstallError):
            # Naming the blocker is a courtesy: without a second connection the error goes without it.
            return
        finally:
            if connection is not None:
                connection.close()


@contextmanager
def reading(settings: Settings, purpose: str) -> Iterator[Connection]:
    """Open a connection whose one transaction sees one moment and cannot write."""
    connection = open_connection(settings, purpose)
    try:
        with naming(connection, settings, f"looking at the database ({purpose})"):
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            prepare_transaction(connection, settings)
            yield connection
    finally:
        connection.close()


@contextmanager
def naming(connection: Connection, settings: Settings, doing: str) -> Iterator[None]:
    """Say of a statement that fails what it was for, and of one that waited in vain for a lock, who had it."""

    def busy() -> bool:
        """Tell whether a statement is running: one that idles for hours needs no second connection."""
        return connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE

    # Whoever waits in vain waits for the whole lock_timeout, so two looks are enough, and a short work has none.
    with Watch(settings, connection.info.backend_pid, every_s=settings.lock_timeout_s * 0.4, busy=busy) as watch:
        try:
            yield
        except psycopg.Error as error:
            raise server_error(error, settings, doing, watch.blockers) from None


def _so_far(
    index: object, phase: object, blocks: object, blocks_total: object, rows: object, rows_total: object
) -> str:
    """Say how far an index is, from its row in pg_stat_progress_create_index."""
    for done, total, unit in ((rows, rows_total, "rows"), (blocks, blocks_total, "blocks")):
        if isinstance(done, int) and isinstance(total, int) and total:
            return f"{index}: {phase}, {done / total:.0%} ({done:,} of {total:,} {unit})"
    return f"{index}: {phase}"
