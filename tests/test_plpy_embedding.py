"""The code behind embeddings in the database, without one: a service that misbehaves, and a plpy that is scripted."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fixtures import embedding_service as services
from fixtures.embedding_service import AUTHORITY, CERTIFICATE, KEY, EmbeddingService, drip, raw_server
from memory_plugin.plpy import embedding, http_post, reembed
from memory_plugin.plpy.http_post import post

DIMENSIONS = 8


def provider(url: str, **more: Any) -> dict[str, Any]:
    """Return a row of embedding_provider."""
    return {
        "url": url,
        "model": "bag",
        "dimensions": DIMENSIONS,
        "api_key": KEY,
        "send_dimensions": False,
        "timeout_ms": 500,
        "query_timeout_ms": 300,
        "max_characters": 100,
        "query_prefix": "",
        "ca_certificate": None,
        "revision": "one",
        "off": False,
        "elapsed": 0.0,
        **more,
    }


@pytest.fixture
def service() -> Iterator[EmbeddingService]:
    running = EmbeddingService(DIMENSIONS)
    yield running
    running.stop()


def asked(
    url: str, texts: Sequence[str] = ("a car", "a dentist"), seconds: float = 1.0, **more: Any
) -> embedding.Answer:
    answer = embedding.ask(provider(url, **more), texts, seconds, post, lambda: None, {})
    # Whatever a service sends back, the key is in no problem.
    assert KEY not in str(answer.problem)
    return answer


def endpoint(service: EmbeddingService) -> str:
    return f"{service.url}/v1/embeddings"


def numbers(text: str | None) -> list[float]:
    assert text is not None
    found: list[float] = json.loads(text)
    return found


def test_each_text_gets_its_vector_also_in_another_order(service: EmbeddingService) -> None:
    straight = asked(endpoint(service))
    service.behaviour = services.data(lambda items: items.reverse())
    turned = asked(endpoint(service))
    assert straight.scope is turned.scope is None
    assert straight.vectors == turned.vectors
    assert [len(numbers(vector)) for vector in straight.vectors or []] == [DIMENSIONS, DIMENSIONS]
    assert (straight.vectors or [])[0] != (straight.vectors or [])[1]


@pytest.mark.parametrize(
    ("behaviour", "scope", "words"),
    [
        (services.status(400), "texts", "HTTP 400: so it is"),
        (services.status(413), "texts", "HTTP 413"),
        (services.status(500), "lost", "HTTP 500"),
        (services.status(429, **{"Retry-After": "7"}), "held", "HTTP 429"),
        (services.status(404), "denied", "no such path or model"),
        (services.status(403), "denied", "HTTP 403: so it is"),
        (services.body(b"", 403), "denied", "the key is not accepted"),
        (services.status(302, Location="http://localhost:1/"), "held", "redirects are not followed"),
        (services.dropped, "lost", "the connection was lost"),
        (services.body(b""), "lost", "not that of /v1/embeddings"),
        (services.body(b"<html>no</html>"), "lost", "not that of /v1/embeddings"),
        (services.body(b"\xff\xfe"), "lost", "not that of /v1/embeddings"),
        (services.body(b"[" * 100_000), "lost", "not that of /v1/embeddings"),
        (services.body(b'{"data": 7}'), "lost", "not that of /v1/embeddings"),
        (services.body(b'{"data": [{"embedding": "AAAA"}]}'), "lost", "1 vectors, not 2"),
        (services.data(lambda items: items.pop()), "lost", "1 vectors, not 2"),
        (services.data(lambda items: items.append(dict(items[0], index=2))), "lost", "3 vectors, not 2"),
        (services.data(lambda items: [item.update(index=0) for item in items]), "lost", "indexes"),
        (services.data(lambda items: items[0]["embedding"].pop()), "lost", "7 dimensions, the store 8"),
        (services.body(b" " * 3_000_000), "lost", "larger than"),
    ],
)
def test_what_is_no_right_answer_is_named_and_blamed(
    service: EmbeddingService, behaviour: services.Behaviour, scope: str, words: str
) -> None:
    service.behaviour = behaviour
    answer = asked(endpoint(service))
    assert answer.scope == scope
    assert words in str(answer.problem)
    assert service.requests == 1


@pytest.mark.parametrize(
    ("behaviour", "scope", "retry_after"),
    [
        (services.refusing("dentist"), "texts", None),
        (services.refusing("dentist", 403), "texts", None),
        (services.refusing("dentist", 451), "texts", None),
        (services.refusing("dentist", 500), "lost", None),
        (services.status(400), "provider", None),
        (services.status(403), "provider", None),
        (services.status(404), "provider", None),
        (services.status(500), "unclear", None),
        (services.refusing("dentist", 503, **{"Retry-After": "7"}), "unclear", 7.0),
        (services.crashing("dentist"), "unclear", None),
        (services.refusing("dentist", 401), "unclear", None),
        (services.refusing("dentist", 429, **{"Retry-After": "7"}), "unclear", 7.0),
        (services.refusing("dentist", 403, **{"Retry-After": "7"}), "unclear", 7.0),
    ],
)
def test_a_harmless_word_tells_whether_a_text_or_the_provider_is_at_fault(
    service: EmbeddingService, behaviour: services.Behaviour, scope: str, retry_after: float | None
) -> None:
    service.behaviour = behaviour
    texts = ["a car", "a dentist"]
    answer = embedding._answer(provider(endpoint(service)), texts, "embed", post, lambda: None, {})
    assert (answer.scope, answer.retry_after) == (scope, retry_after)
    # What a provider says of a text may quote it; all but what is blamed on a text alone comes into the sidecar's log.
    assert scope == "texts" or "dentist" not in str(answer.problem)


@pytest.mark.parametrize(
    "wrong", ["NaN", "Infinity", "-1e999", "1" * 400, "true", '"1"', "null", "[1]", "1e39", "-1e39"]
)
def test_a_number_that_is_none_spoils_its_own_vector_alone(service: EmbeddingService, wrong: str) -> None:
    good = ",".join(["0.5"] * DIMENSIONS)
    bad = ",".join([wrong, *["0.5"] * (DIMENSIONS - 1)])
    text = f'{{"data": [{{"index": 0, "embedding": [{good}]}}, {{"index": 1, "embedding": [{bad}]}}]}}'
    service.behaviour = services.body(text.encode())
    answer = asked(endpoint(service))
    assert answer.scope == "some"
    assert answer.vectors is not None
    assert (numbers(answer.vectors[0]), answer.vectors[1]) == ([0.5] * DIMENSIONS, None)


@pytest.mark.parametrize(("given", "kept"), [(0.0, None), (1e-36, None), (1e-20, 1.0), (1e30, 1.0), (0.25, 0.25)])
def test_only_the_direction_counts_and_zeros_have_none(given: float, kept: float | None) -> None:
    body = json.dumps({"data": [{"embedding": [given] + [0.0] * (DIMENSIONS - 1)}]})
    answer = embedding.read(body.encode(), 1, DIMENSIONS)
    assert answer.vectors is not None
    vector = answer.vectors[0]
    assert (None if vector is None else pytest.approx(numbers(vector)[0])) == kept


@pytest.mark.parametrize("talk", [drip, lambda connection: connection.recv(65536) and time.sleep(60)])
def test_a_service_that_drips_or_is_silent_is_left_at_the_deadline(talk: Callable[[socket.socket], None]) -> None:
    ticks: list[int] = []
    with raw_server(talk) as url:
        began = time.monotonic()
        answer = embedding.ask(provider(url), ["a"], 0.5, post, lambda: ticks.append(1), {})
    assert (answer.scope, answer.problem) == ("lost", "no answer in time")
    assert 0.4 < time.monotonic() - began < 2
    assert ticks


def test_nobody_there_is_the_providers_fault() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1/embeddings"
    answer = asked(url)
    assert (answer.scope, answer.problem) == ("provider", "connection refused")


# The system refuses to connect to a group of machines at once, as it does to an address without a route.
NO_ROUTE = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("224.0.0.1", 80))


def test_an_address_without_a_route_is_said_to_be_out_of_reach() -> None:
    answer = asked("http://224.0.0.1/v1/embeddings")
    assert (answer.scope, answer.problem) == ("provider", "the host cannot be reached")


def test_after_an_address_without_a_route_the_next_one_is_tried(service: EmbeddingService) -> None:
    port = int(service.url.rpartition(":")[2])
    there = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    known = {("two.example", port): ([NO_ROUTE, there], time.monotonic(), None, None)}
    url = f"http://two.example:{port}/v1/embeddings"
    answer = embedding.ask(provider(url), ("a car",), 1.0, post, lambda: None, known)
    assert (answer.scope, answer.problem) == (None, None)
    assert service.requests == 1


def test_a_wrong_key_is_named_without_it(service: EmbeddingService) -> None:
    service.key = "another"
    answer = asked(endpoint(service))
    assert (answer.scope, answer.problem) == ("held", "HTTP 401: the key is not accepted")
    service.key = KEY
    service.behaviour = services.body(json.dumps({"error": {"message": f"your key {KEY} is fine"}}).encode(), 400)
    assert asked(endpoint(service)).problem == "HTTP 400: your key [key] is fine"


def test_a_key_is_masked_also_where_the_words_are_cut_in_its_middle(service: EmbeddingService) -> None:
    service.key = key = "sk-" + "0123456789abcdef" * 20
    for words in (f"{'x' * 150}{key}", f"{key[:100]}... and {key}, {key[:8]}", key):
        service.behaviour = services.body(json.dumps({"error": words}).encode(), 400)
        row = provider(endpoint(service), api_key=key)
        problem = str(embedding.ask(row, ["a"], 1.0, post, lambda: None, {}).problem)
        assert "[key]" in problem
        assert key[:8] not in problem
        assert len(problem) <= embedding.PROBLEM_CHARACTERS


def test_of_a_cut_off_key_no_more_is_masked_than_stands_there(service: EmbeddingService) -> None:
    service.behaviour = services.body(json.dumps({"error": f"{KEY[:10]}, so no"}).encode(), 400)
    assert asked(endpoint(service)).problem == "HTTP 400: [key], so no"


def test_without_a_key_nothing_is_masked(service: EmbeddingService) -> None:
    service.key = None
    service.behaviour = services.status(413)
    assert asked(endpoint(service), api_key=None).problem == "HTTP 413: so it is"


@pytest.mark.parametrize("found", [{"error": "so"}, {"message": "so"}, {"detail": "so"}, {"error": {"message": "so"}}])
def test_the_reason_of_a_refusal_is_found_under_each_of_its_usual_names(
    service: EmbeddingService, found: dict[str, Any]
) -> None:
    service.behaviour = services.body(json.dumps(found).encode(), 400)
    assert asked(endpoint(service)).problem == "HTTP 400: so"


@pytest.mark.parametrize(("wanted", "sent"), [(True, {"dimensions": DIMENSIONS}), (False, {})])
def test_dimensions_are_sent_only_where_that_is_wanted(wanted: bool, sent: dict[str, int]) -> None:
    bodies: list[dict[str, Any]] = []

    def sees(_url: str, _headers: object, body: bytes, *_: object) -> tuple[int, dict[str, str], bytes]:
        bodies.append(json.loads(body))
        return 500, {}, b""

    embedding.ask(provider("", send_dimensions=wanted), ["a"], 1.0, sees, lambda: None, {})
    assert bodies == [{"model": "bag", "input": ["a"], **sent}]


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "-.-"])
def test_a_name_that_is_none_is_the_providers_fault(host: str) -> None:
    known: dict[Any, Any] = {}
    for _ in range(2):
        answer = embedding.ask(provider(f"http://{host}/v1/embeddings"), ["a"], 5.0, post, lambda: None, known)
        assert (answer.scope, answer.problem) == ("provider", "the host's name is not known")


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://one.example", "/", "one.example"),
        ("http://one.example/v1/embeddings?api-version=2", "/v1/embeddings?api-version=2", "one.example"),
        ("http://one.example:8080/a", "/a", "one.example:8080"),
        ("http://[::1]/a", "/a", "[::1]"),
        ("http://[::1]:8080/a", "/a", "[::1]:8080"),
    ],
)
def test_a_request_asks_for_the_path_and_query_of_the_url_and_names_its_host(url: str, target: str, host: str) -> None:
    heads: list[str] = []

    def listen(connection: socket.socket) -> None:
        heads.append(connection.recv(65536).decode().partition("\r\nContent-Length")[0])

    with raw_server(listen) as served:
        listening = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", urlsplit(served).port))
        parts = urlsplit(url)
        known = {(parts.hostname, parts.port or 80): ([listening], time.monotonic(), None, None)}
        answer = embedding.ask(provider(url), ["a"], 1.0, post, lambda: None, known)
    assert answer.scope == "lost"
    assert heads == [f"POST {target} HTTP/1.1\r\nHost: {host}"]


def test_a_name_that_is_long_in_being_resolved_is_left_at_the_deadline_and_asked_for_once(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, resolved, looked = socket.getaddrinfo, threading.Event(), []

    def slow(*name: Any, **more: Any) -> Any:
        looked.append(name)
        assert resolved.wait(20)
        return resolve(*name, **more)

    monkeypatch.setattr(http_post.socket, "getaddrinfo", slow)
    known: dict[Any, Any] = {}
    row = provider(endpoint(service))
    for _ in range(2):
        answer = embedding.ask(row, ["a"], 0.05, post, lambda: None, known)
        assert (answer.scope, answer.problem) == ("provider", "the host's name was not resolved in time")
    resolved.set()
    for _ in range(2):
        assert embedding.ask(row, ["a"], 5.0, post, lambda: None, known).scope is None
    assert len(looked) == 1


def test_no_thread_to_be_had_is_a_failure_of_this_moment_alone(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    known: dict[Any, Any] = {}
    url = endpoint(service)
    with monkeypatch.context() as without:
        without.setattr(http_post.threading.Thread, "start", start)
        answer = embedding.ask(provider(url), ["a"], 1.0, post, lambda: None, known)
    assert (answer.scope, answer.problem) == ("provider", "no thread to resolve the host's name in")
    assert embedding.ask(provider(url), ["a"], 1.0, post, lambda: None, known).scope is None


def test_a_certificate_that_nobody_vouches_for_is_refused_and_an_authority_of_ones_own_is_taken() -> None:
    running = EmbeddingService(DIMENSIONS, tls=services.tls())
    try:
        refused = asked(endpoint(running), seconds=5)
        assert refused.scope == "provider"
        assert "certificate not accepted" in str(refused.problem)
        assert running.requests == 0
        assert asked(endpoint(running), seconds=5, ca_certificate=AUTHORITY).scope is None
    finally:
        running.stop()


def test_the_machines_authorities_are_read_once_and_again_after_a_refusal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[Any] = []
    known: dict[Any, Any] = {}

    def reading(**more: Any) -> ssl.SSLContext:
        read.append(more)
        return make(**more)

    make = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", reading)
    running = EmbeddingService(DIMENSIONS, tls=services.tls())

    def problem() -> Any:
        running.cut()
        return embedding.ask(provider(endpoint(running)), ["a"], 5.0, post, lambda: None, known).problem

    try:
        nobody = tmp_path / "nobody.pem"
        nobody.touch()
        monkeypatch.setenv("SSL_CERT_FILE", str(nobody))
        assert "certificate not accepted" in problem()
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert [problem() for _ in range(3)] == [None] * 3
        assert len(read) == 2
        monkeypatch.setattr(http_post, "_TRUST_AGAIN", 0.0)
        monkeypatch.setenv("SSL_CERT_FILE", str(nobody))
        assert "certificate not accepted" in problem()
    finally:
        running.stop()


@pytest.mark.parametrize("secure", [False, True])
def test_the_connection_is_kept_for_the_next_request_unless_it_ended_or_is_old(
    monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    running = EmbeddingService(DIMENSIONS, tls=services.tls() if secure else None)
    row = provider(endpoint(running), ca_certificate=AUTHORITY if secure else None)
    known: dict[Any, Any] = {}

    def problem() -> Any:
        return embedding.ask(row, ["a"], 5.0, post, lambda: None, known).problem

    try:
        assert [problem() for _ in range(3)] == [None] * 3
        assert running.connected == 1
        # A refusal is an answer too.
        running.behaviour = services.status(400)
        assert problem() == "HTTP 400: so it is"
        running.behaviour = None
        assert (problem(), running.connected) == (None, 1)
        running.cut()
        assert (problem(), running.connected) == (None, 2)
        # Ended at the moment it is taken up: asked once more, and only once.
        dropping = iter([True, False, True, True])
        running.behaviour = lambda _service, _texts, reply: None if next(dropping) else reply
        assert (problem(), running.connected) == (None, 3)
        assert problem() == "the connection was lost, or the answer is not HTTP"
        assert running.connected == 4
        running.behaviour = None
        assert (problem(), problem(), running.connected) == (None, None, 5)
        running.behaviour = services.status(400, Connection="close")
        problem()
        running.behaviour = None
        assert (problem(), running.connected) == (None, 6)
        for name in ("_IDLE_SECONDS", "_LOOK_UP_AGAIN"):
            with monkeypatch.context() as patched:
                patched.setattr(http_post, name, 0.0)
                problem()
        assert running.connected == 8
    finally:
        running.stop()


class Plpy:
    """What plpy is to the code: statements answered by a script, and everything that happens in order."""

    class SPIError(Exception):
        """What a statement raises."""

    def __init__(self, rows: Callable[[str, Any], list[dict[str, Any]]]) -> None:
        self._rows = rows
        self.events: list[str] = []

    def prepare(self, statement: str, types: list[str]) -> str:
        assert len(types) == statement.count("$")
        return statement

    def execute(self, statement: str, arguments: Any = None) -> list[dict[str, Any]]:
        self.events.append(statement.split("(")[0])
        return self._rows(statement, arguments)

    def commit(self) -> None:
        self.events.append("commit")


def test_a_query_is_kept_the_least_recently_used_goes_and_another_provider_is_asked_anew(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = provider(endpoint(service))
    plpy, store = Plpy(lambda *_: [row]), {}  # type: tuple[Plpy, dict[str, Any]]
    monkeypatch.setattr(embedding, "CACHE_SIZE", 2)

    def ask(text: str) -> int:
        before = service.requests
        assert embedding.query(plpy, store, "mark", text, post)
        return service.requests - before

    assert [ask(text) for text in ("a", "b", "a", "c", "a", "b")] == [1, 1, 0, 1, 0, 1]
    row["revision"] = "two"
    assert ask("a") == 1
    # Other code under the session: nothing of the old one's is used.
    assert embedding.session(store, "mark")["cache"]
    assert not embedding.session(store, "another mark")["cache"]


def test_a_session_keeps_of_a_query_no_more_than_tells_it_from_others(service: EmbeddingService) -> None:
    row = {**provider(endpoint(service)), "max_characters": 100_000}
    plpy, store = Plpy(lambda *_: [row]), {}  # type: tuple[Plpy, dict[str, Any]]
    long = "a" * 100_000
    for text in (long, long + "what is cut off", "b" + long, long[:-1]):
        assert embedding.query(plpy, store, "mark", text, post)
    assert service.requests == 3
    kept = embedding.session(store, "mark")["cache"]
    assert all(len(part) < 100 for key in kept for part in key)


def test_after_a_failure_the_session_asks_no_more_for_a_while(
    service: EmbeddingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = provider(endpoint(service))
    plpy, store = Plpy(lambda *_: [row]), {}  # type: tuple[Plpy, dict[str, Any]]
    service.behaviour = services.status(500)
    assert embedding.query(plpy, store, "mark", "a", post) is None
    service.behaviour = None
    assert embedding.query(plpy, store, "mark", "a", post) is None
    assert service.requests == 1
    embedding.session(store, "mark")["closed_until"] = 0.0
    assert embedding.query(plpy, store, "mark", "a", post)
    # The store's own breaker, set by another session, is heard as well.
    row["off"] = True
    assert embedding.query(plpy, store, "mark", "b", post) is None
    assert embedding.query(Plpy(lambda *_: []), store, "mark", "a", post) is None


def test_the_pause_has_an_end_however_long_it_was_and_another_provider_is_asked_at_once(
    service: EmbeddingService,
) -> None:
    row = provider(endpoint(service))
    plpy, store = Plpy(lambda *_: [row]), {}  # type: tuple[Plpy, dict[str, Any]]
    assert embedding.query(plpy, store, "mark", "a", post)
    kept = embedding.session(store, "mark")
    kept["failures"] = 5000
    service.behaviour = services.status(500)
    assert embedding.query(plpy, store, "mark", "b", post) is None
    assert 0 < kept["closed_until"] - time.monotonic() <= 72
    service.behaviour = None
    row["revision"] = "two"
    assert embedding.query(plpy, store, "mark", "b", post)


def test_a_query_whose_asking_breaks_is_one_without_a_vector_but_a_cancel_is_heard() -> None:
    row = provider("http://localhost/")
    plpy = Plpy(lambda *_: [row])

    def broken(*_: Any) -> Any:
        raise IndexError

    def cancelled(*_: Any) -> Any:
        raise plpy.SPIError

    store: dict[str, Any] = {}
    assert embedding.query(plpy, store, "mark", "a", broken) is None
    embedding.session(store, "mark")["closed_until"] = 0.0
    with pytest.raises(plpy.SPIError):
        embedding.query(plpy, store, "mark", "a", cancelled)


@pytest.mark.parametrize(("elapsed", "seconds"), [(0.1, 0.2), (5.0, 0.15)])
def test_what_a_search_took_before_it_asks_is_taken_off_its_patience_but_no_more_than_half(
    elapsed: float, seconds: float
) -> None:
    given: list[float] = []

    def noted(_url: str, _headers: Any, _body: bytes, timeout: float, *_: Any) -> Any:
        given.append(timeout)
        raise OSError("reason", False)

    row = provider("http://localhost/", elapsed=elapsed)
    assert embedding.query(Plpy(lambda *_: [row]), {}, "mark", "a", noted) is None
    assert given == [pytest.approx(seconds)]


def refilled(
    answers: list[embedding.Answer], most: int, texts: int = 1, *, probe: bool = False
) -> tuple[Any, Any, Any]:
    """Run a step of reembed over scripted answers; return what it told, what it asked for and what it settled."""
    work = {
        "revision": "one",
        **{name: [str(i) for i in range(texts)] for name in ("namespaces", "ids", "hashes", "texts")},
    }
    claims = [work, {"revision": "one", "namespaces": None, "ids": None, "hashes": None, "texts": None}]
    settled: list[Any] = []
    asked: list[list[str]] = []

    def rows(statement: str, arguments: Any) -> list[dict[str, Any]]:
        if "embedding_provider" in statement:
            return [{"revision": "one", "batch_size": 2}]
        if "_reembed_claim" in statement:
            return [claims.pop(0)]
        if "_reembed_settle" in statement:
            settled.append((arguments[2], arguments[4], arguments[5]))
            return [{"stored": sum(vector is not None for vector in arguments[4])}]
        return []

    plpy = Plpy(rows)

    def fetch(_provider: dict[str, Any], texts: Sequence[str]) -> embedding.Answer:
        assert plpy.events[-1] == "commit" or asked
        asked.append(list(texts))
        return answers.pop(0)

    return json.loads(reembed.refill(plpy, most, probe, fetch)), asked, settled


def test_a_step_of_a_change_of_the_model_stores_what_comes_and_finds_by_halves_what_does_not() -> None:
    def good(*vectors: str) -> embedding.Answer:
        return embedding.Answer(list(vectors))

    def bad(scope: str) -> embedding.Answer:
        return embedding.Answer(scope=scope, problem="why", retry_after=3.0 if scope == "provider" else None)

    assert refilled([good("a", "b")], 10, 2)[0] == {"outcome": "done", "stored": 2, "problem": None, "seconds": 0.0}
    assert refilled([good("a", "b")], 2, 2)[0]["outcome"] == "more"
    assert refilled([good("a")], 1, probe=True)[1] == [[]]
    told, asked, settled = refilled([bad("texts"), good("a"), bad("texts")], 10, 2)
    assert (told["outcome"], told["stored"], asked) == ("done", 1, [["0", "1"], ["0"], ["1"]])
    assert settled == [(["0"], ["a"], None), (["1"], [None], "why")]
    # Lost is not refused: asked for three times more.
    assert refilled([bad("lost"), bad("lost"), good("a")], 10)[2] == [(["0"], ["a"], None)]
    assert refilled([bad("lost")] * 4, 10)[2] == [(["0"], [None], "why")]
    # The provider's fault, or perhaps that of the one text that was asked for.
    assert refilled([bad("provider")], 1)[::2] == (
        {"outcome": "wait", "stored": 0, "problem": "why", "seconds": 3.0}, [],
    )  # fmt: skip
    assert refilled([bad("unclear")], 10)[2] == []
    told, _, settled = refilled([bad("unclear")], 1)
    assert (told["outcome"], settled) == ("wait", [(["0"], [None], "why")])


@pytest.mark.parametrize(
    ("answers", "seconds", "asked", "stored"),
    [
        ([embedding.Answer(["a", "b"])], 1.0, 1, 2),
        ([embedding.Answer(["a", None], "some", "why")], 1.0, 1, 0),
        ([embedding.Answer(scope="lost", problem="why")], 1.0, 1, 0),
        ([], 0.0, 0, 0),
    ],
    ids=["given", "one refused", "lost", "no time"],
)
def test_while_writers_wait_a_provider_is_asked_once_and_within_the_time_there_is(
    answers: list[embedding.Answer], seconds: float, asked: int, stored: int
) -> None:
    texts: dict[str, Any] = {"ids": ["1", "2"], "namespaces": ["a", "a"], "hashes": ["h", "h"], "texts": ["x", "y"]}
    claims = [{"revision": "one", **texts}, {"revision": "one", **dict.fromkeys(texts)}]
    given: list[float] = []

    def rows(statement: str, arguments: Any) -> list[dict[str, Any]]:
        if "embedding_provider" in statement:
            return [{"revision": "one", "batch_size": 8}]
        if "_reembed_claim" in statement:
            assert arguments == [8]
            return [claims.pop(0)]
        assert "_reembed_settle" in statement
        return [{"stored": len(arguments[4])}]

    def fetch(_provider: dict[str, Any], _texts: Sequence[str], left: float) -> embedding.Answer:
        given.append(left)
        return answers.pop(0)

    plpy = Plpy(rows)
    assert reembed.last(plpy, seconds, fetch) == stored
    assert "commit" not in plpy.events
    assert len(given) == asked
    assert all(0 < left <= seconds for left in given)


def test_nothing_is_open_while_the_provider_is_asked_and_what_it_said_is_settled(service: EmbeddingService) -> None:
    claims = [
        {
            "action": "embed", "seconds": 0.0, "revision": "one", "namespaces": ["team:a"], "ids": ["1"],
            "hashes": ["h"], "texts": ["a car"],
        },
        {"action": "idle", "seconds": 9.0, "revision": "one", "namespaces": [], "ids": [], "hashes": [], "texts": []},
    ]  # fmt: skip
    settled: list[Any] = []
    store: dict[str, Any] = {}

    def rows(statement: str, arguments: Any) -> list[dict[str, Any]]:
        if "embedding_claim" in statement:
            return [claims.pop(0)]
        if "embedding_session" in statement:
            embedding.session(store, "mark")["provider"] = provider(endpoint(service))
        if "embedding_settle" in statement:
            settled.append(arguments)
            return [{"embedded": 1}]
        return []

    plpy = Plpy(rows)

    def asked_when_committed(*arguments: Any) -> Any:
        assert plpy.events[-1] == "commit"
        plpy.events.append("post")
        return post(*arguments)

    told = json.loads(embedding.pending(plpy, store, "mark", 10, False, asked_when_committed))
    assert told == {"outcome": "idle", "embedded": 1, "seconds": 9.0}
    ((revision, namespaces, ids, hashes, vectors, scope, problem, retry_after, took_ms),) = settled
    assert (revision, namespaces, ids, hashes, scope, problem, retry_after) == (
        "one", ["team:a"], ["1"], ["h"], None, None, None,
    )  # fmt: skip
    assert len(numbers(vectors[0])) == DIMENSIONS
    assert took_ms > 0
    assert embedding.session(store, "mark")["provider"] is None
