"""Clients that keep their connections busy for a while, count what comes back, and give up on nobody's account."""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

# An answer that takes longer is none; then the client hangs up and connects anew.
PATIENCE = 5.0


@dataclass(frozen=True)
class Request:
    """What is sent, and which statuses are right."""

    message: bytes
    allowed: frozenset[int]


_NOTHING = Request(b"nothing was asked", frozenset())


@dataclass
class Seen:
    """What came back."""

    latencies: list[float] = field(default_factory=list)
    """Of the right answers, in ms."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of all: a status, or `no answer`, `cut`, `refused`."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Those that were not right, by request line and outcome."""
    seconds: float = 0.0


@dataclass
class _Client:
    sock: socket.socket | None = None
    request: Request | None = None
    sent: float = 0.0
    buffer: bytearray = field(default_factory=bytearray)


class _Press:
    def __init__(self, address: tuple[str, int], requests: list[Request], end: float) -> None:
        self.seen = Seen()
        self._address = address
        self._requests = requests
        self._end = end
        self._position = 0
        self._chooser = selectors.DefaultSelector()

    def run(self, clients: int) -> None:
        """Keep so many clients busy until the end, and then wait for the last answers, as long as patience lasts."""
        busy = [_Client() for _ in range(clients)]
        for client in busy:
            self._next(client)
        while any(client.request for client in busy) or time.monotonic() < self._end:
            for key, _ in self._chooser.select(0.1):
                self._read(key.data)
            now = time.monotonic()
            for client in busy:
                if client.request and now - client.sent > PATIENCE:
                    self._done(client, "no answer")
                    self._drop(client)
                # Whoever got no connection tries again, a moment later.
                if client.sock is None:
                    self._next(client)
        for client in busy:
            self._drop(client)

    def _next(self, client: _Client) -> None:
        client.request = None
        client.buffer.clear()
        if time.monotonic() >= self._end:
            return
        client.request = self._requests[self._position % len(self._requests)]
        self._position += 1
        client.sent = time.monotonic()
        try:
            if client.sock is None:
                client.sock = socket.create_connection(self._address, timeout=PATIENCE)
                client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._chooser.register(client.sock, selectors.EVENT_READ, client)
            client.sock.sendall(client.request.message)
        except OSError as error:
            self._done(client, "refused" if isinstance(error, ConnectionRefusedError) else "cut")
            self._drop(client)
            client.request = None

    def _read(self, client: _Client) -> None:
        try:
            piece = client.sock.recv(262_144) if client.sock else b""
        except OSError:
            piece = b""
        if not piece:
            if client.request:
                self._done(client, "cut")
            self._drop(client)
            self._next(client)
            return
        client.buffer += piece
        if (status := whole(client.buffer)) is not None:
            self._done(client, str(status))
            self._next(client)

    def _done(self, client: _Client, outcome: str) -> None:
        self.seen.outcomes[outcome] += 1
        request = client.request or _NOTHING
        if outcome.isdigit() and int(outcome) in request.allowed:
            self.seen.latencies.append((time.monotonic() - client.sent) * 1000)
        else:
            line = request.message.partition(b"\r\n")[0].decode()
            self.seen.wrong[f"{line}: {outcome}"] += 1

    def _drop(self, client: _Client) -> None:
        if client.sock is not None:
            self._chooser.unregister(client.sock)
            client.sock.close()
            client.sock = None


def whole(buffer: bytearray) -> int | None:
    """Return the status of a response that is there to its end, None while it is still arriving."""
    head, found, body = buffer.partition(b"\r\n\r\n")
    if not found:
        return None
    status = int(head[9:12])
    if status == 204:
        return status
    length = bytes(head).lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return status if len(body) >= int(length or b"0") else None


def press(address: tuple[str, int], requests: list[Request], clients: int, seconds: float) -> Seen:
    """Send the requests in turn, again and again, over so many keep-alive connections, for so many seconds."""
    began = time.monotonic()
    pressing = _Press(address, requests, began + seconds)
    pressing.run(clients)
    pressing.seen.seconds = time.monotonic() - began
    return pressing.seen


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.readline()
    finally:
        writer.close()


async def _one(host: str, port: int, request: bytes) -> tuple[str, float]:
    """Connect, ask once, and say what came and how many seconds after the start of the connection."""
    began = time.monotonic()
    try:
        line = await asyncio.wait_for(_first_line(host, port, request), PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):
        return "no answer", time.monotonic() - began
    except ConnectionRefusedError:
        return "refused", time.monotonic() - began
    except OSError:
        return "cut", time.monotonic() - began
    words = line.split()
    return (words[1].decode() if len(words) > 1 else "cut"), time.monotonic() - began


def herd(address: tuple[str, int], request: bytes, size: int) -> tuple[dict[str, int], float]:
    """Open so many connections at once, one request on each; return what came back and the slowest answer's seconds."""

    async def together() -> list[tuple[str, float]]:
        return await asyncio.gather(*(_one(*address, request) for _ in range(size)))

    answers = asyncio.run(together())
    return dict(Counter(outcome for outcome, _ in answers)), max(seconds for _, seconds in answers)
