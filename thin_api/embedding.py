"""Make sure that what was committed as text alone gets its embedding, where the database can fetch one.

One thread, with a connection of its own that it keeps while the store has an embedding provider. A round calls
`memory_plugin.embed_pending` until nothing is left or the provider fails. A commit, and a search that had to do
without an embedding, wake the thread, so nothing waits for the clock. Which of many sidecars is active, what is sent,
and when a failed provider is asked again are decided in the database; only the clock is here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

import psycopg

from memory_plugin.thin_api.errors import SqlError
from memory_plugin.thin_api.log import log
from memory_plugin.thin_api.wire import ExpiredError, Link, LostError, connect

BATCH = 1000
# What a call may take: no request begins after 20 s of it, and the last may take a minute and a probe.
CALL_SECONDS = 110.0
STATUS_SECONDS = 10.0
STATUS_EVERY = 5.0
CONNECT_SECONDS = 5
# How often a store without a provider, or a database that is away, is looked at again.
OFF_SECONDS = 15.0
LOST_SECONDS = 2.0
LEAST_PAUSE = 0.05
# How often a sidecar tells the others that searches do without.
TELL_EVERY = 1.0
MOST_PAUSE = 60.0
# At the end of a search's answer.
DEGRADED = b'"degraded":"embedding"'

_CUT = "a statement_timeout ends it; alter role or database: set statement_timeout = 0"
_CANCELLED = "57014"
_STATUS = b"select memory_plugin.embedding_status()"
_EMBED = b"call memory_plugin.embed_pending($1::integer, $2::boolean, null)"


class Embedding:
    """The clock of one sidecar's embedding; `every` is in seconds, 0 for none."""

    def __init__(self, conninfo: str, every: float) -> None:
        self._conninfo = conninfo
        self._every = every
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._probe = False
        self._trouble = ""
        self.cut = 0
        """Calls in a row that the server ended before they were done."""
        self._link: Link | None = None
        self._status_at = 0.0
        self._told_at = -TELL_EVERY
        # Written by the one thread alone. None: the database fetches no embeddings.
        self.status: Mapping[str, Any] | None = None
        self.embedded = 0

    def start(self) -> None:
        """Start the clock."""
        if self._every:
            threading.Thread(target=self._run, name="embedding", daemon=True).start()

    def close(self) -> None:
        """Begin no further call."""
        self._closing.set()
        self._woken.set()

    def committed(self) -> None:
        """Note that there may be something to embed."""
        if self.status is not None:
            self._woken.set()

    def answered(self, body: bytes) -> bool:
        """Note a search's answer; tell whether the store should know, as it had to do without an embedding.

        It is also a reason to look at the provider.
        """
        if body.find(DEGRADED, max(len(body) - 200, 0)) < 0:
            return False
        if self.status is not None:
            self._probe = True
            self._woken.set()
        now = monotonic()
        if now < self._told_at + TELL_EVERY:
            return False
        self._told_at = now
        return True

    def _run(self) -> None:
        while not self._closing.is_set():
            pause, deaf = self.round()
            if deaf:
                self._closing.wait(pause)
            else:
                self._woken.wait(pause)
                # Those who commit together are embedded together.
                self._closing.wait(LEAST_PAUSE)
            self._woken.clear()
        self._give_back()

    def round(self) -> tuple[float, bool]:
        """Embed what there is; return how long to pause, and whether to be deaf to wakers meanwhile."""
        try:
            if self._link is None:
                self._link = connect(self._conninfo, CONNECT_SECONDS)
            return self._embed(self._link)
        except (psycopg.Error, OSError, LostError):
            self._give_back()
            if self.status is None:
                # Nothing is known to wait for an embedding, and the pool says what is wrong with the database.
                return LOST_SECONDS, True
            return self._failed("unreachable", LOST_SECONDS)
        except SqlError as error:
            self._give_back()
            if error.sqlstate == _CANCELLED:
                # What the call had fetched is lost with it, and would be paid for again and again.
                self.cut += 1
                return self._failed(_CUT, min(LOST_SECONDS * 2 ** min(self.cut, 9), MOST_PAUSE))
            # A store that is not there, or is older than this program, fetches nothing.
            missing = error.sqlstate in ("3F000", "42P01", "42883")
            self.status = None if missing else self.status
            return (OFF_SECONDS, True) if missing else self._failed(error.sqlstate, LOST_SECONDS)
        except ExpiredError:
            if self._link is not None:
                with suppress(Exception):
                    self._link.conn.cancel_safe(timeout=1.0)
            self._give_back()
            return self._failed("deadline", LOST_SECONDS)
        except Exception as error:
            # Whatever it is, the next round may do better.
            self._give_back()
            return self._failed(type(error).__name__, LOST_SECONDS)

    def _embed(self, link: Link) -> tuple[float, bool]:
        if self.status is None or monotonic() > self._status_at + STATUS_EVERY:
            self._look(link)
        if self.status is None:
            self._give_back()
            self._note("")
            return OFF_SECONDS, True
        probe, self._probe = self._probe, False
        answer = link.run(_EMBED, (b"%d" % BATCH, b"true" if probe else b"false"), monotonic() + CALL_SECONDS)
        told = json.loads(answer)
        self.cut = 0
        self.embedded += told["embedded"]
        if told["embedded"]:
            log("embedded", rows=told["embedded"])
        if told["outcome"] == "more":
            return 0.0, False
        self._look(link)
        if told["outcome"] == "wait":
            return self._failed(str((self.status or {}).get("problem")), min(told["seconds"] + 0.01, MOST_PAUSE))
        self._note("")
        return (told["seconds"], True) if told["outcome"] == "elsewhere" else (self._every, False)

    def _look(self, link: Link) -> None:
        self.status = json.loads(link.run(_STATUS, (), monotonic() + STATUS_SECONDS) or b"null")
        self._status_at = monotonic()

    def _failed(self, why: str, pause: float) -> tuple[float, bool]:
        self._note(why)
        return pause, True

    def _give_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.conn.close()

    def _note(self, trouble: str) -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble:
            log("embedding_failed", level="warning", reason=trouble)
        else:
            log("embedding_resumed")
