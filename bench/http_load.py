"""Keep a sidecar busy over a few connections, from one process, at as little cost as will do."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Load:
    """What a stretch of load came to."""

    requests_s: float = 0.0
    latencies: list[float] = field(default_factory=list)


def http(method: str, path: str, body: object) -> bytes:
    """Return the bytes of a request; a vector in the body is already text."""
    text = body if isinstance(body, str) else json.dumps(body)
    headers = f"Host: bench\r\nContent-Type: application/json\r\nContent-Length: {len(text)}"
    return f"{method} {path} HTTP/1.1\r\n{headers}\r\n\r\n{text}".encode()


def press(
    port: int, requests: list[bytes], clients: int, seconds: float, keep: bool = False
) -> tuple[Load, list[bytes]]:
    """Keep so many connections busy for a while; return the load and, if asked, the answers in order (one client)."""
    result, bodies = Load(), []
    chooser = selectors.DefaultSelector()
    position = 0
    sockets = []
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
    start = time.perf_counter()
    end = start + seconds
    waiting: dict[socket.socket, tuple[float, bytearray]] = {}
    for sock in sockets:
        sock.sendall(requests[position % len(requests)])
        waiting[sock] = (time.perf_counter(), bytearray())
        position += 1
        chooser.register(sock, selectors.EVENT_READ, sock)
    while waiting:
        for key, _ in chooser.select():
            sock = key.data
            sent, buffer = waiting[sock]
            piece = sock.recv(262144)
            if not piece:
                raise RuntimeError("the connection was closed")
            buffer += piece
            body = answered(buffer)
            if body is None:
                continue
            now = time.perf_counter()
            result.latencies.append((now - sent) * 1000)
            if keep:
                bodies.append(body)
            more = len(bodies) < len(requests) if keep else now < end
            if more:
                sock.sendall(requests[position % len(requests)])
                position += 1
                waiting[sock] = (time.perf_counter(), bytearray())
            else:
                chooser.unregister(sock)
                del waiting[sock]
                sock.close()
    result.requests_s = len(result.latencies) / (time.perf_counter() - start)
    return result, bodies


def answered(buffer: bytearray) -> bytes | None:
    """Return the body of a whole 2xx response, None while it is still arriving."""
    head, found, body = buffer.partition(b"\r\n\r\n")
    if not found:
        return None
    if not head.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(bytes(buffer[:500]).decode(errors="replace"))
    lower = bytes(head).lower()
    if b"transfer-encoding: chunked" in lower:
        if not body.endswith(b"0\r\n\r\n"):
            return None
        pieces = bytes(body)
        whole = b""
        while pieces:
            size, _, rest = pieces.partition(b"\r\n")
            whole, pieces = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return whole
    length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return bytes(body) if len(body) >= length else None


@contextmanager
def serving(command: list[str], url: str) -> Iterator[int]:
    """Run a sidecar on a database until the end; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environ = {
        **os.environ,
        "MEMORY_PLUGIN_CONNINFO": url,
        "MEMORY_PLUGIN_DATABASE_URL": url,
        "MEMORY_PLUGIN_LISTEN_ADDR": f"127.0.0.1:{port}",
    }
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    press(port, [http("GET", "/v1/health", "")], 1, 0)
                    break
                except (OSError, RuntimeError):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()
