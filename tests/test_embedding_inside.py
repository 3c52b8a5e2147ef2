"""The code behind embeddings inside the database: it hears a cancel, keeps its deadlines, and follows an upgrade."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from fixtures import embedding_service as service_module
from fixtures.embedding_service import AUTHORITY, KEY, EmbeddingService, Slow, drip, raw_server
from fixtures.sidecars import wait_until
from memory_plugin.installer.plpython import build
from test_embedding import TEXTS, commit, configure, embed, status

pytestmark = pytest.mark.servers("full")
Connection = psycopg.Connection[Any]


def searched(conn: Connection, query: str = "printer office") -> dict[str, Any]:
    row = conn.execute(
        "select memory_plugin.v1_search(json_build_object('namespaces', array['team:a'], 'query', %s::text))", [query]
    ).fetchone()
    assert row is not None
    return dict(row[0])


def test_a_statement_timeout_ends_a_search_that_asks(conn: Connection, embedding_service: EmbeddingService) -> None:
    configure(conn, embedding_service)
    commit(conn)
    conn.execute("update memory_plugin.embedding_provider set query_timeout_ms = 60000")
    slow = embedding_service.behaviour = Slow()
    conn.execute("set statement_timeout = '2s'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        searched(conn)
    assert slow.waiting.acquire(timeout=1)
    # The session is as good as before, and nothing is blamed for it.
    conn.execute("set statement_timeout = 0")
    embedding_service.behaviour = None
    slow.released.set()
    assert embed(conn)["embedded"] == 3
    assert searched(conn)["search"]["mode"] == "hybrid"


def test_a_cancel_ends_embed_pending_and_loses_nothing(
    database: str, conn: Connection, embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service, timeout_ms=60000)
    commit(conn)
    slow = embedding_service.behaviour = Slow()
    errors: list[str | None] = []

    def call() -> None:
        with psycopg.connect(database, autocommit=True, application_name="embedding") as other:
            try:
                embed(other)
            except psycopg.Error as error:
                errors.append(error.sqlstate)

    thread = threading.Thread(target=call)
    thread.start()
    assert slow.waiting.acquire(timeout=20)
    conn.execute("select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'embedding'")
    # Long before the provider's minute.
    thread.join(20)
    assert errors == ["57014"]
    embedding_service.behaviour = None
    slow.released.set()
    wait_until(lambda: embed(conn) and status(conn)["pending"] == 0, "every memory to be embedded")
    assert status(conn)["failed"] == 0


def test_a_provider_that_drips_is_left_at_the_deadline(conn: Connection) -> None:
    with raw_server(drip) as url:
        conn.execute(
            "select memory_plugin.configure_embedding(%s, 'bag', 1536, timeout_ms => 300, query_timeout_ms => 300)",
            [url],
        )
        commit(conn)
        told = searched(conn)
        assert told["search"]["degraded"] == "embedding"
        assert told["memories"][0]["content"] == TEXTS[2]
        assert embed(conn)["outcome"] == "wait"
        assert status(conn)["problem"] == "no answer in time"


def test_a_redirect_is_not_followed(conn: Connection, embedding_service: EmbeddingService) -> None:
    target = EmbeddingService(1536)
    try:
        configure(conn, embedding_service)
        commit(conn)
        embedding_service.behaviour = service_module.status(302, Location=f"{target.url}/v1/embeddings")
        embed(conn)
        assert "redirects are not followed" in status(conn)["problem"]
        assert target.requests == 0
    finally:
        target.stop()


def test_a_certificate_is_verified(conn: Connection) -> None:
    service = EmbeddingService(1536, tls=service_module.tls())
    configured = "select memory_plugin.configure_embedding(%s, 'bag', 1536, %s, ca_certificate => %s)"
    try:
        commit(conn)
        conn.execute(configured, [service.url, KEY, None])
        embed(conn)
        assert "certificate not accepted" in status(conn)["problem"]
        assert service.requests == 0
        conn.execute(configured, [service.url, KEY, AUTHORITY])
        assert embed(conn)["embedded"] == 3
        assert searched(conn)["search"]["mode"] == "hybrid"
    finally:
        service.stop()


def test_an_open_session_follows_an_upgrade_of_the_functions(
    database: str, conn: Connection, embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    commit(conn, TEXTS[:1])
    embed(conn)
    searched(conn, "the first query")
    upgrades = {
        "_embed_query": ('asked = provider["query_prefix"]', 'asked = "upgraded " + provider["query_prefix"]'),
        "embed_pending": ('texts = work["texts"] or []', 'texts = ["upgraded " + one for one in work["texts"] or []]'),
    }
    with psycopg.connect(database, autocommit=True) as other:
        for name, (before, after) in upgrades.items():
            source = build(name)
            assert before in source
            other.execute(source.replace(before, after).encode())
    commit(conn, TEXTS[1:2])
    assert embed(conn)["embedded"] == 1
    assert searched(conn, "the second query")["search"]["mode"] == "hybrid"
    assert set(embedding_service.sent) == {
        *(TEXTS[0], "the first query", f"upgraded {TEXTS[1]}", "upgraded the second query")
    }


def test_the_pause_grows_and_no_two_are_alike_also_where_the_provider_names_one(
    conn: Connection, embedding_service: EmbeddingService
) -> None:
    configure(conn, embedding_service)
    settle = """
        select memory_plugin.embedding_settle(revision, '{}', '{}', '{}', null, 'provider', 'x', %s, 1)
        from memory_plugin.embedding_provider
    """
    left = "select extract(epoch from retry_at - clock_timestamp())::float8 from memory_plugin.embedding_state"

    def pauses(times: int, retry_after: float | None) -> list[float]:
        found = []
        for _ in range(times):
            conn.execute(settle, [retry_after])
            row = conn.execute(left).fetchone()
            assert row is not None
            found.append(float(row[0]))
        return found

    # Between a half and the whole of 1 s, doubled up to a minute; a little has passed since.
    grown = pauses(9, None)
    for place, pause in enumerate(grown):
        assert min(2.0**place, 60) / 2 - 0.5 < pause <= min(2.0**place, 60)
    named = pauses(8, 1000.0)
    assert all(999 < pause <= 1250 for pause in named)
    assert max(named) - min(named) > 5


@pytest.mark.parametrize("rows", ["0", "null", "1000001"])
def test_a_number_of_rows_that_is_none_is_refused_by_name(conn: Connection, rows: str) -> None:
    with pytest.raises(psycopg.Error, match="max_rows must be between 1 and 1000000") as caught:
        conn.execute(f"call memory_plugin.embed_pending({rows})".encode())
    assert caught.value.sqlstate == "MP001"
