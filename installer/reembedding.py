"""Change the embedding model of a store that keeps serving: fill a second vector beside the first, then swap.

All progress is in the database, so the next run resumes where a killed one stopped. Whatever needs a table for itself
asks for it briefly and again, and waits outside the queue in between.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg

from memory_plugin.installer import discover, functions, plpython, reembedding_wish, rules, sources, waiting
from memory_plugin.installer import plan as planning
from memory_plugin.installer.connect import Connection, set_back
from memory_plugin.installer.embedding_provider import PLPYTHON_HINT
from memory_plugin.installer.errors import (
    ConflictError,
    LockTimeoutError,
    PlpythonMissingError,
    UsageError,
    VerifyFailedError,
)
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.reembedding_wish import Wish
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.sources import Sources
from memory_plugin.installer.transfer import store
from memory_plugin.installer.transfer.progress import Meter

LOCK = "select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('memory_plugin.reembed', 0))"
BATCH = 512
TRIES = ((5, False), (5, False), (50, False), (50, True), (500, True))
"""So many memories may still lack their vector when writers are stopped, try by try; and whether the swap is made where
the provider does not give them even then: they are fetched right after it."""
LAST_SECONDS = 0.3
"""Writers are stopped for so long at most while those are fetched: a commit waits a second for a lock, for the swap to
get its own as well, and on a slow machine."""
UPGRADE = "150ms"
"""So long, then, for those who are reading; after that all of it is given up, and begun again."""
ENOUGH = 100
"""With fewer left, fetching goes over to the next step: under writes there is always one more."""
COUNT_SECONDS = 5.0
"""Counting what is left reads all of it, so it is not done after each batch."""
PATIENCE_SECONDS = 2.0
"""What was written while the swap was prepared is fetched for so long before each try."""
REST_SECONDS = 30.0
"""After a swap, what it left is waited for as long as it gets less, and so long after that."""
_REST = "select memory_plugin._reembed_rest()"
_PENDING = "select count(*) from memory_plugin._reembed_pending({most})"
_LEFT = """
select count(*), pg_catalog.bool_and(p.due) is not false from memory_plugin._reembed_pending(2147483647) as p
"""
_RECORDS = "memory_plugin.memory_records"
_SPARE = "memory_plugin.memory_vectors_spare"
_SKETCHES = "memory_plugin.memory_sketches_spare"
_BOTH = f"{_RECORDS}, memory_plugin.memory_vectors, {_SPARE}, memory_plugin.memory_sketches, {_SKETCHES}"
_INDEXES = {
    "memory_records_unembedded_spare": f"{_RECORDS} (created_at) where embedding_spare is null",
    "memory_vectors_live_spare": f"{_SPARE} (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz))) "
    "include (expires_at)",
    "memory_vectors_near_spare": f"{_SPARE} (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz))) "
    f"include (expires_at, created_at, id, source, embedding) where {{dimensions}} <= {rules.NEAR_DIMENSIONS}",
    "memory_sketches_live_spare": f"{_SKETCHES} (namespace, kind, (coalesce(expires_at, 'infinity'::timestamptz))) "
    "include (expires_at, created_at, id, source, signs)",
    "memory_vectors_embedding_spare": f"{_SPARE} using hnsw (embedding {{vector}}.halfvec_ip_ops) "
    f"with (m = 16, ef_construction = {{neighbours}}) where {{dimensions}} <= {rules.GRAPH_DIMENSIONS}",
}
_LOOK = """
select
    (select pg_catalog.to_jsonb(g) from memory_plugin.reembedding as g),
    pg_catalog.to_regprocedure('memory_plugin._reembed_batch(integer, boolean, jsonb)') is not null
