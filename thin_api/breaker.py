"""Stop asking a database that answers nobody, so that no request waits behind others that wait in vain.

Connections are few. If every request went through to a hung server, each would hold a connection until its deadline
while those behind it waited in vain. So after a few such waits in a row, requests get 503 at once, except for an
occasional probe; the first success ends it.

A wait counts as in vain only if the database answered nobody meanwhile. Slow statements do not count, however many,
nor a long queue because many came at once. So if nobody else was answered, `calls` asks the database for a sign of
life before it reports a wait.
"""

from __future__ import annotations

import threading
from time import monotonic

IN_A_ROW = 3
PROBE_EVERY = 0.25


class Breaker:
    """Count waits in vain, and say whether a request may go through."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._answered = 0.0
        self._next_probe = 0.0

    @property
    def open(self) -> bool:
        """Tell whether requests are being turned away."""
        return self._failures >= IN_A_ROW

    def admit(self) -> bool:
        """Say whether this request may go through; while open, only one in PROBE_EVERY seconds may."""
        if self._failures < IN_A_ROW:
            return True
        with self._lock:
            now = monotonic()
            if now < self._next_probe:
                return False
            self._next_probe = now + PROBE_EVERY
            return True

    def success(self) -> None:
        """Note that the database answered."""
        # Without the lock: each of many may write it last, and all write about the same.
        self._answered = monotonic()
        # Read without it too: the usual case, and a count that is stale by one request does no harm.
        if self._failures:
            with self._lock:
                self._failures = 0

    def answered(self, since: float) -> bool:
        """Tell whether the database answered anybody from `since` (monotonic) until now."""
        return self._answered >= since

    def failure(self, since: float) -> bool:
        """Note a wait from `since` (monotonic) until now that got no answer; return True if it opened the breaker."""
        with self._lock:
            if self._answered >= since:
                return False
            self._failures += 1
            if self._failures != IN_A_ROW:
                return False
            self._next_probe = monotonic() + PROBE_EVERY
            return True
