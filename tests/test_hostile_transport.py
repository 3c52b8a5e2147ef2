"""Bytes on the socket that no client of good will sends: answered cleanly or hung up on, and nobody else notices."""

from __future__ import annotations

import gzip
import http.client
import json
import select
import socket
import time

import pytest

from fixtures.sidecars import Sidecar
from hostile import Watch
from http_sidecar import Answer, address, ask, raw

pytestmark = pytest.mark.servers("any")
GOOD = b'{"namespaces":["workspace:a"]}'
HOST = b"Host: x\r\n"


def post(headers: bytes, body: bytes = GOOD, path: bytes = b"/v1/search") -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


def put(path: bytes) -> bytes:
    body = b'{"kind":"team"}'
    return b"PUT " + path + b" HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body


# What is sent, and the statuses it may have; 0 is a connection closed without an answer.
REFUSED = {
    "no http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 200, {0, 400}),
    "http 2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 400, 405, 505}),
    "postgres": (b"\x00\x00\x00\x08\x04\xd2\x16\x2f" * 20, {0, 400}),
    "no version": (b"GET /v1/health\r\n\r\n", {0, 400}),
    "lengths that differ": (post(b"Content-Length: 5\r\nContent-Length: 30\r\n"), {400}),
    "negative length": (post(b"Content-Length: -1\r\n"), {400}),
    "signed length": (post(b"Content-Length: +30\r\n"), {400}),
    "hexadecimal length": (post(b"Content-Length: 0x1e\r\n"), {400}),
    "absurd length": (post(b"Content-Length: " + b"9" * 30 + b"\r\n"), {400, 413}),
    "list of lengths": (post(b"Content-Length: 30, 31\r\n"), {400}),
    "negative chunk": (post(b"Transfer-Encoding: chunked\r\n", b"-1\r\n{}\r\n0\r\n\r\n"), {0, 400}),
    "absurd chunk": (post(b"Transfer-Encoding: chunked\r\n", b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n"), {0, 400}),
    "chunk without size": (post(b"Transfer-Encoding: chunked\r\n", b"\r\n{}\r\n0\r\n\r\n"), {0, 400}),
    "unknown transfer": (post(b"Transfer-Encoding: gzip\r\n"), {0, 400, 501}),
    "nul in a header": (post(b"X-A: a\x00b\r\nContent-Length: 30\r\n"), {400}),
    "space before colon": (post(b"Content-Length : 30\r\n"), {400}),
    "folded header": (post(b"X-A: a\r\n b\r\nContent-Length: 30\r\n"), {200, 400}),
    "gzipped body": (
        post(b"Content-Encoding: gzip\r\nContent-Length: %d\r\n" % len(gzip.compress(GOOD)), gzip.compress(GOOD)),
        {400},
    ),
    "unknown method": (b"FROBNICATE /v1/search HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "small letters": (b"get /v1/health HTTP/1.1\r\n" + HOST + b"\r\n", {400, 405}),
    "trace": (b"TRACE /v1/health HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "connect": (b"CONNECT x:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "upgrade": (
        b"GET /v1/health HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        {200, 400, 426},
    ),
    "a path of 100 kB": (put(b"/v1/namespaces/workspace:" + b"a" * 100_000), {400, 414}),
    "a name of 60 kB": (put(b"/v1/namespaces/workspace:" + b"a" * 60_000), {400}),
    "raw bytes in the path": (put(b"/v1/namespaces/workspace:\xff\xfe"), {400}),
    "raw utf-8 in the path": (put("/v1/namespaces/workspace:é".encode()), {400}),
    "a space in the path": (put(b"/v1/namespaces/workspace:a b"), {400}),
    "a nul in the path": (put(b"/v1/namespaces/workspace:a\x00"), {400}),
    "half an escape": (put(b"/v1/namespaces/workspace:a%2"), {400}),
    "an escape of no digits": (put(b"/v1/namespaces/workspace:a%zz"), {400}),
    "an overlong slash": (put(b"/v1/namespaces/workspace:a%c0%af"), {400}),
    "an encoded newline": (put(b"/v1/namespaces/workspace:a%0d%0aX-A:%20b"), {400}),
    "an encoded question mark": (put(b"/v1/namespaces/workspace:a%3Fb"), {400}),
    "a semicolon": (put(b"/v1/namespaces/workspace:a;v=1"), {400}),
    "a backslash": (put(b"/v1/namespaces/workspace:a\\..\\b"), {400}),
    "dots to climb": (put(b"/v1/namespaces/../namespaces/workspace:a"), {404}),
    "encoded dots to climb": (put(b"/v1/namespaces/%2e%2e/workspace:a"), {404}),
    "encoded slashes to climb": (put(b"/v1/namespaces/..%2f..%2fetc%2fpasswd"), {400, 404}),
    "a double slash": (put(b"//v1/namespaces/workspace:a"), {400, 404}),
    "an encoded path": (put(b"%2Fv1%2Fnamespaces%2Fworkspace:a"), {400, 404}),
    "a header of 1 MB": (post(b"X-A: " + b"a" * 1_000_000 + b"\r\nContent-Length: 30\r\n"), {0, 431}),
    "10,000 headers": (post(b"X-A: a\r\n" * 10_000 + b"Content-Length: 30\r\n"), {0, 431}),
}  # fmt: skip


def status_of(sidecar: Sidecar, message: bytes) -> int:
    try:
        answer = raw(sidecar, message, then=_no_more)
    except (http.client.BadStatusLine, ConnectionError):
        return 0
    if answer.status >= 400 and answer.headers.get("content-type") == "application/json":
        assert answer.json["code"] in ("bad_request", "not_found")
    return answer.status


def _no_more(sock: socket.socket) -> None:
    """Say that nothing follows, once it is clear that the service waits for more: it drops whom it thinks gone."""
    if not select.select([sock], [], [], 0.5)[0]:
        sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_malformed_is_refused_and_stores_nothing(shared_sidecar: Sidecar, watch: Watch, name: str) -> None:
    message, statuses = REFUSED[name]
    with watch.unchanged():
        assert status_of(shared_sidecar, message) in statuses


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/namespaces/workspace:%2e%2e", "workspace:.."),
        (b"/v1/namespaces/workspace:..", "workspace:.."),
        (b"/v1/namespaces/%77orkspace%3aup", "workspace:up"),
        (b"/v1/namespaces/workspace:q?x=/../%00&workspace:b", "workspace:q"),
        (b"http://elsewhere/v1/namespaces/workspace:absolute", "workspace:absolute"),
    ],
)
def test_a_path_that_only_looks_hostile_names_what_it_says(shared_sidecar: Sidecar, path: bytes, name: str) -> None:
    answer = raw(shared_sidecar, put(path))
    assert (answer.status, answer.json["name"]) == (200, name)


@pytest.mark.parametrize(
    "message",
    [
        post(b"Content-Length: 30\r\nContent-Length: 30\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"1e;a=b;c\r\n" + GOOD + b"\r\n0\r\nX-Trailer: x\r\n\r\n"),
        post(b"Transfer-Encoding: chunked\r\n", b"0001E\r\n" + GOOD + b"\r\n000\r\n\r\n"),
        post(b"Content-Length: 30\r\nExpect: 200-maybe\r\n"),
        post(b"Content-Type: text/html\r\nContent-Type: image/png\r\nContent-Length: 30\r\n"),
        post(b"Content-Length: 30\r\n" + b"X-A: a\r\n" * 90),
        post(b"Content-Length: 30\r\nX-Request-Id: a\tb\r\nX-Forwarded-For: ' or 1=1\r\nTransfer: x\r\n"),
        post(b"Content-Length: 30\r\nX-HTTP-Method-Override: DELETE\r\n"),
    ],
    ids=[
        "same length twice",
        "chunk extensions",
        "zeros before",
        "expect",
        "two types",
        "90 headers",
        "odd values",
        "override",
    ],
)
def test_what_is_odd_but_whole_is_answered(shared_sidecar: Sidecar, watch: Watch, message: bytes) -> None:
    with watch.unchanged():
        assert raw(shared_sidecar, message).status in (200, 400)


def test_a_request_inside_a_body_is_never_run(shared_sidecar: Sidecar, watch: Watch) -> None:
    inner = put(b"/v1/namespaces/workspace:smuggled")
    for headers in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked, identity\r\nContent-Length: %d\r\n" % len(inner),
        b"Content-Length: %d\r\n" % len(inner),
    ):
        with watch.quick():
            status_of(shared_sidecar, post(headers, b"%x\r\n" % len(inner) + inner + b"\r\n0\r\n\r\n"))
    # The last one announced too little on purpose: what follows a body is the next request, and that is no request.
    assert ask(shared_sidecar, "DELETE", "/v1/namespaces/workspace:smuggled").status == 404


def test_100_requests_at_once_on_one_connection_are_answered_in_order(shared_sidecar: Sidecar) -> None:
    count = 100
    wanted = [f"workspace:pipe{number}" for number in range(count)]
    body = b'{"kind":"team"}'
    start = time.monotonic()
    with socket.create_connection(address(shared_sidecar), timeout=10) as sock:
        sock.sendall(
            b"".join(
                b"PUT /v1/namespaces/%s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s"
                % (name.encode(), b"Connection: close\r\n" if name == wanted[-1] else b"", len(body), body)
                for name in wanted
            )
        )
        received = b""
        while part := sock.recv(65536):
            received += part
    assert time.monotonic() - start < 10
    assert received.count(b"HTTP/1.1 200 OK") == count
    assert [
        json.loads(b'{"name' + part.partition(b"}")[0] + b"}")["name"] for part in received.split(b'{"name')[1:]
    ] == wanted


def test_clients_that_stop_in_the_middle_of_their_headers_hold_up_nobody(shared_sidecar: Sidecar, watch: Watch) -> None:
    held = [socket.create_connection(address(shared_sidecar)) for _ in range(300)]
    try:
        for number, sock in enumerate(held):
            sock.sendall(b"POST /v1/search HTTP/1.1\r\nHost: x\r\nX-Slow: "[: 5 + number % 40])
        with watch.quick():
            assert ask(shared_sidecar, "POST", "/v1/search", GOOD).status == 200
    finally:
        for sock in held:
            sock.close()


def test_clients_that_hang_up_without_reading_leave_the_service_whole(shared_sidecar: Sidecar, watch: Watch) -> None:
    name = "workspace:hang"
    body = json.dumps({"content": "y" * 200_000, "kind": "fact", "source": "agent"}).encode()
    for _ in range(3):
        assert ask(shared_sidecar, "POST", f"/v1/namespaces/{name}/memories", body).status == 201
    search = json.dumps({"namespaces": [name], "limit": 100}).encode()
    for _ in range(30):
        with socket.create_connection(address(shared_sidecar)) as sock:
            # Closed with data unread, so that the peer's writes fail.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            sock.sendall(post(b"Content-Length: %d\r\n" % len(search), search))
    with watch.quick():
        answer = ask(shared_sidecar, "POST", "/v1/search", search)
    assert len(answer.json["memories"]) == 3


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 10_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413_and_the_next_request_is_served(
    shared_sidecar: Sidecar, watch: Watch, size: int, chunked: bool
) -> None:
    body = b'{"content":"' + b"x" * (size - 13) + b'"}'
    with watch.unchanged():
        path = b"/v1/namespaces/workspace:a/memories"
        if chunked:
            message = post(b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (size, body), path)
        else:
            message = post(b"Content-Length: %d\r\n" % size, body, path)
        answer = raw(shared_sidecar, message)
    assert (answer.status, answer.json["code"]) == (413, "bad_request")


def test_a_body_of_exactly_one_mebibyte_is_stored_and_found(shared_sidecar: Sidecar, watch: Watch) -> None:
    frame = len(b'{"content":"","kind":"fact","source":"agent"}')
    content = ("lorem ipsum " * 100_000)[: 1024 * 1024 - frame - 6] + " zebra"
    body = b'{"content":"%s","kind":"fact","source":"agent"}' % content.encode()
    assert len(body) == 1024 * 1024
    name = "workspace:large"
    with watch.quick():
        assert ask(shared_sidecar, "POST", f"/v1/namespaces/{name}/memories", body).status == 201
    for query in (None, "zebra"):
        with watch.quick():
            found = ask(shared_sidecar, "POST", "/v1/search", {"namespaces": [name], "query": query}).json["memories"]
        assert [memory["content"] == content for memory in found] == [True]


def test_an_answer_of_50_mb_is_a_clean_400_and_a_smaller_one_comes(shared_sidecar: Sidecar, watch: Watch) -> None:
    name = "workspace:heavy"
    # By SQL and of one word, so that making them takes no longer than the test.
    watch.connection.execute(
        "select memory_plugin.commit_memory(%s, repeat('y', 1000000) || n) from generate_series(1, 50) as n", [name]
    )

    def listed(limit: int) -> Answer:
        with watch.quick():
            return ask(shared_sidecar, "POST", "/v1/search", {"namespaces": [name], "limit": limit})

    large, small = listed(50), listed(5)
    assert large.status == 400
    assert "limit must be smaller" in large.json["message"]
    assert small.status == 200
    assert len(small.json["memories"]) == 5
