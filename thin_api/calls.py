"""Run a route's statement within the time a request has.

A request is answered at most ANSWER_SECONDS after it arrived; waiting for a connection takes at most WAIT_SECONDS of
that, and a statement STATEMENT_SECONDS. A statement whose connection was lost is run again on another connection if it
only reads, or if the server cannot have seen it; so is one that the server rolled back in favour of a rival's, or with
an internal error. A write whose outcome is unknown is never repeated.

A wait in vain is reported to the breaker only if the database gave no sign of life: it answered nobody meanwhile,
neither the cancelling of the statement nor, within ALIVE_SECONDS, the question whether it is there.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from memory_plugin.thin_api.breaker import Breaker
from memory_plugin.thin_api.errors import SqlError, refusal, unavailable
from memory_plugin.thin_api.pool import ExhaustedError, FullError, Pool, SentAwayError, UnreachableError
from memory_plugin.thin_api.routes import HEALTH, Route
from memory_plugin.thin_api.wire import ExpiredError, LostError

ANSWER_SECONDS = 1.75
WAIT_SECONDS = 1.0
STATEMENT_SECONDS = 1.5
ALIVE_SECONDS = 0.4
ATTEMPTS = 3

_GONE = "the database is not available; try again"
_SLOW = "the database did not answer in time; try again"
_BUSY = "the service is busy; try again"
_READ_ONLY = "25006"
# A namespace that goes while a memory is written into it breaks the memory's reference to it; the next attempt starts
# it anew. An internal error is also what a statement meets whose functions an upgrade replaces beneath it.
_ROLLED_BACK = frozenset(("23503", "40001", "40P01", "XX000"))


class Calls:
    """Statements, on the connections of a pool, behind a breaker."""

    def __init__(self, pool: Pool, breaker: Breaker) -> None:
        self._pool = pool
        self._breaker = breaker

    def run(self, route: Route, parameters: Sequence[bytes], arrived: float, *, first: bool = False) -> bytes:
        """Return the text of the statement's one value; `arrived` is when the request did (monotonic).

        `first` stands before others who wait for a connection: for what is short, and of which there are few at a time.
        """
        if not self._breaker.admit():
            raise unavailable(_SLOW, "breaker")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(route, parameters, arrived, first or route is HEALTH)
            except LostError as lost:
                if attempt == ATTEMPTS or (lost.sent and not route.reads):
                    raise unavailable(_GONE, "connection_lost") from None
            except SqlError as error:
                if attempt == ATTEMPTS or error.sqlstate not in _ROLLED_BACK:
                    body = parameters[-1] if "body" in route.parameters else b""
                    raise refusal(error, reads=route.reads, body=body) from None
        raise AssertionError("the last attempt neither answers nor refuses")

    def _once(self, route: Route, parameters: Sequence[bytes], arrived: float, first: bool) -> bytes:
        began = monotonic()
        try:
            link = self._pool.acquire(arrived + WAIT_SECONDS, first=first)
        except UnreachableError:
            raise unavailable(_GONE, "unreachable") from None
        except SentAwayError:
            raise unavailable(_SLOW, "breaker") from None
        except FullError:
            raise unavailable(_BUSY, "line_full") from None
        except ExhaustedError:
            self._failed(began)
            raise unavailable(_BUSY, "no_connection") from None
        began = monotonic()
        try:
            answer = link.run(route.statement, parameters, min(began + STATEMENT_SECONDS, arrived + ANSWER_SECONDS))
        except SqlError as error:
            # A server that is shutting down says so and then closes: for the statement the connection is lost.
            if error.sqlstate[:2] == "08" or error.sqlstate[:3] == "57P":
                self._pool.discard(link)
                if route.reads:
                    raise LostError(sent=True) from None
                raise
            if error.sqlstate == _READ_ONLY:
                # A standby, which may be one no longer or have been the wrong server: the next write asks anew.
                self._pool.discard(link)
                self._pool.distrust(monotonic())
            else:
                self._pool.release(link)
            self._breaker.success()
            raise
        except ExpiredError:
            self._pool.discard(link, cancel=True, on_answer=self._breaker.success)
            # Beside the answer, which has no more time. Without a thread to be had, nothing is known.
            with suppress(RuntimeError):
                threading.Thread(target=self._failed, args=(began,), daemon=True).start()
            raise unavailable(_SLOW, "statement_deadline") from None
        except BaseException:
            self._pool.discard(link)
            raise
        self._pool.release(link)
        self._breaker.success()
        return answer

    def _failed(self, since: float) -> None:
        if self._breaker.answered(since):
            return
        if self._pool.alive(ALIVE_SECONDS):
            self._breaker.success()
            self._pool.distrust(since)
        elif self._breaker.failure(since):
            # Those in line would find out one by one, and those behind them late.
            self._pool.release_waiters()
