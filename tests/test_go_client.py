"""The earlier compiled client, as a double: how it writes requests, how long it waits, how it reads answers."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fixtures.installing import install
from fixtures.server import Server
from fixtures.sidecars import Sidecar, wait_until
from http_sidecar import address, health, serving

pytestmark = pytest.mark.servers("any")

# What a Go struct declares: field -> (type, required). Numbers are float64, times RFC 3339 with any fraction.
NAMESPACE = {
    "name": (str, True),
    "kind": (str, True),
    "expires_at": (datetime, False),
    "metadata": (dict, False),
    "created_at": (datetime, True),
}
MEMORY = {
    "id": (str, True),
    "namespace": (str, True),
    "content": (str, True),
    "kind": (str, True),
    "source": (str, True),
    "expires_at": (datetime, False),
    "propagation": (dict, False),
    "pin": (bool, False),
    "created_at": (datetime, True),
    "score": (float, False),
}
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})")


def path_escape(text: str) -> str:
    """Escape as Go's url.PathEscape does: it leaves $&+=:@ alone and writes %2F for a slash."""
    return quote(text, safe="$&+=:@")


def decode(value: Any, fields: dict[str, tuple[type, bool]]) -> dict[str, Any]:
    """Decode as encoding/json into a struct: a wrong type is an error, an unknown field is not, null is as absent."""
    assert isinstance(value, dict), value
    for name, (wanted, required) in fields.items():
        found = value.get(name)
        if name in value:
            # Optional fields are left out, never null: a pointer would not tell the two apart, other clients do.
            assert found is not None, name
        elif required:
            pytest.fail(f"{name} is missing: {value}")
        else:
            continue
        if wanted is datetime:
            assert isinstance(found, str), name
            assert TIME.fullmatch(found), found
        elif wanted is float:
            assert isinstance(found, (int, float)), name
            assert not isinstance(found, bool), name
        else:
            assert type(found) is wanted, name
    return value


class PausedError(Exception):
    """The client's breaker is open: nothing is asked."""


