"""Clients that stop in the middle of sending or reading: nobody waits for them, and they are cut off."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psycopg
import pytest

from fixtures.sidecars import Sidecar
from http_sidecar import address, ask, raw, serving
from memory_plugin.thin_api.answers import LARGE, Answers, Pieces
from memory_plugin.thin_api.body import READERS, Reading
from memory_plugin.thin_api.errors import RefusedError
from memory_plugin.thin_api.stalled import Watch

HEAVY = 16_000_000

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
    assert re.search("WARNING stalled bodies=[0-9]+ answers=0", sidecar.log())


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


def test_a_chunked_body_that_is_cut_off_is_refused_even_if_it_looks_whole(sidecar: Sidecar) -> None:
    body = b'{"content":"x","kind":"fact","source":"agent"}'
    head = b"POST /v1/namespaces/team:cut/memories HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(address(sidecar), timeout=20) as sock:
        sock.sendall(head + b"%x\r\n%s\r\n" % (len(body), body))
        assert _answer(sock) == 400
    assert ask(sidecar, "DELETE", "/v1/namespaces/team:cut").status == 404


def test_bodies_asked_for_with_100_continue_that_never_come_are_cut_off(sidecar: Sidecar) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address(sidecar), timeout=20)) for _ in range(READERS)]
        for sock in slow:
            sock.sendall(head)
        for sock in slow:
            assert sock.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask(sidecar, "POST", "/v1/search", {"namespaces": ["workspace:a"]}).status == 503
        for sock in slow:
            assert sock.recv(12) == b"HTTP/1.1 400"
        assert ask(sidecar, "POST", "/v1/search", {"namespaces": ["workspace:a"]}).status == 200


def test_bodies_that_stop_after_the_servers_last_word_are_cut_off_and_idle_connections_are_not(
    sidecar: Sidecar,
) -> None:
    health = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\n%sContent-Length: 100\r\n\r\n"
    with ExitStack() as stack:

        def connected() -> socket.socket:
            return stack.enter_context(socket.create_connection(address(sidecar), timeout=20))

        idle, slow = [], []
        for number in range(16):
            # Each idle one was answered a moment before or after one that stalls.
            idle.append(connected())
            idle[-1].sendall(health)
            assert _answer(idle[-1]) == 200
            time.sleep(0.15)
            slow.append(connected())
            if number % 2:
                slow[-1].sendall(health + head % b"" + b"{")
                assert _answer(slow[-1]) == 200
            else:
                slow[-1].sendall(health)
                assert _answer(slow[-1]) == 200
                slow[-1].sendall(head % b"Expect: 100-continue\r\n")
                assert slow[-1].recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
            time.sleep(0.15)
        for sock in slow:
            assert _answer(sock) == 400
        for sock in idle:
            sock.sendall(health)
            assert _answer(sock) == 200


def _answer(sock: socket.socket) -> int:
    """Return the status of the next answer on a connection."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    response.read()
    return response.status


def test_a_large_answer_that_nobody_reads_is_cut_off_and_one_read_slowly_is_not(database: str, tmp_path: Path) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        # Only the size matters here, not what it takes to find so much.
        conn.execute(
            "create or replace function memory_plugin.v1_search(body json) returns json language sql as "
            f"$$ select ('\"' || repeat('x', {HEAVY}) || '\"')::json $$"
        )
    request = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    with serving(database, tmp_path / "sidecar.log") as sidecar, ExitStack() as stack:

        def asked() -> socket.socket:
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.settimeout(20)
            sock.connect(address(sidecar))
            sock.sendall(request)
            return sock

        unread, slow = asked(), asked()
        assert unread.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        received = 0
        while "WARNING stalled bodies=0 answers=1" not in sidecar.log():
            part = slow.recv(65536)
            assert part, "the one that is read slowly was cut off"
            received += len(part)
            assert received < HEAVY, "the one that nobody reads was not cut off"
            # As slowly as to be at it still when the other one is cut off.
            time.sleep(0.1)
        assert _rest(slow) + received > HEAVY
        assert _rest(unread) < HEAVY - 12
        assert ask(sidecar, "GET", "/v1/health").status == 200


@pytest.mark.parametrize("body_is_awaited", [False, True])
def test_a_request_whose_answer_takes_long_is_cut_off_only_where_a_body_may_be_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, body_is_awaited: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as stack:
        port = listening.getsockname()[1]
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        accepted = stack.enter_context(listening.accept()[0])
        accepted.settimeout(0.5)
        client.sendall(b"POST /v1/search")
        assert accepted.recv(100) == b"POST /v1/search"
        # Somebody else's large answer is why connections are looked at.
        watch = Watch(port, {1: Reading()} if body_is_awaited else {}, {1: time.monotonic()})
        now = time.monotonic()
        for later in (2.0, 3.0, 9.0):
            monkeypatch.setattr("memory_plugin.thin_api.stalled.monotonic", lambda at=later: now + at)
            watch.look()
        if body_is_awaited:
            assert accepted.recv(1) == b""
        else:
            with pytest.raises(TimeoutError):
                accepted.recv(1)


def _rest(sock: socket.socket) -> int:
    """Return how many bytes are still to be had."""
    count = 0
    with suppress(ConnectionError):
        while part := sock.recv(1 << 20):
            count += len(part)
    return count


def test_what_is_being_sent_is_counted_until_it_is_sent_or_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.answers.MOST", 3 * LARGE)
    answers = Answers()
    small, large = b"x" * (LARGE - 1), b"y" * (LARGE + 1)
    assert answers.parts(small) == [small]
    first, second = answers.parts(large), answers.parts(large)
    assert isinstance(first, Pieces)
    assert isinstance(second, Pieces)
    with pytest.raises(RefusedError) as caught:
        answers.parts(large)
    assert (caught.value.status, caught.value.reason) == (503, "answers")
    assert b"".join(first) == large
    third = answers.parts(large)
    assert isinstance(third, Pieces)
    next(third)
    for given_up in (second, third, third):
        given_up.close()
    assert answers.sending == {}
    # One that is larger than all together may take is sent alone.
    assert b"".join(answers.parts(large * 4)) == large * 4
