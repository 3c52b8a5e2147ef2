"""End the connections of clients that stop, or all but stop, in the middle of sending a body.

WSGI's read of a body cannot be given up, the server beneath has no deadline for one, and it tells the application
nothing that names the connection. The kernel knows: a connection on which bytes came in later than any went out is in
the middle of a request. One that is there for longer than what came in allows is shut for reading; the read then ends,
and the client is answered 400 as one whose body was cut off. Only looked at while a body is long in coming, and only
where the kernel tells (Linux); elsewhere body.READERS alone bounds how many such clients there are.
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

# A body may take so many seconds, and longer by one for each RATE bytes that came.
GRACE = 5.0
RATE = 64 * 1024
LOOK_EVERY = 1.0

# Of struct tcp_info: milliseconds since data was sent and received, bytes acknowledged and received.
_SINCE = struct.Struct("=44xI4xI")
_BYTES = struct.Struct("=120xQQ")


class _Seen(NamedTuple):
    """How a connection stood when it was first seen in the middle of a request."""

    at: float
    acknowledged: int
    received: int


class Watch:
    """Looks after the connections of the server on `port`, while bodies that are being read are long in coming."""

    def __init__(self, port: int, reading: Mapping[int, float]) -> None:
        """`reading` holds since when (monotonic) each body is being read."""
        self._port = port
        self._reading = reading
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
        if all(now - since < LOOK_EVERY for since in list(self._reading.values())):
            self._seen.clear()
            return
        seen: dict[object, _Seen] = {}
        stalled = 0
        for connection in self._connections():
            with closing(connection), suppress(OSError):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
                sent_ms, received_ms = _SINCE.unpack_from(info)
                acknowledged, received = _BYTES.unpack_from(info)
                # Nothing was sent as yet, or not since something came. These clocks are coarse: a request may have come
                # within the tick in which its connection did; a tie later on is more likely an answer at once.
                if not (received if acknowledged <= 1 else received_ms < sent_ms):
                    continue
                peer = connection.getpeername()
                first = self._seen.get(peer)
                if first is None or first.acknowledged != acknowledged:
                    first = _Seen(now, acknowledged, received)
                if now - first.at > GRACE + (received - first.received) / RATE:
                    connection.shutdown(socket.SHUT_RD)
                    stalled += 1
                else:
                    seen[peer] = first
        self._seen = seen
        if stalled:
            log("stalled_bodies", level="warning", cut_off=stalled)

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
