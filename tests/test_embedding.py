"""Embeddings that the database fetches: text is found by a paraphrase, and nothing waits for the provider."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fixtures import embedding_service as service_module
from fixtures.embedding_service import KEY, EmbeddingService, Slow
from fixtures.sidecars import Sidecar, wait_until

TEXTS = ["my automobile needs new tyres", "the physician said to rest", "fix the printer of my office"]


def configure(conn: psycopg.Connection[Any], service: EmbeddingService, **more: Any) -> None:
    conn.execute(
        "select memory_plugin.configure_embedding(%s, 'bag', 1536, %s, timeout_ms => %s)",
        [service.url, more.get("key", KEY), more.get("timeout_ms", 1000)],
    )


def commit(conn: psycopg.Connection[Any], texts: list[str] = TEXTS) -> None:
    for text in texts:
        conn.execute("select memory_plugin.commit_memory('team:a', %s)", [text])


def status(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    row = conn.execute("select memory_plugin.embedding_status()").fetchone()
    assert row is not None
    return row[0] or {}


def embed(conn: psycopg.Connection[Any]) -> dict[str, Any]:
    row = conn.execute("call memory_plugin.embed_pending()").fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


@pytest.mark.servers("full")
def test_text_alone_is_found_by_a_paraphrase_over_http(
    database: str,
    conn: psycopg.Connection[Any],
    embedding_service: EmbeddingService,
    start_sidecar: Callable[..., Sidecar],
) -> None:
    configure(conn, embedding_service)
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")
    assert "server_embedding" in sidecar.client.get("/v1/health").json()["capabilities"]
    for text in TEXTS:
        body = {"content": text, "kind": "fact", "source": "agent"}
        assert sidecar.client.post("/v1/namespaces/team:a/memories", json=body).status_code == 201
    wait_until(lambda: status(conn)["pending"] == 0, "the memories to be embedded")
    answer = sidecar.client.post("/v1/search", json={"namespaces": ["team:a"], "query": "vehicle wheels"}).json()
    assert answer["search"]["mode"] == "hybrid"
    assert answer["memories"][0]["content"] == TEXTS[0]
    assert all(embedding_service.sent[text] == 1 for text in TEXTS)


@pytest.mark.servers("full")
def test_text_alone_is_found_by_a_paraphrase_in_sql(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    assert embed(conn)["embedded"] == 3
    found = conn.execute("select content from memory_plugin.search(array['team:a'], query => 'vehicle wheels')")
    assert found.fetchall()[0] == (TEXTS[0],)


@pytest.mark.servers("full")
@pytest.mark.parametrize(
    "trouble",
    [
        service_module.dropped,
        service_module.status(429, **{"Retry-After": "1"}),
        service_module.status(500),
        service_module.status(401),
        service_module.status(302, Location="http://localhost:1/"),
        service_module.body(b"<html>"),
        service_module.body(b"[" * 100_000),
        service_module.body(b" " * 3_000_000),
        service_module.body(b'{"data": [{"embedding": [NaN]}, {"embedding": [NaN]}, {"embedding": [NaN]}]}'),
        service_module.data(lambda items: items.pop()),
        service_module.data(lambda items: [item["embedding"].pop() for item in items]),
        Slow(3),
    ],
)
def test_whatever_the_provider_does_nothing_is_lost_and_no_text_is_sent_more_than_once_more(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService, trouble: Any
) -> None:
    configure(conn, embedding_service, timeout_ms=500)
    commit(conn)
    embedding_service.behaviour = trouble
    assert embed(conn)["embedded"] == 0
    began = time.monotonic()
    row = conn.execute(
        'select memory_plugin.v1_search(\'{"namespaces": ["team:a"], "query": "printer office"}\')'
    ).fetchone()
    assert row is not None
    assert time.monotonic() - began < 2
    assert row[0]["search"]["degraded"] == "embedding"
    assert row[0]["memories"][0]["content"] == TEXTS[2]
    embedding_service.behaviour = None
    wait_until(lambda: embed(conn) and status(conn)["pending"] == 0, "recovery")
    assert status(conn)["failed"] == 0
    assert max(embedding_service.sent[text] for text in TEXTS) <= 2


@pytest.mark.servers("full")
def test_a_retried_commit_keeps_the_embedding_and_nothing_is_sent_again(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    retried = "select memory_plugin.commit_memory('team:a', %s, id => '8c2d1b51-5a0a-4d5e-9d9f-0a3a0a4f2c11')"
    conn.execute(retried, TEXTS[:1])
    embed(conn)
    before = conn.execute("select xmin, embedding::text from memory_plugin.memory_records").fetchall()
    conn.execute(retried, TEXTS[:1])
    assert conn.execute("select xmin, embedding::text from memory_plugin.memory_records").fetchall() == before
    assert (status(conn)["pending"], embed(conn)["embedded"], embedding_service.sent[TEXTS[0]]) == (0, 0, 1)
    conn.execute(retried, TEXTS[1:2])
    assert (status(conn)["pending"], embed(conn)["embedded"], embedding_service.sent[TEXTS[1]]) == (1, 1, 1)


@pytest.mark.servers("full")
def test_answers_in_another_order_go_to_their_texts(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embedding_service.behaviour = service_module.data(lambda items: items.reverse())
    embed(conn)
    found = conn.execute("select content from memory_plugin.search(array['team:a'], query => 'vehicle wheels')")
    assert found.fetchall()[0] == (TEXTS[0],)


@pytest.mark.servers("full")
def test_a_text_that_is_refused_is_put_aside_with_the_reason(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embedding_service.behaviour = service_module.refusing("physician")

    def tried() -> bool:
        embed(conn)
        conn.execute("update memory_plugin.embedding_attempts set next_at = now()")
        return status(conn)["failed"] == 1

    wait_until(tried, "the refused text to be put aside")
    assert status(conn)["pending"] == 0
    rows = conn.execute("select tries, reason from memory_plugin.embedding_failures()").fetchall()
    assert rows == [(3, "HTTP 400: physician is too much for me")]
    sent = embedding_service.sent.copy()
    assert embed(conn)["embedded"] == 0
    assert embedding_service.sent == sent


def at_once(conn: psycopg.Connection[Any], *, attempts: bool) -> None:
    """Let the time go by after which the provider, and a text that it failed at, is tried again."""
    conn.execute("update memory_plugin.embedding_state set retry_at = now() where retry_at is not null")
    if attempts:
        conn.execute("update memory_plugin.embedding_attempts set next_at = now()")


@pytest.mark.servers("full")
@pytest.mark.parametrize(
    "trouble",
    [
        service_module.refusing("automobile", 403),
        service_module.refusing("automobile", 503, **{"Retry-After": "1"}),
        service_module.crashing("automobile"),
        service_module.refusing("automobile", 429, **{"Retry-After": "1"}),
        service_module.refusing("automobile", 401),
        service_module.refusing("automobile", 302),
    ],
    ids=["403", "503", "crash", "429", "401", "302"],
)
def test_a_text_that_the_provider_fails_at_keeps_no_other_waiting_and_is_put_aside_in_the_end(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService, trouble: Any
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embedding_service.behaviour = trouble

    def rounds(*, attempts: bool, until: tuple[int, int]) -> Callable[[], bool]:
        def one() -> bool:
            embed(conn)
            at_once(conn, attempts=attempts)
            now = status(conn)
            return (now["pending"], now["failed"]) == until

        return one

    # It is the oldest.
    wait_until(rounds(attempts=False, until=(1, 0)), "the others to be embedded")
    wait_until(rounds(attempts=True, until=(0, 1)), "the text to be put aside")
    sent = embedding_service.sent[TEXTS[0]]
    assert sent < 40
    embed(conn)
    assert embedding_service.sent[TEXTS[0]] == sent


@pytest.mark.servers("full")
def test_a_provider_that_is_half_dead_makes_no_text_a_failed_one(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    embedding_service.behaviour = service_module.losing(5)

    def done() -> bool:
        embed(conn)
        at_once(conn, attempts=True)
        assert status(conn)["failed"] == 0
        return bool(status(conn)["pending"] == 0)

    wait_until(done, "every text to be embedded")


@pytest.mark.servers("full")
def test_no_snapshot_and_no_row_lock_is_held_while_the_provider_is_asked(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service, timeout_ms=30000)
    commit(conn, TEXTS[:1])
    slow = embedding_service.behaviour = Slow(30)

    def call() -> None:
        with psycopg.connect(database, autocommit=True, application_name="embedding") as other:
            embed(other)

    thread = threading.Thread(target=call)
    thread.start()
    assert slow.waiting.acquire(timeout=20)
    held = (
        "select backend_xmin is null and backend_xid is null from pg_stat_activity where application_name = 'embedding'"
    )
    wait_until(lambda: conn.execute(held).fetchone() == (True,), "the snapshot to be let go")
    # The content changes meanwhile: the answer is for another text.
    conn.execute("set lock_timeout = '1s'")
    conn.execute("update memory_plugin.memory_records set content = 'changed'")
    embedding_service.behaviour = None
    slow.released.set()
    thread.join(20)
    wait_until(lambda: status(conn)["pending"] == 0 or not embed(conn), "the new text to be embedded")
    assert embedding_service.sent["changed"] == 1


@pytest.mark.servers("full")
def test_a_memory_that_somebody_holds_is_not_sent_and_those_behind_it_are(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn)
    with psycopg.connect(database) as holder:
        holder.execute("update memory_plugin.memory_records set pin = true where content = %s", TEXTS[:1])
        assert embed(conn) == {"outcome": "done", "embedded": 2, "seconds": 0}
        assert embed(conn) == {"outcome": "done", "embedded": 0, "seconds": 0}
        # Nothing claimed, nothing kept from others.
        assert conn.execute("select lease_pid from memory_plugin.embedding_state").fetchone() == (None,)
    assert [embedding_service.sent[text] for text in TEXTS] == [0, 1, 1]
    assert embed(conn)["embedded"] == 1
    assert embedding_service.sent[TEXTS[0]] == 1


@pytest.mark.servers("full")
def test_the_key_is_shown_to_nobody(conn: psycopg.Connection[Any], embedding_service: EmbeddingService) -> None:
    configure(conn, embedding_service, key="sk-secret-of-ours")
    shown = conn.execute("select memory_plugin.embedding_provider()::text || memory_plugin.stats()::text").fetchone()
    tested = conn.execute("select memory_plugin.test_embedding()::text").fetchone()
    assert "secret" not in str(shown) + str(tested)
    assert "HTTP 401" in str(tested)
    conn.execute("set role memory_plugin_api")
    for statement in ("select api_key from memory_plugin.embedding_provider", "select memory_plugin.test_embedding()"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.encode())


@pytest.mark.servers("embedded")
def test_without_plpython_nothing_speaks_of_server_embeddings(conn: psycopg.Connection[Any]) -> None:
    assert status(conn) == {}
    assert conn.execute("select 'server_embedding' = any (capabilities) from memory_plugin.health()").fetchone() == (
        False,
    )
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        conn.execute("select memory_plugin.configure_embedding('http://localhost', 'm', 1536)")
