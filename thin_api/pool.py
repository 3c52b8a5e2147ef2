"""The sidecar's connections: few, opened in the background, never waited for beyond a request's own time.

Not psycopg_pool: it reconnects with exponential backoff (after an hour's outage, service would return minutes after
the database), and checks a connection by a round trip.

- One thread, the keeper, opens connections: while somebody waits for one, and always the first. So a sidecar starts
  without a database, and reconnects RETRY_EVERY seconds after the database is back, however long it was away.
- Waiting requests get connections first come, first served.
- A connection whose statement outlived its deadline never returns: the undertaker has the statement cancelled and
  closes it, out of anybody's way. Until it is closed it keeps its place, so the server never has more connections than
  the pool may open.
- A statement that does not heed being cancelled (a disk that hangs) keeps its process at the server, whoever closes the
  connection, and each request would leave another. So the connection is kept until the statement ends. Up to the pool's
  size, such connections take no place, since they may as well have died without a word.
- Where a statement was not answered though the database answers others, or a session proves to be read-only, no idle
  connection of the time before is trusted any more (`distrust`).
- Whether the database answers at all, another thread finds out when asked, on a connection of its own (`alive`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from psycopg.conninfo import make_conninfo

from memory_plugin.thin_api.wire import UNHEEDED_SECONDS, Link, connect

# libpq's least useful connect_timeout; the waiting is the keeper's alone.
CONNECT_SECONDS = 2
RETRY_EVERY = 0.4
SWEEP_EVERY = 1.0
MAX_AGE = 1800.0
CANCEL_SECONDS = 1.0
HEED_SECONDS = 0.2
PROBE_NAME = "memory-plugin probe"
# About as many as a small machine serves in the time that a request may wait; more would only keep threads.
MAX_WAITING = 1024


class ExhaustedError(Exception):
    """No connection came free in time."""


class FullError(Exception):
    """As many wait as may."""


class SentAwayError(Exception):
    """Whoever waited was told not to wait any longer."""


class UnreachableError(Exception):
    """There is no connection, and the last attempt to open one failed."""


class PoolState(NamedTuple):
    """How a pool stands; `reachable` is whether the last attempt to connect worked, False before the first."""

    open: int
    idle: int
    size: int
    waiting: int
    reachable: bool


class _Waiter:
    __slots__ = ("error", "link", "ready")

    def __init__(self) -> None:
        self.ready = threading.Lock()
        self.ready.acquire()
        self.link: Link | None = None
        self.error: type[Exception] | None = None


class _Grave(NamedTuple):
    link: Link
    cancel: bool
    on_answer: Callable[[], None] | None


class Pool:
    """Connections to one database; see the module's text."""

    def __init__(self, conninfo: str, size: int, on_change: Callable[[bool, str], None]) -> None:
        """`on_change(reachable, why)` is told when the database becomes reachable or stops being so."""
        self._conninfo = conninfo
        self._size = size
        self._on_change = on_change
        self._lock = threading.Lock()
        self._idle: list[Link] = []
        self._open = 0
        self._dying = 0
        self._unheeding = 0
        self._waiters: deque[_Waiter] = deque()
        self._reachable: bool | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._graves: SimpleQueue[_Grave | None] = SimpleQueue()
        self._doubt = threading.Condition()
        self._doubted = False
        self._alive_at = 0.0

    def start(self) -> None:
        """Start to connect, without waiting for it."""
        threading.Thread(target=self._keep, name="pool-keeper", daemon=True).start()
        threading.Thread(target=self._bury, name="pool-undertaker", daemon=True).start()
        threading.Thread(target=self._probe, name="pool-probe", daemon=True).start()

    def acquire(self, deadline: float, *, first: bool = False) -> Link:
        """Return a connection that stands, waiting for one until `deadline` (monotonic) at most.

        `first` is for the few that a long line must not keep: they stand before it, however long it is.
        """
        with self._lock:
            while self._idle:
                link = self._idle.pop()
                if link.quiet():
                    return link
                self._drop(link)
            if self._reachable is False and not self._open:
                raise UnreachableError
            waiter = _Waiter()
            if first:
                self._waiters.appendleft(waiter)
            elif len(self._waiters) < MAX_WAITING:
                self._waiters.append(waiter)
            else:
                raise FullError
        self._wake.set()
        waiter.ready.acquire(timeout=max(deadline - monotonic(), 0))
        with self._lock:
            if waiter.link is not None:
                return waiter.link
            if waiter.error is not None:
                raise waiter.error
            self._waiters.remove(waiter)
        raise ExhaustedError

    def release(self, link: Link) -> None:
        """Take a connection back after a statement that ended."""
        if not link.usable or monotonic() - link.born > MAX_AGE:
            self.discard(link)
            return
        link.answered = monotonic()
        with self._lock:
            self._hand_over(link)

    def discard(self, link: Link, *, cancel: bool = False, on_answer: Callable[[], None] | None = None) -> None:
        """Give a connection up; `cancel` what still runs on it first, and call `on_answer` if that is answered."""
        with self._lock:
            self._drop(link, cancel=cancel, on_answer=on_answer)

    def alive(self, seconds: float) -> bool:
        """Tell whether the database answers a question of nothing within so many seconds."""
        asked = monotonic()
        with self._doubt:
            self._doubted = True
            self._doubt.notify_all()
            return self._doubt.wait_for(lambda: self._alive_at >= asked, seconds)

    def distrust(self, since: float) -> None:
        """Drop idle connections on which nothing has been answered from `since` (monotonic) on.

        Where a network goes away without a word, or another server takes an address over, all of them are as dead as
        the one that was found so, and each would cost a request its time.
        """
        with self._lock:
            self._keep_idle(lambda link: link.answered >= since)

    def release_waiters(self) -> None:
        """Send everybody who waits away with SentAwayError."""
        with self._lock:
            self._fail_waiters(SentAwayError)

    def state(self) -> PoolState:
        """Return how the pool stands at this moment."""
        with self._lock:
            return PoolState(
                self._open + self._dying + self._unheeding,
                len(self._idle),
                self._size,
                len(self._waiters),
                self._reachable is True,
            )

    def busy(self) -> int:
        """Return how many connections are in use or waited for; without the lock, so at times one more or less."""
        return self._open - len(self._idle) + len(self._waiters)

    def close(self) -> None:
        """Close what is idle and open nothing more."""
        self._closing.set()
        self._wake.set()
        with self._lock:
            while self._idle:
                self._drop(self._idle.pop())
        self._graves.put(None)
        with self._doubt:
            self._doubt.notify_all()

    # The rest is called with the lock held, or by the pool's own threads.

    def _hand_over(self, link: Link) -> None:
        if self._waiters:
            waiter = self._waiters.popleft()
            waiter.link = link
            waiter.ready.release()
        else:
            self._idle.append(link)

    def _drop(self, link: Link, *, cancel: bool = False, on_answer: Callable[[], None] | None = None) -> None:
        self._open -= 1
        self._dying += 1
        self._graves.put(_Grave(link, cancel, on_answer))

    def _fail_waiters(self, error: type[Exception]) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            waiter.error = error
            waiter.ready.release()

    def _keep(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            with self._lock:
                # Requests do not have to find those that the server has ended.
                self._keep_idle(Link.quiet)
                taken = self._open + self._dying + max(self._unheeding - self._size, 0)
                wanted = (not self._open or bool(self._waiters)) and taken < self._size
            if not wanted:
                self._wake.wait(SWEEP_EVERY)
                continue
            try:
                link = connect(self._conninfo, CONNECT_SECONDS)
            # Whatever it is: were this thread to end, nobody would ever connect again.
            except Exception as error:
                self._note_failure(error)
                self._closing.wait(RETRY_EVERY)
                continue
            with self._lock:
                if self._closing.is_set():
                    link.conn.close()
                    return
                self._open += 1
                self._hand_over(link)
                changed, self._reachable = self._reachable is not True, True
            if changed:
                self._on_change(True, "")

    def _keep_idle(self, stands: Callable[[Link], bool]) -> None:
        """Drop the idle connections that do not stand."""
        standing = []
        for link in self._idle:
            if stands(link):
                standing.append(link)
            else:
                self._drop(link)
        self._idle = standing

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            if self._open:
                # Full, not gone: the connections that there are go on serving.
                return
            self._fail_waiters(UnreachableError)
            changed, self._reachable = self._reachable is not False, False
        if changed:
            self._on_change(False, str(error).strip().partition("\n")[0] or type(error).__name__)

    def _bury(self) -> None:
        while (grave := self._graves.get()) is not None:
            if grave.cancel:
                # Each by itself, for a server that hangs keeps every one of them waiting; there are few at once.
                with suppress(RuntimeError):
                    threading.Thread(target=self._cancel, args=(grave,), name="pool-cancel", daemon=True).start()
                    continue
            self._end(grave.link)

    def _cancel(self, grave: _Grave) -> None:
        # A server that cannot be told to stop cannot be helped.
        with suppress(Exception):
            if not grave.link.cancel(CANCEL_SECONDS, HEED_SECONDS):
                self._outwait(grave.link)
            elif grave.on_answer is not None:
                grave.on_answer()
        self._end(grave.link)

    def _outwait(self, link: Link) -> None:
        with self._lock:
            self._dying -= 1
            self._unheeding += 1
        self._wake.set()
        link.ended(UNHEEDED_SECONDS)
        with self._lock:
            self._dying += 1
            self._unheeding -= 1

    def _end(self, link: Link) -> None:
        with suppress(Exception):
            link.conn.close()
        with self._lock:
            self._dying -= 1
        self._wake.set()

    def _probe(self) -> None:
        while True:
            with self._doubt:
                self._doubt.wait_for(lambda: self._doubted or self._closing.is_set())
                self._doubted = False
            if self._closing.is_set():
                return
            # As in the keeper: whatever it is, the next question wants an answer too.
            with suppress(Exception):
                link = connect(make_conninfo(self._conninfo, application_name=PROBE_NAME), CONNECT_SECONDS)
                with link.conn:
                    link.run(b"select 1", (), monotonic() + CONNECT_SECONDS)
                with self._doubt:
                    self._alive_at = monotonic()
                    self._doubt.notify_all()
