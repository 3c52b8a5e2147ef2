"""End the connections of clients that stop, or all but stop, while sending a body or reading an answer.

WSGI's read of a body cannot be abandoned, the server beneath has no deadline for a body or an answer, and it tells the
application nothing that identifies the connection. The kernel knows: a connection that received bytes later than it
sent any is in the middle of a request, and one with bytes the client has not acknowledged is in the middle of an
answer. One that stays so for longer than its progress allows is ended. A sender is shut for reading only, so that the
read ends and the client gets 400, as for a body that was cut off. Connections are examined only while a body or a
large answer takes long, and only where the kernel tells (Linux); elsewhere body.READERS and answers.MOST alone bound
what such clients hold.

The order of these two times proves nothing if the server spoke last and the body is still missing: it said 100
Continue, or a request came in one packet with the head of the next and has been answered. Such a connection looks like
one kept open for later. But the server spoke on it just as the body began to be read, and not since. So for each body
that is overdue once all others are ended, the quiet connection whose last word was nearest to that moment is ended;
one whose last word was further away than WINDOWS only when seats run short.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from math import inf
from time import monotonic
from typing import NamedTuple

from memory_plugin.thin_api.body import GRACE, RATE, READERS, Reading
from memory_plugin.thin_api.log import log

LOOK_EVERY = 1.0
# By then whatever the order of times gives away was ended: it is first seen two looks after it began at the latest.
OVERDUE = 2.5 * LOOK_EVERY
# The kernel's clock is coarse, and a busy server late: nearest first.
WINDOWS = (0.05, 1.0)

# Of struct tcp_info: segments not acknowledged, milliseconds since data was sent and received, bytes acknowledged and
# received, bytes not sent.
_INFO = struct.Struct("=24xI16xI4xI64xQQ8xI")
# The opening of a connection counts as a byte. No answer is as short as this.
_NO_ANSWER = 1 + len(b"HTTP/1.1 100 Continue\r\n\r\n")


class _Seen(NamedTuple):
    """How a connection stood when it was first seen in the middle of a request or an answer, or quiet."""

    at: float
    request: int | None
    """None for an answer; else what was acknowledged before this request, by which it is told from the next."""
    passed: int
    """Bytes, in both directions, since the connection was opened."""
    quiet_since: float | None = None
    """When (monotonic) the server spoke last, if the client has said nothing since."""


class Watch:
    """Looks after the connections of the server on `port`, while bodies or large answers take long."""

    def __init__(self, port: int, reading: Mapping[int, Reading], sending: Mapping[int, float]) -> None:
        """`reading` holds what is known of each body, `sending` since when (monotonic) each large answer is sent."""
        self._port = port
        self._reading = reading
        self._sending = sending
        self._seen: dict[object, _Seen] = {}

    def start(self) -> None:
        """Start to look, where the kernel can be asked."""
        if sys.platform == "linux":
            threading.Thread(target=self._run, name="stalled-bodies", daemon=True).start()

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY):
            # Whatever it is, the next look may do better.
            with suppress(Exception):
                self.look()

    def look(self) -> None:
        """End what has stalled by now."""
        now = monotonic()
        bodies = list(self._reading.values())
        begun = [reading.since for reading in bodies] + list(self._sending.values())
        if all(now - since < LOOK_EVERY for since in begun):
            self._seen.clear()
            return
        # Else a request that is waited for has come, and its answer is what takes so long.
        awaited = any(now - reading.since > GRACE for reading in bodies)
        overdue = [reading.since for reading in bodies if now > reading.due + OVERDUE]
        seen: dict[object, _Seen] = {}
        ended = {"bodies": 0, "answers": 0}
        with ExitStack() as kept:
            quiet: list[tuple[float, socket.socket]] = []
            for connection in self._connections():
                with ExitStack() as own, suppress(OSError):
                    own.enter_context(closing(connection))
                    stands = _stands(connection, now)
                    if stands is None:
                        continue
                    if stands.quiet_since is not None:
                        if overdue and now - stands.quiet_since > GRACE:
                            quiet.append((stands.quiet_since, connection))
                            kept.enter_context(own.pop_all())
                        continue
                    peer = connection.getpeername()
                    first = self._seen.get(peer, stands)
                    if first.request != stands.request:
                        first = stands
                    waits = stands.request is not None and not awaited
                    if waits or now - first.at <= GRACE + (stands.passed - first.passed) / RATE:
                        seen[peer] = first
                    elif stands.request is None:
                        connection.shutdown(socket.SHUT_RDWR)
                        ended["answers"] += 1
                    else:
                        connection.shutdown(socket.SHUT_RD)
                        ended["bodies"] += 1
            for connection in _nearest(overdue, quiet):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
                    ended["bodies"] += 1
        self._seen = seen
        if any(ended.values()):
            log("stalled", level="warning", **ended)

    def _connections(self) -> Iterator[socket.socket]:
        """Yield a descriptor of our own for each accepted connection."""
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                number = int(name)
                if not stat.S_ISSOCK(os.fstat(number).st_mode):
                    continue
                connection = socket.socket(fileno=os.dup(number))
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getsockname()[1] == self._port:
                    yield connection
                else:
                    connection.close()


def _stands(connection: socket.socket, now: float) -> _Seen | None:
    """Return how a connection stands; None for one on which nothing was asked yet."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    unacknowledged, sent_ms, received_ms, acknowledged, received, unsent = _INFO.unpack(info)
    passed = acknowledged + received
    if unacknowledged or unsent:
        return _Seen(now, None, passed)
    if not received:
        return None
    # Nothing was answered as yet, or not since something came. These clocks are coarse: a request may have come within
    # the tick in which its connection did; a tie later on is more likely an answer at once.
    if acknowledged <= _NO_ANSWER or received_ms < sent_ms:
        return _Seen(now, acknowledged, passed)
    return _Seen(now, None, passed, now - sent_ms / 1000)


def _nearest(overdue: list[float], quiet: list[tuple[float, socket.socket]]) -> Iterator[socket.socket]:
    """Yield for each moment at most one connection: the one that went quiet nearest to it."""
    quiet.sort(key=lambda one: one[0])
    moments = [moment for moment, _ in quiet]
    left = sorted(overdue)
    short = len(overdue) > READERS // 2
    for window in (*WINDOWS, inf) if short else WINDOWS:
        unmatched = []
        for since in left:
            place = bisect_left(moments, since)
            near = [(abs(moments[at] - since), at) for at in (place - 1, place) if 0 <= at < len(moments)]
            if near and min(near)[0] <= window:
                _, at = min(near)
                del moments[at]
                yield quiet.pop(at)[1]
            else:
                unmatched.append(since)
        left = unmatched