class GoClient:
    """Speaks as the client does: JSON both ways, a body on DELETE, two seconds, no redirect, one connection.

    After FAILURES in a row (5xx or no answer) it asks nothing for PAUSE seconds of its clock.
    """

    FAILURES, PAUSE = 3, 60.0

    def __init__(self, sidecar: Sidecar, clock: Callable[[], float] = time.monotonic) -> None:
        self.connection = http.client.HTTPConnection(*address(sidecar), timeout=2)
        self.clock = clock
        self.failures, self.paused_until = 0, 0.0

    def close(self) -> None:
        self.connection.close()

    def do(self, method: str, path: str, body: object, *statuses: int) -> Any:
        """Ask behind the breaker."""
        if self.failures >= self.FAILURES and self.clock() < self.paused_until:
            raise PausedError
        failed = True
        try:
            status, value = self._ask(method, path, body)
            failed = status >= 500
        finally:
            self.failures = self.failures + 1 if failed else 0
            self.paused_until = self.clock() + self.PAUSE
        assert status in statuses, (status, value)
        return value

    def _ask(self, method: str, path: str, body: object) -> tuple[int, Any]:
        headers = {"Accept": "application/json", "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        payload = None if body is None else json.dumps(body, separators=(",", ":"))
        self.connection.request(method, path, payload, headers)
        response = self.connection.getresponse()
        content = response.read()
        assert response.getheader("Content-Encoding") is None
        if response.status == 204:
            assert content == b""
            assert response.getheader("Transfer-Encoding") is None
            return 204, None
        value = json.loads(content)
        if response.status >= 400 and path != "/v1/health":
            decode(value, {"code": (str, True), "message": (str, True), "details": (dict, False)})
        return response.status, value


@pytest.fixture
def client(shared_sidecar: Sidecar) -> Iterator[GoClient]:
    with closing(GoClient(shared_sidecar)) as made:
        yield made


def test_a_whole_life_as_the_client_lives_it(client: GoClient, namespace: str) -> None:
    health = client.do("GET", "/v1/health", None, 200)
    decode(health, {"status": (str, True), "version": (str, True), "capabilities": (list, True)})
    assert set(health["capabilities"]) >= {"fts", "embedding", "ttl", "pin", "propagation"}
    base = f"/v1/namespaces/{path_escape(namespace)}"
    memories = client.do("POST", "/v1/search", {"namespaces": [namespace]}, 200)["memories"]
    assert memories == []
    # Go writes a time with as many digits as it has, and an offset where its zone has one.
    for expires_at in ("2999-01-02T03:04:05Z", "2999-01-02T03:04:05.123456789Z", "2999-01-02T03:04:05.5+02:00"):
        put = client.do("PUT", base, {"kind": "workspace", "expires_at": expires_at, "metadata": {"a": 1.5}}, 200)
        assert decode(put, NAMESPACE)["metadata"] == {"a": 1.5}
    patched = decode(client.do("PATCH", base, {"metadata": {"b": []}}, 200), NAMESPACE)
    assert (patched["created_at"], patched["expires_at"]) == (put["created_at"], put["expires_at"])
    write = {"content": "prefers tabs", "kind": "fact", "source": "agent", "propagation": {"x": {}}, "pin": True}
    committed = client.do("POST", f"{base}/memories", write, 201)
    decode(committed, {"id": (str, True), "namespace": (str, True)})
    for query in ("", "tabs please", "t"):
        answer = client.do("POST", "/v1/search", {"namespaces": [namespace], "query": query, "limit": 5}, 200)
        (memory,) = answer["memories"]
        assert decode(memory, MEMORY)["id"] == committed["id"]
        assert ("score" in memory) is (len(query) > 1)
    forget = {"requested_by_namespace": namespace}
    assert client.do("DELETE", f"/v1/memories/{committed['id']}", forget, 204) is None
    client.do("DELETE", f"/v1/memories/{committed['id']}", forget, 404)
    assert client.do("DELETE", base, None, 204) is None
    client.do("DELETE", base, None, 404)


def test_every_name_that_the_pattern_allows_survives_the_clients_escaping(client: GoClient, namespace: str) -> None:
    tail = namespace.partition(":")[2]
    for name in (
        f"workspace:{tail}",
        f"team:a:b:{tail}",
        f"x:..{tail}",
        f"org:._-:{tail}",
        f"custom:{'a' * 200}{tail}",
    ):
        for escaped in (path_escape(name), quote(name, safe=""), "".join(f"%{byte:02x}" for byte in name.encode())):
            assert client.do("PUT", f"/v1/namespaces/{escaped}", {"kind": "custom"}, 200)["name"] == name
            committed = client.do(
                "POST", f"/v1/namespaces/{escaped}/memories", {"content": "x", "kind": "fact", "source": "user"}, 201
            )
            assert committed["namespace"] == name


def test_an_absent_field_and_an_explicit_null_are_one(client: GoClient, namespace: str) -> None:
    base = f"/v1/namespaces/{path_escape(namespace)}"
    write = {"content": "x", "kind": "fact", "source": "agent"}
    nulls = dict.fromkeys(["id", "expires_at", "propagation", "pin", "embedding"])
    client.do("POST", f"{base}/memories", {**write, **nulls}, 201)
    client.do("POST", f"{base}/memories", write, 201)
    request = {"namespaces": [namespace], "query": None, "kinds": None, "limit": None, "embedding": None}
    found = client.do("POST", "/v1/search", request, 200)["memories"]
    assert found == client.do("POST", "/v1/search", {"namespaces": [namespace]}, 200)["memories"]
    assert [set(decode(memory, MEMORY)) for memory in found] == [
        {"id", "namespace", "content", "kind", "source", "created_at"}
    ] * 2
    # A nil slice is null, an empty one []; neither restricts.
    for empty in (None, []):
        answer = client.do("POST", "/v1/search", {"namespaces": [namespace], "kinds": empty, "embedding": empty}, 200)
        assert len(answer["memories"]) == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/v1/namespaces/nope", {"kind": "workspace"}, 400, "bad_request"),
        ("PATCH", "/v1/namespaces/workspace:absent", {"metadata": {}}, 404, "not_found"),
        ("DELETE", "/v1/namespaces/workspace:absent", None, 404, "not_found"),
        ("DELETE", "/v1/memories/no-uuid", {"requested_by_namespace": "workspace:a"}, 404, "not_found"),
        ("POST", "/v1/search", {"namespaces": []}, 400, "bad_request"),
        ("GET", "/v1/search", None, 405, "bad_request"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
    ],
)
def test_an_error_is_one_that_the_client_can_read(
    client: GoClient, method: str, path: str, body: object, status: int, code: str
) -> None:
    assert client.do(method, path, body, status)["code"] == code
    # And the connection serves the next request.
    client.do("GET", "/v1/health", None, 200)


def test_refusals_never_open_the_clients_breaker(client: GoClient, namespace: str) -> None:
    for _ in range(3 * GoClient.FAILURES):
        client.do("POST", "/v1/search", {"namespaces": []}, 400)
        client.do("DELETE", f"/v1/namespaces/{path_escape(namespace)}", None, 404)
    assert client.failures == 0
    client.do("POST", "/v1/search", {"namespaces": [namespace]}, 200)


def test_an_outage_opens_the_breaker_by_answers_and_the_first_call_after_the_pause_is_served(
    private_server: Server, tmp_path: Path
) -> None:
    url, now = private_server.url("postgres"), [0.0]
    install(url)
    search = ("POST", "/v1/search", {"namespaces": ["workspace:a"]})
    with (
        serving(url, tmp_path / "sidecar.log") as sidecar,
        closing(GoClient(sidecar, clock=lambda: now[0])) as client,
    ):
        client.do(*search, 200)
        private_server.stop("immediate")
        for _ in range(GoClient.FAILURES):
            # An answer, within the client's two seconds: never a timeout.
            assert client.do(*search, 503)["code"] == "unavailable"
        with pytest.raises(PausedError):
            client.do(*search)
        private_server.start()
        wait_until(lambda: health(sidecar) == 200, "health", timeout=5)
        now[0] += GoClient.PAUSE
        client.do(*search, 200)
        assert client.failures == 0
