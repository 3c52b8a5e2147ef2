"""A provider in trouble beneath a crowd, and who embeds when several could."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures import embedding_service as service_module
from fixtures.cluster import free_port
from fixtures.embedding_service import EmbeddingService, Slow
from fixtures.sidecars import Sidecar, wait_until
from memory_plugin.thin_api import embedding as embedding_module
from memory_plugin.thin_api.embedding import Embedding
from test_embedding import TEXTS, at_once, commit, configure, embed, status

pytestmark = pytest.mark.servers("full")
Connection = psycopg.Connection[Any]
CLIENTS = 8


def search(client: httpx.Client, query: str) -> httpx.Response:
    return client.post("/v1/search", json={"namespaces": ["team:a"], "query": query})


class Crowd:
    """Clients that commit and search so many times each, noting what went wrong and how long it took."""

    def __init__(self, client: httpx.Client, rounds: int) -> None:
        self.client = client
        self.rounds = rounds
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self.longest = 0.0
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        for place in range(self.rounds):
            text = f"automobile {number} of {place}"
            self.texts.append(text)
            body = {"content": text, "kind": "fact", "source": "agent"}
            self._timed(lambda body=body: self.client.post("/v1/namespaces/team:a/memories", json=body))  # type: ignore[misc]
            self._timed(lambda place=place: search(self.client, f"vehicle {number} at {place}"))  # type: ignore[misc]

    def _timed(self, request: Callable[[], httpx.Response]) -> None:
        began = time.monotonic()
        answer = request()
        self.longest = max(self.longest, time.monotonic() - began)
        if not answer.is_success:
            self.wrong.append(answer.text)

    def join(self) -> None:
        """Wait for their end."""
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("trouble", ["slow", "killed", "429"])
def test_a_crowd_notices_nothing_of_a_provider_in_trouble(
    database: str,
    conn: Connection,
    embedding_service: EmbeddingService,
    start_sidecar: Callable[..., Sidecar],
    trouble: str,
) -> None:
    configure(conn, embedding_service, timeout_ms=3000)
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")
    slow = Slow()
    if trouble == "killed":
        embedding_service.stop()
    else:
        embedding_service.behaviour = slow if trouble == "slow" else service_module.status(429, **{"Retry-After": "1"})
    crowd = Crowd(sidecar.client, 15)
    crowd.join()
    assert crowd.wrong == []
    assert crowd.longest < 2
    assert search(sidecar.client, "automobile").json()["search"]["degraded"] == "embedding"
    embedding_service.behaviour = None
    slow.released.set()
    if trouble == "killed":
        embedding_service.start()
    wait_until(lambda: status(conn)["pending"] == 0, "every memory to be embedded", 60)
    assert status(conn)["failed"] == 0
    assert len(crowd.texts) == CLIENTS * 15
    assert max(embedding_service.sent[text] for text in crowd.texts) <= 2
    wait_until(lambda: "degraded" not in search(sidecar.client, "vehicle").json()["search"], "searches to be whole")


def test_after_one_search_did_without_no_other_waits_for_the_provider(
    database: str, conn: Connection, embedding_service: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    configure(conn, embedding_service)
    # Not even where nobody embeds.
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="0")
    commit(conn)
    slow = embedding_service.behaviour = Slow()
    assert search(sidecar.client, "the first").json()["search"]["degraded"] == "embedding"
    told = "select query_off_until is not null from memory_plugin.embedding_state"
    wait_until(lambda: conn.execute(told).fetchone() == (True,), "the store to know")
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda text=f"office {i}": answers.append(search(sidecar.client, text).json()))  # type: ignore[misc]
        for i in range(2 * CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slow.released.set()
    assert [answer["search"]["degraded"] for answer in answers] == ["embedding"] * 2 * CLIENTS
    assert all(answer["memories"][0]["content"] == TEXTS[2] for answer in answers)
    assert set(embedding_service.sent) == {"the first"}
    # And only so long: whoever embeds finds the provider well.
    embedding_service.behaviour = None
    embed(conn)
    assert search(sidecar.client, "vehicle wheels").json()["search"]["mode"] == "hybrid"


@pytest.mark.parametrize(("changed", "mode"), [(False, "hybrid"), (True, "lexical")])
def test_a_search_holds_no_table_while_it_asks_and_takes_no_vector_of_another_provider(
    database: str, conn: Connection, embedding_service: EmbeddingService, changed: bool, mode: str
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embed(conn)
    conn.execute("update memory_plugin.embedding_provider set query_timeout_ms = 30000")
    slow = embedding_service.behaviour = Slow()
    answers: list[dict[str, Any]] = []

    def asked() -> None:
        with psycopg.connect(database, autocommit=True) as other:
            body = '{"namespaces": ["team:a"], "query": "office wheels"}'
            row = other.execute("select memory_plugin.v1_search(%s)", [body]).fetchone()
            assert row is not None
            answers.append(row[0]["search"])

    thread = threading.Thread(target=asked)
    thread.start()
    assert slow.waiting.acquire(timeout=20)
    with conn.transaction():
        conn.execute("lock table memory_plugin.memory_records, memory_plugin.memory_vectors nowait")
    if changed:
        conn.execute("update memory_plugin.embedding_provider set revision = gen_random_uuid()")
    slow.released.set()
    thread.join(20)
    (answer,) = answers
    assert (answer["mode"], answer.get("degraded")) == (mode, "embedding" if changed else None)


def test_one_session_embeds_and_another_takes_over_when_it_is_gone_or_stuck(
    database: str, conn: Connection, embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service, timeout_ms=30000)
    commit(conn, TEXTS[:1])

    def first(number: int) -> None:
        name = f"first {number}"
        with (
            suppress(psycopg.OperationalError),
            psycopg.connect(database, autocommit=True, application_name=name) as other,
        ):
            embed(other)

    for number, end in enumerate(("terminated", "expired")):
        slow = embedding_service.behaviour = Slow()
        thread = threading.Thread(target=first, args=(number,))
        thread.start()
        assert slow.waiting.acquire(timeout=20)
        assert embed(conn)["outcome"] == "elsewhere"
        embedding_service.behaviour = None
        if end == "terminated":
            query = "select pg_terminate_backend(pid, 20000) from pg_stat_activity where application_name = 'first 0'"
            assert conn.execute(query).fetchone() == (True,)
        else:
            conn.execute("update memory_plugin.embedding_state set lease_until = now() - interval '1 second'")
        assert embed(conn) == {"outcome": "done", "embedded": 1, "seconds": 0}
        slow.released.set()
        thread.join(20)
        assert status(conn)["pending"] == 0
        assert embedding_service.sent[TEXTS[number]] == 2
        commit(conn, TEXTS[1:2])


def test_two_sidecars_do_not_do_the_same_work(
    database: str, conn: Connection, embedding_service: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    configure(conn, embedding_service, timeout_ms=30000)
    sidecars = [start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1") for _ in range(2)]
    crowds = [Crowd(sidecar.client, 5) for sidecar in sidecars]
    for crowd in crowds:
        crowd.join()
        assert crowd.wrong == []
    wait_until(lambda: status(conn)["pending"] == 0, "every memory to be embedded")
    # Both crowds write the same texts. On a machine that is too busy one may be sent once more.
    sent = [embedding_service.sent[text] for text in crowds[0].texts]
    assert max(sent) <= 4
    assert sum(sent) <= 2.5 * len(sent)


def test_metrics_show_what_waits_what_failed_and_how_fast_it_goes(
    database: str, conn: Connection, embedding_service: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")

    def shown() -> dict[str, float]:
        families = text_string_to_metric_families(sidecar.client.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return {sample.name.removeprefix("memory_plugin_"): sample.value for sample in samples}

    assert "embedding_pending" not in shown()
    configure(conn, embedding_service)
    embedding_service.behaviour = service_module.status(500)
    commit(conn)
    # A sidecar that saw no provider looks again after a quarter of a minute.
    wait_until(lambda: shown().get("embedding_pending") == 3, "what waits to be shown", 30)
    wait_until(lambda: shown()["embedding_oldest_seconds"] > 0 and shown()["embedding_up"] == 0, "trouble to be shown")
    embedding_service.behaviour = service_module.refusing("physician")

    def done() -> bool:
        at_once(conn, attempts=True)
        now = shown()
        return (now["embedding_pending"], now["embedding_failed"], now["embedded_rows_total"]) == (0, 1, 2)

    wait_until(done, "the end to be shown", 60)
    assert shown()["embedding_up"] == 1
    assert shown()["embedding_per_second"] > 0


def test_a_statement_timeout_is_named_and_the_provider_is_not_asked_again_and_again(
    database: str, conn: Connection, embedding_service: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embedding_service.behaviour = Slow(2)
    conn.execute(
        "do $$ begin execute format('alter database %I set statement_timeout = 800', current_database()); end $$"
    )
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")
    wait_until(lambda: "a statement_timeout ends it" in sidecar.log(), "the timeout to be named")
    asked = embedding_service.requests
    wait_until(lambda: "memory_plugin_embedding_up 0.0" in sidecar.client.get("/metrics").text, "it to be shown")
    # The first pause is of four seconds, the next of eight.
    time.sleep(5)
    assert embedding_service.requests - asked <= 2
    conn.execute("do $$ begin execute format('alter database %I reset all', current_database()); end $$")
    embedding_service.behaviour = Slow(0)
    wait_until(lambda: status(conn)["pending"] == 0, "all to be embedded", 30)
    wait_until(lambda: "memory_plugin_embedding_up 1.0" in sidecar.client.get("/metrics").text, "it to be shown")


def test_a_store_that_fetches_no_embeddings_is_warned_of_none_and_no_trouble_is_left_standing(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Embedding(f"host=127.0.0.1 port={free_port()} user=x dbname=x", 1).round()
    clock = Embedding(database, 1)
    clock.round()
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patched:
        patched.setattr(embedding_module, "STATUS_SECONDS", 0.0)
        clock.round()
    assert "embedding_failed reason=deadline" in capsys.readouterr().err
    clock.round()
    assert "embedding_resumed" in capsys.readouterr().err
