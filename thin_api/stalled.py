"""End the connections of clients that stop, or all but stop, in the middle of sending a body or reading an answer.

WSGI's read of a body cannot be given up, the server beneath has no deadline for one nor for what it sends, and it tells
the application nothing that names the connection. The kernel knows: a connection on which bytes came in later than any
went out is in the middle of a request, one with bytes that the client has not acknowledged in the middle of an answer.
One that is there for longer than what passed meanwhile allows is ended. A sender is shut for reading only, so that the
read ends and the client is answered 400 as one whose body was cut off. Only looked at while a body or a large answer
takes long, and only where the kernel tells (Linux); elsewhere body.READERS and answers.MOST alone bound what such
clients hold.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from time import monotonic
from typing import NamedTuple

from memory_plugin.thin_api.log import log

# A body or an answer may take so many seconds, and longer by one for each RATE bytes that passed.
GRACE = 5.0
RATE = 64 * 1024
LOOK_EVERY = 1.0

# Of struct tcp_info: segments not acknowledged, milliseconds since data was sent and received, bytes acknowledged and
# received, bytes not sent.
_INFO = struct.Struct("=24xI16xI4xI64xQQ8xI")


class _Seen(NamedTuple):
    """How a connection stood when it was first seen in the middle of a request or an answer."""

    at: float
    request: int | None
    """None for an answer; else what was acknowledged before this request, by which it is told from the next."""
    passed: int
    """Bytes, in both directions, since the connection was opened."""


class Watch:
    """Looks after the connections of the server on `port`, while bodies or large answers take long."""

    def __init__(self, port: int, *under_way: Mapping[int, float]) -> None:
        """`under_way` hold since when (monotonic) each body is being read, each large answer sent."""
        self._port = port
        self._under_way = under_way
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
        if all(now - since < LOOK_EVERY for those in self._under_way for since in list(those.values())):
            self._seen.clear()
            return
        seen: dict[object, _Seen] = {}
        ended = {"bodies": 0, "answers": 0}
        for connection in self._connections():
            with closing(connection), suppress(OSError):
                stands = _stands(connection, now)
                if stands is None:
                    continue
                peer = connection.getpeername()
                first = self._seen.get(peer, stands)
                if first.request != stands.request:
                    first = stands
                if now - first.at <= GRACE + (stands.passed - first.passed) / RATE:
                    seen[peer] = first
                elif stands.request is None:
                    connection.shutdown(socket.SHUT_RDWR)
                    ended["answers"] += 1
                else:
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
    """Return how a connection stands that is in the middle of something."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    unacknowledged, sent_ms, received_ms, acknowledged, received, unsent = _INFO.unpack(info)
    if unacknowledged or unsent:
        return _Seen(now, None, acknowledged + received)
    # Nothing was sent as yet, or not since something came. These clocks are coarse: a request may have come within the
    # tick in which its connection did; a tie later on is more likely an answer at once.
    if received if acknowledged <= 1 else received_ms < sent_ms:
        return _Seen(now, acknowledged, acknowledged + received)
    return None
