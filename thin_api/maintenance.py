"""Delete what has expired, from time to time, out of the requests' way.

One thread, with a connection of its own for each round: so the pool belongs to the requests, a lost connection heals
by itself, and no place on the server is held between rounds. A round calls `memory_plugin.maintain` until a batch
comes back less than full. Which of many sidecars is active is decided there, by a lock that a batch's transaction
holds; only the clock is here. What a round finds wrong is logged once, until it changes.

A deleted namespace starts a round at once, since somebody may want its name again. A request that was refused because
the name's former memories are in the way makes the batches run without pauses.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from time import monotonic

import psycopg

from memory_plugin.thin_api.errors import SqlError
from memory_plugin.thin_api.log import log
from memory_plugin.thin_api.wire import UNHEEDED_SECONDS, ExpiredError, Link, LostError, connect

BATCH = 1000
# Between full batches: the deleted rows' vacuum, and everybody else, come in between.
PAUSE = 0.25
HURRIED_BATCH = 5000
# Between rounds, however many ask for one.
LEAST_EVERY = 1.0
BATCH_SECONDS = 10.0
CONNECT_SECONDS = 5
CANCEL_SECONDS = 1.0
FIRST_RETRY = 5.0

_MAINTAIN = b"select memory_plugin.maintain($1::integer)"
_ROLE = b"select pg_catalog.current_setting('is_superuser')"


class Maintenance:
    """The clock of one sidecar's upkeep; `every` is in seconds, 0 for none."""

    def __init__(self, conninfo: str, every: float) -> None:
        self._conninfo = conninfo
        self._every = every
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._hurried = False
        self._trouble = ""
        # Written by the one thread alone.
        self.swept = 0
        self.rounds = {"done": 0, "elsewhere": 0, "failed": 0}

    def start(self) -> None:
        """Start the clock."""
        threading.Thread(target=self._run, name="maintenance", daemon=True).start()

    def close(self) -> None:
        """Begin no further batch."""
        self._closing.set()
        self._woken.set()

    def deleted(self) -> None:
        """Note that a namespace was deleted."""
        if self._every:
            self._woken.set()

    def refused(self) -> None:
        """Note that a name could not be used for its former memories; this is looked after even where upkeep is off."""
        self._hurried = True
        self._woken.set()

    def _run(self) -> None:
        self._look_at_role()
        while not self._closing.is_set():
            # Not in step: sidecars that were started together would all come at once.
            self._woken.wait(self._every * random.uniform(0.9, 1.1) if self._every else None)  # noqa: S311
            self._woken.clear()
            if not self._closing.is_set():
                self._note(self.round())
                self._closing.wait(LEAST_EVERY)

    def _look_at_role(self) -> None:
        """Say once whether the sidecar has more rights than it needs; ask until there is an answer."""
        while not self._closing.is_set():
            try:
                link = connect(self._conninfo, CONNECT_SECONDS)
                try:
                    superuser = link.run(_ROLE, (), monotonic() + BATCH_SECONDS) == b"on"
                finally:
                    link.conn.close()
            except Exception:
                # The pool says what is wrong with the database.
                self._closing.wait(FIRST_RETRY)
                continue
            if superuser:
                log("superuser", level="warning", advice="connect as a member of memory_plugin_api, which is enough")
            return

    def round(self) -> str:
        """Sweep all that there is; return "" or, in a word, what kept it from that."""
        try:
            link = connect(self._conninfo, CONNECT_SECONDS)
        except Exception as error:
            self.rounds["failed"] += 1
            return "unreachable" if isinstance(error, (psycopg.Error, OSError)) else type(error).__name__
        try:
            outcome, trouble = self._batches(link), ""
        except SqlError as error:
            outcome, trouble = "failed", error.sqlstate
        except LostError:
            outcome, trouble = "failed", "connection_lost"
        except ExpiredError:
            outcome, trouble = "failed", "deadline"
            # A server that cannot be told to stop cannot be helped.
            with suppress(Exception):
                link.cancel(CANCEL_SECONDS, UNHEEDED_SECONDS)
        except Exception as error:
            # Whatever it is, the next round may do better.
            outcome, trouble = "failed", type(error).__name__
        finally:
            with suppress(Exception):
                link.conn.close()
        self.rounds[outcome] += 1
        return trouble

    def _batches(self, link: Link) -> str:
        hurried = False
        while True:
            if self._hurried:
                hurried, self._hurried = True, False
            size = HURRIED_BATCH if hurried else BATCH
            began = monotonic()
            answer = link.run(_MAINTAIN, (b"%d" % size,), began + BATCH_SECONDS)
            if not answer:
                return "elsewhere"
            rows = int(answer)
            self.swept += rows
            if rows:
                log("swept", rows=rows, ms=round((monotonic() - began) * 1000))
            if rows < size or self._closing.wait(0 if hurried else PAUSE):
                return "done"

    def _note(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log("maintenance_failed", level="warning", reason=trouble)
        else:
            log("maintenance_resumed")
