"""What carries the optional token is served, all else but health is 401; without one, other sites' pages are 403."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fixtures.cluster import free_port
from fixtures.sidecars import Sidecar, clean_env
from generated import run_generated
from hostile import Watch
from http_sidecar import Answer, address, raw, serving
from memory_plugin.thin_api.auth import Gate
from memory_plugin.thin_api.errors import RefusedError
from memory_plugin.thin_api.routes import HEALTH, METRICS, ROUTES
from memory_plugin.thin_api.settings import Settings, SettingsError, from_env

pytestmark = pytest.mark.servers("any")
TOKEN = "correct-horse.battery/staple+1"
OPEN = [route for route in ROUTES if route is not HEALTH] + [METRICS]
WRONG = {
    "none": None,
    "empty": b"",
    "another": b"Bearer " + b"x" * 30,
    "a part": b"Bearer " + TOKEN[:-1].encode(),
    "more": b"Bearer " + TOKEN.encode() + b"x",
    "no scheme": TOKEN.encode(),
    "another scheme": b"Basic " + TOKEN.encode(),
    "scheme alone": b"Bearer",
    "twice": f"Bearer {TOKEN}, Bearer {TOKEN}".encode(),
    "other case": b"Bearer " + TOKEN.upper().encode(),
    "quoted": f'Bearer "{TOKEN}"'.encode(),
    "not ascii": b"Bearer " + TOKEN.encode() + b"\xe9",
    "huge": b"Bearer " + b"y" * 100_000,
}


@pytest.fixture(scope="module")
def guarded(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    log_file = tmp_path_factory.mktemp("token") / "sidecar.log"
    with serving(module_database, log_file, MEMORY_PLUGIN_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture
def watched(guarded: Sidecar) -> Iterator[Watch]:
    with psycopg.connect(guarded.database, autocommit=True) as connection:
        yield Watch(guarded, connection)


def ask(sidecar: Sidecar, method: str, path: str, body: bytes, authorization: bytes | None) -> Answer:
    header = b"" if authorization is None else b"Authorization: " + authorization + b"\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n".encode()
    return raw(sidecar, head + header + b"\r\n" + body)


def path_of(template: str) -> str:
    return template.replace("{name}", "workspace:a").replace("{id}", "4f2a8f3e-3f9c-4b39-9d5a-9f1f4bb6a001")


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG)
def test_without_the_token_every_route_but_health_is_401_and_changes_nothing(
    guarded: Sidecar, watched: Watch, authorization: bytes | None
) -> None:
    body = b'{"kind":"fact","content":"x","source":"agent","namespaces":["workspace:a"]}'
    with watched.unchanged():
        for route in OPEN:
            answer = ask(guarded, route.method, path_of(route.path), body, authorization)
            assert (answer.status, answer.json["code"]) == (401, "unauthorized"), route
            assert answer.headers["www-authenticate"] == 'Bearer realm="memory-plugin"'
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-request-id"]


def test_without_the_token_no_path_or_method_is_told(guarded: Sidecar) -> None:
    for method, path, known in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/search", 405),
        ("PUT", "/metrics", 405),
        ("POST", "/v1/health", 405),
        ("GET", "/v1/health/", 404),
    ):
        for authorization in (None, b"Bearer " + b"x" * 30):
            answer = ask(guarded, method, path, b"", authorization)
            assert (answer.status, answer.json["code"]) == (401, "unauthorized"), path
            assert "allow" not in answer.headers
            assert answer.headers["www-authenticate"] == 'Bearer realm="memory-plugin"'
        assert ask(guarded, method, path, b"", f"Bearer {TOKEN}".encode()).status == known


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_with_the_token_a_whole_life_is_served(guarded: Sidecar, namespace: str, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {TOKEN}"}

    def call(method: str, path: str, body: object = None) -> int:
        return guarded.client.request(method, path, json=body, headers=headers).status_code

    write = {"content": "x", "kind": "fact", "source": "agent"}
    assert call("PUT", f"/v1/namespaces/{namespace}", {"kind": "workspace"}) == 200
    assert call("POST", f"/v1/namespaces/{namespace}/memories", write) == 201
    assert call("POST", "/v1/search", {"namespaces": [namespace]}) == 200
    assert call("DELETE", f"/v1/namespaces/{namespace}") == 204
    assert call("GET", "/metrics") == call("GET", "/v1/openapi.json") == 200


def test_health_is_open_with_any_token_or_none(guarded: Sidecar) -> None:
    for authorization in WRONG.values():
        answer = ask(guarded, "GET", "/v1/health", b"", authorization)
        assert (answer.status, answer.json["status"]) == (200, "ok")


def test_a_body_of_10_mb_without_the_token_is_refused_unread_and_the_next_request_is_served(guarded: Sidecar) -> None:
    connection = http.client.HTTPConnection(*address(guarded), timeout=10)
    try:
        connection.putrequest("POST", "/v1/search")
        connection.putheader("Content-Length", "10000000")
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 401
        response.read()
    finally:
        connection.close()
    assert guarded.client.get("/v1/health").status_code == 200


@pytest.mark.parametrize(("path", "status"), [("/v1/search", 401), ("/v1/none", 404), ("/v1/health", 405)])
@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_a_body_in_vain_sees_why_and_is_served_on_the_same_connection(
    guarded: Sidecar, path: str, status: int, chunked: bool
) -> None:
    connection = http.client.HTTPConnection(*address(guarded), timeout=10)
    headers = {} if status == 401 else {"Authorization": f"Bearer {TOKEN}"}
    try:
        connection.connect()
        connection.auto_open = 0
        connection.request(
            "POST", path, iter([b"x" * 500_000] * 2) if chunked else b"x" * 1_000_000, headers, encode_chunked=chunked
        )
        response = connection.getresponse()
        assert (response.status, b"code" in response.read()) == (status, True)
        connection.request("GET", "/v1/health")
        assert connection.getresponse().status == 200
    finally:
        connection.close()


def test_the_token_is_in_no_line_of_the_log_and_in_no_metric(guarded: Sidecar) -> None:
    ask(guarded, "POST", "/v1/search", b"{", f"Bearer {TOKEN}".encode())
    assert ask(guarded, "GET", "/v1/openapi.json", b"", f"Bearer {TOKEN}x".encode()).status == 401
    metrics = guarded.client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    assert 'status="401"' in metrics
    assert TOKEN not in metrics
    assert TOKEN not in guarded.log()
    assert TOKEN not in repr(Settings("dbname=x", token=TOKEN))


def test_without_a_token_set_an_authorization_is_ignored(module_database: str, tmp_path: Path) -> None:
    with serving(module_database, tmp_path / "log", MEMORY_PLUGIN_TOKEN="") as sidecar:
        for authorization in WRONG.values():
            assert ask(sidecar, "POST", "/v1/search", b'{"namespaces":["a:b"]}', authorization).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://page.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null"},
        # The page's name has become a name of loopback.
        {"Origin": "http://page.example:9100", "Host": "page.example:9100"},
    ],
    ids=lambda headers: headers.get("Sec-Fetch-Site", headers["Origin"]),
)
def test_a_page_of_another_origin_reads_and_changes_nothing(
    shared_sidecar: Sidecar, watch: Watch, headers: dict[str, str]
) -> None:
    headers["Content-Type"] = "text/plain"
    body = '{"kind":"fact","content":"x","source":"agent","namespaces":["workspace:a"]}'
    with watch.unchanged():
        for route in OPEN:
            path = path_of(route.path)
            answer = shared_sidecar.client.request(route.method, path, content=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), route
    assert shared_sidecar.client.get("/v1/health", headers=headers).status_code == 200


def test_a_page_whose_own_server_passes_its_requests_on_is_served(shared_sidecar: Sidecar) -> None:
    headers = {"Origin": "https://app.example", "Sec-Fetch-Site": "same-origin"}
    assert shared_sidecar.client.post("/v1/search", json={"namespaces": ["a:b"]}, headers=headers).status_code == 200


@pytest.mark.parametrize("token", ["short", "x" * 513, "with a space in it", "é" * 20, "tab\tinside-the-token"])
def test_a_token_that_cannot_be_one_is_refused_at_the_start_without_being_quoted(token: str) -> None:
    with pytest.raises(SettingsError, match="MEMORY_PLUGIN_TOKEN") as caught:
        from_env({"DATABASE_URL": "dbname=x", "MEMORY_PLUGIN_TOKEN": token})
    assert token not in str(caught.value)


def test_the_comparison_is_the_one_made_for_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(
        "memory_plugin.thin_api.auth.hmac.compare_digest", lambda a, b: bool(compared.append((a, b))) or a == b
    )
    gate = Gate(TOKEN)
    gate.check({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"})
    with pytest.raises(RefusedError):
        gate.check({"HTTP_AUTHORIZATION": "Bearer x"})
    assert compared == [(TOKEN.encode(), TOKEN.encode()), (b"x", TOKEN.encode())]


@pytest.mark.parametrize(("token", "warned"), [("", True), (TOKEN, False)])
def test_listening_beyond_loopback_without_a_token_is_warned_of(
    module_database: str, tmp_path: Path, token: str, warned: bool
) -> None:
    settings = {"MEMORY_PLUGIN_LISTEN_ADDR": f"0.0.0.0:{free_port()}", "MEMORY_PLUGIN_TOKEN": token}
    with serving(module_database, tmp_path / "log", **settings) as sidecar:
        assert ("WARNING LISTENING_BEYOND_LOOPBACK" in sidecar.log()) is warned


def test_generated_requests_with_the_token_are_answered_as_documented(guarded: Sidecar, tmp_path: Path) -> None:
    outcome = run_generated(guarded.base_url, tmp_path, clean_env(), 3, token=TOKEN)
    assert outcome.status == 0, outcome.said
    assert outcome.cases > 100
