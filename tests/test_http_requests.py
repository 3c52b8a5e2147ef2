"""What reaches a statement and what does not: paths, methods, names, bodies, headers."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from fixtures.sidecars import Sidecar
from http_sidecar import ask, raw, serving
from memory_plugin.thin_api.routes import ROUTES

pytestmark = pytest.mark.servers("any")

LIMIT = 20_000
PATHS = {
    "/v1/health": "GET",
    "/v1/openapi.json": "GET",
    "/v1/namespaces/workspace:a": "DELETE, PATCH, PUT",
    "/v1/namespaces/workspace:a/memories": "POST",
    "/v1/search": "POST",
    "/v1/memories/1f7f9e5e-5f1c-4f0e-9a55-2f6f6f0f6d10": "DELETE",
}
UNKNOWN = [
    *("/", "/v1", "/v1/", "/V1/health", "/v2/health", "/v1/health/", "/v1//search", "*"),
    *("/v1/namespaces", "/v1/namespaces/", "/v1/namespaces/workspace:a/", "/v1/namespaces/a/b"),
    *("/v1/namespaces//memories", "/v1/memories/", "/v1/memories/a/b"),
]
MEMORY = {"content": "tabs, not spaces", "kind": "fact", "source": "agent"}


@pytest.fixture(scope="module")
def sidecar(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    log_file = tmp_path_factory.mktemp("http") / "sidecar.log"
    with serving(module_database, log_file, MEMORY_PLUGIN_MAX_BODY=str(LIMIT)) as running:
        yield running


@pytest.mark.parametrize("path", UNKNOWN)
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_an_unknown_path_is_not_found_whatever_the_method(sidecar: Sidecar, method: str, path: str) -> None:
    answer = ask(sidecar, method, path)
    assert answer.status == 404
    assert answer.json["code"] == "not_found"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("path", "allow"), PATHS.items())
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"])
def test_a_known_path_with_another_method_is_405_with_allow(
    sidecar: Sidecar, method: str, path: str, allow: str
) -> None:
    if method in allow.split(", "):
        # Its own methods are other tests' matter: here only that they are not refused as such.
        assert ask(sidecar, method, path).status != 405
        return
    answer = ask(sidecar, method, path)
    assert answer.status == 405
    assert answer.headers["allow"] == allow
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert answer.json["code"] == "bad_request"


def test_a_query_string_changes_nothing(sidecar: Sidecar) -> None:
    assert ask(sidecar, "GET", "/v1/health?x=/v1/none").status == 200


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("workspace%3Apercent", "workspace:percent"),
        ("workspace:percent", "workspace:percent"),
        ("%77orkspace%3apercent", "workspace:percent"),
    ],
)
def test_a_name_may_be_percent_encoded(sidecar: Sidecar, sent: str, name: str) -> None:
    put = ask(sidecar, "PUT", f"/v1/namespaces/{sent}", {"kind": "workspace"})
    assert (put.status, put.json["name"]) == (200, name)
    committed = ask(sidecar, "POST", f"/v1/namespaces/{sent}/memories", MEMORY)
    assert (committed.status, committed.json["namespace"]) == (201, name)


def test_a_name_is_decoded_once(sidecar: Sidecar) -> None:
    answer = ask(sidecar, "PUT", "/v1/namespaces/workspace%253Ax", {"kind": "workspace"})
    assert answer.status == 400
    assert "name" in answer.json["message"]


@pytest.mark.parametrize("name", ["workspace:%00", "workspace:a%00b", "workspace:%FF", "workspace:%C3%28", "%00"])
def test_a_name_that_is_no_text_is_a_bad_request(sidecar: Sidecar, name: str) -> None:
    for method, path, body in (
        ("PUT", f"/v1/namespaces/{name}", {"kind": "workspace"}),
        ("PATCH", f"/v1/namespaces/{name}", {"metadata": {}}),
        ("DELETE", f"/v1/namespaces/{name}", None),
        ("POST", f"/v1/namespaces/{name}/memories", MEMORY),
    ):
        answer = ask(sidecar, method, path, body)
        assert (answer.status, answer.json["code"]) == (400, "bad_request")


@pytest.mark.parametrize("name", ["workspace:%C3%A9", "workspace:%25", "workspace:%20", "..", "%2e%2e", "'--", "a;b"])
def test_a_name_that_breaks_the_rules_is_a_bad_request(sidecar: Sidecar, name: str) -> None:
    assert ask(sidecar, "PUT", f"/v1/namespaces/{name}", {"kind": "workspace"}).status == 400


@pytest.mark.parametrize("name", ["workspace:a%2Fb", "workspace:%2F", "%2F"])
def test_a_slash_in_a_name_is_never_stored_or_served(sidecar: Sidecar, name: str) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        answer = ask(sidecar, method, f"/v1/namespaces/{name}", {"kind": "workspace", "metadata": {}})
        assert answer.status in (400, 404)
    assert ask(sidecar, "POST", f"/v1/namespaces/{name}/memories", MEMORY).status in (400, 404)


def test_the_longest_path_with_its_query_is_taken_and_a_longer_one_is_414_without_a_body(sidecar: Sidecar) -> None:
    start = "/v1/health?"
    assert ask(sidecar, "GET", start.ljust(65_534, "x")).status == 200
    answer = ask(sidecar, "GET", start.ljust(65_535, "x"))
    assert (answer.status, answer.body) == (414, b"")


@pytest.mark.parametrize("name", ["1", "%00", "%FF", "1f7f9e5e-5f1c-4f0e-9a55-2f6f6f0f6d1", "'; drop table x"])
def test_a_malformed_id_is_not_found_on_forget(sidecar: Sidecar, name: str) -> None:
    path = f"/v1/memories/{name}".replace(" ", "%20")
    answer = ask(sidecar, "DELETE", path, {"requested_by_namespace": "workspace:a"})
    assert (answer.status, answer.json["code"]) == (404, "not_found")


BODIED = [
    (route.method, route.path.replace("{name}", "workspace:b").replace("{id}", "x"))
    for route in ROUTES
    if "body" in route.parameters
]


@pytest.mark.parametrize(("method", "path"), BODIED)
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body is required"),
        (b" \n", "body is required"),
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"null", "object"),
        (b'"x"', "object"),
        (b'{"kind":"fact"} {}', "JSON"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b'{"kind": "\xff"}', "UTF-8"),
        (b'{"kind": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"kind": "\x00"}', "NUL"),
        ('{"kind": "é"}'.encode("utf-16"), "UTF-8"),
        (b"[" * 19_000, "nested"),
    ],
    ids=[
        "none",
        "blank",
        "cut",
        "array",
        "null",
        "string",
        "two",
        "bom",
        "latin1",
        "surrogate",
        "nul",
        "utf16",
        "deep",
    ],
)
def test_a_body_that_is_no_json_object_is_a_bad_request(
    sidecar: Sidecar, method: str, path: str, body: bytes, named: str
) -> None:
    answer = ask(sidecar, method, path, body)
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert named in answer.json["message"]


def test_a_body_of_exactly_the_limit_is_taken(sidecar: Sidecar) -> None:
    body = json.dumps({"namespaces": ["workspace:a"]}).encode().ljust(LIMIT)
    assert ask(sidecar, "POST", "/v1/search", body).status == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT, 10_000_000])
def test_a_body_over_the_limit_is_413(sidecar: Sidecar, size: int) -> None:
    answer = ask(sidecar, "POST", "/v1/search", b" " * size)
    assert (answer.status, answer.json["code"]) == (413, "bad_request")
    assert str(LIMIT) in answer.json["message"]


def test_a_declared_length_over_the_limit_is_413_before_the_body_is_sent(sidecar: Sidecar) -> None:
    answer = raw(
        sidecar,
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n{}",
        then=lambda sock: sock.shutdown(socket.SHUT_WR),
    )
    assert answer.status == 413


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT, 10_000_000])
def test_a_chunked_body_over_the_limit_is_413(sidecar: Sidecar, size: int) -> None:
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(sidecar, head, b"%x\r\n" % size, b" " * size, b"\r\n0\r\n\r\n")
    assert (answer.status, answer.json["code"]) == (413, "bad_request")


def test_a_chunked_body_is_put_together(sidecar: Sidecar) -> None:
    body = json.dumps({"namespaces": ["workspace:a"], "query": "é" * 100}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7))
    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(sidecar, head, chunks + b"0\r\n\r\n")
    assert (answer.status, answer.json["memories"]) == (200, [])


@pytest.mark.parametrize(
    "message",
    [
        b'Content-Length: 60\r\n\r\n{"namespaces":["workspace:a"]}',
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{",
        b"Transfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_a_body_that_ends_early_is_a_bad_request(sidecar: Sidecar, message: bytes) -> None:
    answer = raw(
        sidecar,
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\n" + message,
        then=lambda sock: sock.shutdown(socket.SHUT_WR),
    )
    assert answer.status == 400


@pytest.mark.parametrize("tail", [b"zz\r\n", b"5\r\n{}", b"-1\r\n", b'5\r\nx"y"z\r\n0\r\n\r\n'])
def test_of_a_chunked_body_that_breaks_off_nothing_is_stored_but_a_whole_memory(sidecar: Sidecar, tail: bytes) -> None:
    name = "workspace:broken"
    whole = json.dumps(MEMORY).encode()
    head = b"POST /v1/namespaces/%s/memories HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % name.encode()
    for body in (whole, whole[:-1], whole + b"{"):
        with suppress(http.client.HTTPException, ConnectionError):
            answer = raw(
                sidecar,
                head + b"%x\r\n%s\r\n" % (len(body), body) + tail,
                then=lambda sock: sock.shutdown(socket.SHUT_WR),
            )
            assert answer.status == 400 or body == whole
    found = ask(sidecar, "POST", "/v1/search", {"namespaces": [name]}).json["memories"]
    assert {memory["content"] for memory in found} <= {MEMORY["content"]}


def test_a_slow_body_does_not_count_against_the_answer(sidecar: Sidecar) -> None:
    body = json.dumps({"namespaces": ["workspace:a"]}).encode()
    start = time.monotonic()

    def drip(sock: socket.socket) -> None:
        # Longer than an answer may take; meanwhile everybody else is served.
        while time.monotonic() < start + 2:
            assert ask(sidecar, "GET", "/v1/health").status == 200
        sock.sendall(body[9:])

    head = b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert raw(sidecar, head + body[:9], then=drip).status == 200


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/json; charset=latin-1", "nonsense"])
def test_any_content_type_is_taken_or_none(sidecar: Sidecar, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = sidecar.client.post("/v1/search", content=b'{"namespaces":["workspace:a"]}', headers=headers)
    assert answer.status_code == 200


def test_delete_of_a_namespace_ignores_a_body(sidecar: Sidecar) -> None:
    ask(sidecar, "PUT", "/v1/namespaces/workspace:gone", {"kind": "workspace"})
    answer = ask(sidecar, "DELETE", "/v1/namespaces/workspace:gone", b"not json")
    assert (answer.status, answer.body) == (204, b"")


def test_a_204_has_neither_body_nor_type(sidecar: Sidecar) -> None:
    ask(sidecar, "PUT", "/v1/namespaces/workspace:gone", {"kind": "workspace"})
    answer = ask(sidecar, "DELETE", "/v1/namespaces/workspace:gone")
    assert answer.status == 204
    assert "content-type" not in answer.headers
    assert answer.body == b""


def test_expect_100_continue_is_answered(sidecar: Sidecar) -> None:
    body = b'{"namespaces":["workspace:a"]}'
    host, port = sidecar.base_url.removeprefix("http://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(
            b"POST /v1/search HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")


def test_a_connection_stays_open_after_errors(sidecar: Sidecar) -> None:
    with httpx.Client(base_url=sidecar.base_url, limits=httpx.Limits(max_connections=1), trust_env=False) as client:
        streams = set()
        for path, status in (("/v1/none", 404), ("/v1/search", 405), ("/v1/health", 200)):
            answer = client.get(path)
            assert answer.status_code == status
            streams.add(answer.extensions["network_stream"].get_extra_info("client_addr"))
        assert len(streams) == 1


def test_every_answer_has_an_id(sidecar: Sidecar) -> None:
    seen = {ask(sidecar, "GET", path).headers["x-request-id"] for path in ("/v1/health", "/v1/none", "/v1/search")}
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("given", "kept"), [("trace-1.a_B", True), ("x" * 64, True), ("x" * 65, False), ("a b", False)]
)
def test_a_callers_id_is_kept_when_it_is_one(sidecar: Sidecar, given: str, kept: bool) -> None:
    answer = sidecar.client.get("/v1/health", headers={"X-Request-Id": given})
    assert (answer.headers["x-request-id"] == given) is kept


def test_the_log_holds_no_content_and_no_name(sidecar: Sidecar) -> None:
    ask(sidecar, "POST", "/v1/namespaces/workspace:secretname/memories", {**MEMORY, "content": "secretcontent"})
    ask(sidecar, "POST", "/v1/search", b'{"secretcontent')
    assert "secret" not in Path(sidecar.log_file).read_text()
