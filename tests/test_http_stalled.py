"""Clients that stop sending in the middle of a body: nobody waits for them, and they are cut off."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from fixtures.sidecars import Sidecar
from http_sidecar import address, ask, raw, serving

pytestmark = [
    pytest.mark.servers("any"),
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what only Linux tells"),
]


@pytest.fixture
def sidecar(module_database: str, tmp_path: Path) -> Iterator[Sidecar]:
    with serving(module_database, tmp_path / "sidecar.log") as running:
        yield running


def test_bodies_that_never_come_hold_up_nobody_and_are_cut_off(sidecar: Sidecar) -> None:
    length = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n{"
    chunked = b'POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"namesp'
    head = length.replace(b"3000000", b"100")
    host, port = address(sidecar)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, port), timeout=20)) for _ in range(200)]
        for number, sock in enumerate(slow):
            sock.sendall((head, length, chunked)[number % 3])
        idle = stack.enter_context(closing(http.client.HTTPConnection(host, port, timeout=20)))
        for _ in range(3):
            assert ask(sidecar, "POST", "/v1/search", {"namespaces": ["workspace:a"]}).status == 200
            assert ask(sidecar, "DELETE", "/v1/namespaces/workspace:none").status == 404
            idle.request("GET", "/v1/health")
            assert idle.getresponse().read()
        for number, sock in enumerate(slow):
            assert sock.recv(12) == (b"HTTP/1.1 413" if number % 3 == 1 else b"HTTP/1.1 400")
        # Who only had nothing to say is connected still.
        idle.request("GET", "/v1/health")
        assert idle.getresponse().status == 200
    assert re.search("WARNING stalled_bodies cut_off=[0-9]+", sidecar.log())


def test_a_body_that_drips_is_cut_off_and_one_that_takes_its_time_is_not(sidecar: Sidecar) -> None:
    body = json.dumps({"namespaces": ["workspace:a"], "unknown": "x" * 900_000}).encode()
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(address(sidecar), timeout=20) as dripping:
        dripping.sendall(head)
        over = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                while not over.wait(0.1):
                    dripping.sendall(b" ")

        def slowly(sock: socket.socket) -> None:
            # A tenth every 0.7 s: longer in all than a body of any length may take.
            for start in range(0, len(body), 100_000):
                over.wait(0.7)
                sock.sendall(body[start : start + 100_000])

        threading.Thread(target=drip, daemon=True).start()
        try:
            assert raw(sidecar, head, then=slowly).status == 200
            assert dripping.recv(12) == b"HTTP/1.1 400"
        finally:
            over.set()