"""
_MEMORY = """
select pg_catalog.set_config(
    'maintenance_work_mem', greatest(setting::bigint, 262144)::text || 'kB', false
) from pg_catalog.pg_settings where name = 'maintenance_work_mem';
"""


@dataclass(frozen=True)
class State:
    """The change that is under way."""

    stage: str
    model: str
    dimensions: int


class Change:
    """One run; `meter` makes the meter of a part of it, of so many memories."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], meter: Callable[[int], Any], connection: Connection
    ) -> None:
        """Take the connection that `session` opened."""
        self._settings = settings
        self._say = say
        self._meter = meter
        self._connection = connection
        self._vector = self._ready()
        self._source: Sources = sources.load(settings.migrations_dir)

    def look(self) -> State | None:
        """Return the change that is under way, or None."""
        found, complete = store.one(self._connection, _LOOK)
        if not complete:
            raise PlpythonMissingError(
                "without it the store fetches no embeddings, and so cannot change its model", hint=PLPYTHON_HINT
            )
        return State(found["stage"], found["model"], found["dimensions"]) if isinstance(found, dict) else None

    def start(self, wish: Wish) -> State:
        """Ask the provider for one word; then write it down and make room for its vectors."""
        reembedding_wish.test(self._connection, wish)
        make = partial(reembedding_wish.start, self._connection, wish)
        waiting.hold(self._connection, self._settings, _RECORDS, make)
        return State("filling", wish.model, wish.dimensions)

    def renew(self, wish: Wish) -> None:
        """Go on with a change, by what else the wish has, and with what was refused tried again."""
        reembedding_wish.renew(self._connection, wish)

    def fill(self, state: State, *, leave_refused: bool) -> None:
        """Fetch every vector, build the indexes, and swap; go round again while too much was written meanwhile."""
        self._index(state, "memory_records_unembedded_spare")
        while True:
            self._fetch(ENOUGH)
            if not leave_refused:
                self._check_refused()
            for name in _INDEXES:
                self._index(state, name)
            self._connection.execute(f"vacuum (analyze) {_SPARE}, {_SKETCHES}")
            self._fetch(ENOUGH)
            self._check()
            if self._swap(state.dimensions, TRIES, leave_refused=leave_refused):
                return
            self._say("too much was written meanwhile: fetching that first")

    def rest(self) -> int:
        """Fetch what was written in the last moments before the swap; return how many memories still wait."""
        least = left = store.number(self._connection, _REST)
        deadline = time.monotonic() + REST_SECONDS
        while left and time.monotonic() < deadline:
            # The oldest come first: no more than these, or writers would keep the call at it.
            told = self._call(b"call memory_plugin.embed_pending(%s)", (min(left, 1000),))
            left = store.number(self._connection, _REST)
            if left < least:
                least, deadline = left, time.monotonic() + REST_SECONDS
            elif told["outcome"] != "more":
                # A sidecar is at it, or the provider fails, or somebody holds a memory.
                time.sleep(min(max(told["seconds"], 0.2), 5.0))
        return left

    def finish(self) -> None:
        """Drop the former vectors."""
        self._drop()

    def abort(self, state: State) -> None:
        """Go back to the former vectors where they are no longer in force, and drop the others."""
        if state.stage == "swapped":
            former = "select atttypmod::int from pg_catalog.pg_attribute where attrelid = "
            former += "'memory_plugin.memory_records'::regclass and attname = 'embedding_spare'"
            if not self._swap(store.number(self._connection, former), ((None, True),)):
                raise LockTimeoutError("going back to the former model")
        self._drop()

    def _ready(self) -> str:
        """Check that the store is complete and ours, set the session up, and return where pgvector is."""
        with self._connection.transaction():
            vector = store.begin(self._connection, self._settings).as_string(self._connection)
        for name, value in _session_settings(self._connection).items():
            self._connection.execute(f"set {name} = {value}".encode())
        self._connection.execute(_MEMORY)
        with self._connection.transaction():
            plan = self._plan(self._connection, sources.load(self._settings.migrations_dir))
        if plan.run or plan.adopt:
            raise VerifyFailedError(
                "the store is not as this program installs it", hint="run memory-plugin install on this database first"
            )
        # A killed program's statement ends with it. Not every platform can look.
        with suppress(psycopg.Error):
            self._connection.execute("set client_connection_check_interval = '1s'")
        return vector

    def _plan(self, connection: Connection, source: Sources) -> Plan:
        """Return the plan of an install, which would be empty."""
        wanted = replace(self._settings, dimensions=None, text_search_config=None)
        return planning.make(discover.facts(connection), source, wanted, plpython.names())

    def _call(self, statement: bytes, parameters: Any = None) -> dict[str, Any]:
        """Call what answers with an object."""
        row = self._connection.execute(statement, parameters).fetchone()
        if row is None or not isinstance(row[0], dict):
            raise LookupError("no answer")
        return row[0]

    def _batch(self, most: int, *, probe: bool = False) -> dict[str, Any]:
        """Fetch some vectors from the provider to come."""
        return self._call(b"call memory_plugin._reembed_batch(%s, %s, null)", (most, probe))

    def _next(self, failures: int) -> dict[str, Any]:
        """Fetch some vectors; after failures fewer at a time, down to the one text that the provider may fail at."""
        if failures:
            told = self._batch(1, probe=True)
            if told["outcome"] == "wait":
                return told | {"probe": True}
        return self._batch(max(1, BATCH >> 2 * failures))

    def _fetch(self, enough: int, patience: float = math.inf) -> None:
        """Fetch until at most `enough` are left, all due, or time is up; a provider that fails is waited for."""
        waits, failures, said = 0, 0, ""
        began = time.monotonic()
        counted = -math.inf
        shown: Meter
        with self._meter(store.number(self._connection, _LEFT)) as shown:
            while time.monotonic() < began + patience:
                told = self._next(failures)
                shown.advance(told["stored"])
                waits = waits + 1 if told["outcome"] == "wait" else 0
                failures = 0 if told["stored"] or not waits else failures + ("probe" not in told)
                if told["outcome"] == "off":
                    raise UsageError("the change was ended by somebody else", hint="see memory-plugin reembed --help")
                if told["outcome"] == "more" and time.monotonic() < counted + COUNT_SECONDS:
                    continue
                left, due = store.one(self._connection, _LEFT)
                counted = time.monotonic()
                if not waits and due and isinstance(left, int) and left <= enough:
                    return
                if told["outcome"] == "done" and not told["stored"]:
                    # What was refused a moment ago is tried again soon.
                    time.sleep(0.5)
                elif waits:
                    if told["problem"] and told["problem"] != said:
                        said = told["problem"]
                        self._say(f"the embedding service fails, and is waited for: {said}")
                    pause = max(told["seconds"], min(0.5 * 2 ** min(waits - 1, 7), 60))
                    time.sleep(pause * random.uniform(1, 1.25))  # noqa: S311

    def _index(self, state: State, name: str) -> None:
        """Build an index beside the traffic, anew where a killed run left it unfinished."""
        valid = "select (select i.indisvalid from pg_catalog.pg_index as i where i.indexrelid = "
        valid += f"pg_catalog.to_regclass('memory_plugin.{name}'))"
        if store.one(self._connection, valid)[0]:
            return
        # As migration 013 has it.
        neighbours = 100 if state.dimensions <= 1100 else 80
        on = _INDEXES[name].format(vector=self._vector, dimensions=state.dimensions, neighbours=neighbours)
        self._say(f"building the index {name}")
        self._connection.execute(f"drop index concurrently if exists memory_plugin.{name}".encode())
        self._connection.execute(f"create index concurrently {name} on {on}".encode())

    def _check(self) -> None:
        """Compare the copy with what it copies, and say how many memories there are."""
        memories, rows, copies = store.one(self._connection, "select * from memory_plugin._reembed_counts()")
        if rows != copies:
            raise VerifyFailedError(
                f"{rows} memories have the new vector and {copies} are in its copy",
                hint="memory-plugin reembed --abort, and begin anew",
            )
        self._say(f"{rows} vectors for {memories} memories")

    def _check_refused(self) -> None:
        """Refuse to go on without the vectors that the new model does not give."""
        query = "select count(*), min(reason) from memory_plugin.reembedding_refused where tries >= 3"
        refused, reason = store.one(self._connection, query)
        if refused:
            raise ConflictError(
                f"the new model refuses {refused} memories, and the store is not changed to it: {reason}",
                hint="memory_plugin.reembedding_refused lists them; run this again, or with --leave-refused",
            )

    def _swap(self, dimensions: int, tries: tuple[tuple[int | None, bool], ...], *, leave_refused: bool = True) -> bool:
        """Exchange the vectors, in one transaction; return False where at each try too many memories lack theirs."""
        with store.session(self._settings, "reembed, swap") as connection:
            # An install at the same time would apply the functions for the other dimensions.
            waiting.begin_locked(connection, self._settings)
            plan = replace(self._plan(connection, self._source), dimensions=dimensions)
            # Before anything is held: nobody sees it, or waits for it, until the commit.
            functions.apply(connection, self._settings, self._source, plan)
            # Asks for nothing, and has the language loaded.
            connection.execute("select memory_plugin._reembed_last(0)")
            for most, leave in tries:
                if most is not None:
                    self._fetch(most, PATIENCE_SECONDS)
                if not leave_refused:
                    self._check_refused()
                exchange = partial(self._exchange, connection, most, leave=leave)
                # Writers first: searches go on while what was just written is fetched.
                if waiting.hold(connection, self._settings, _RECORDS, exchange, "share row exclusive"):
                    connection.commit()
                    return True
        return False

    def _exchange(self, connection: Connection, most: int | None, *, leave: bool) -> bool:
        """Exchange the names of the vectors, unless memories lack theirs: more than `most`, or any but for `leave`."""
        left = 0 if most is None else store.number(connection, _PENDING.format(most=most + 1))
        if most is not None and left > most:
            return False
        if left:
            left -= store.number(connection, f"select memory_plugin._reembed_last({LAST_SECONDS})")
        if left and not leave:
            return False
        connection.execute(f"set local lock_timeout = '{UPGRADE}'".encode())
        connection.execute(f"lock table {_BOTH} in access exclusive mode".encode())
        connection.execute("select memory_plugin._reembed_swap()")
        if left:
            self._say(f"{left} memories of the last moments get their vector after the swap")
        return True

    def _drop(self) -> None:
        """Drop the second vectors."""
        drop = partial(self._connection.execute, "select memory_plugin._reembed_drop()")
        waiting.hold(self._connection, self._settings, f"{_RECORDS}, {_SPARE}, {_SKETCHES}", drop)


def _session_settings(connection: Connection) -> dict[str, str]:
    """Return what a Change sets for its session."""
    # Between two batches it is idle for as long as a provider that fails asks for.
    idle = dict.fromkeys(("idle_session_timeout", "idle_in_transaction_session_timeout"), "0")
    return {"lock_timeout": "0", **idle, **waiting.session_settings(connection)}


@contextmanager
def session(settings: Settings) -> Iterator[Connection]:
    """Open the connection of a Change, which sets it up in its own way."""
    with store.session(settings, "reembed", autocommit=True) as connection:
        names = (*_session_settings(connection), "maintenance_work_mem", "client_connection_check_interval")
        with set_back(connection, names):
            yield connection


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keep other runs out: by a transaction's lock, which no pooler strands, on a connection that keeps no snapshot."""
    with store.session(settings, "reembed, guard") as guard:
        deadline = time.monotonic() + 5
        while True:
            waiting.prepare_transaction(guard, settings)
            # Without parameters: an unnamed portal would keep its snapshot, and every index build would wait for it.
            if guard.execute(LOCK).fetchone() == (True,):
                break
            guard.rollback()
            if time.monotonic() > deadline:
                raise LockTimeoutError("another reembed is at work", hint="stop it, or wait for its end")
            time.sleep(0.1)
        yield
