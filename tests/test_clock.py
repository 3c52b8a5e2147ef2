"""A server's clock that was set back: nothing that a clock ahead had written down as still to come waits for long."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.servers("any")

Connection = psycopg.Connection[Any]


@pytest.fixture
def provided(conn: Connection) -> Connection:
    """Return a connection to a store with a provider, of which nobody asks anything, and a memory to embed."""
    conn.execute(
        "insert into memory_plugin.embedding_provider (url, model, dimensions, batch_size, timeout_ms, "
        "query_timeout_ms, max_characters, send_dimensions, text_prefix, query_prefix) "
        "values ('http://127.0.0.1:9/v1/embeddings', 'm', 1536, 64, 1000, 100, 1000, false, '', '')"
    )
    conn.execute("select memory_plugin.commit_memory('team:a', 'x', id => gen_random_uuid())")
    return conn


def state(conn: Connection, **values: str) -> None:
    for name, value in values.items():
        conn.execute(f"update memory_plugin.embedding_state set {name} = {value}".encode())


def claim(conn: Connection) -> tuple[str, float]:
    row = conn.execute("select action, seconds from memory_plugin.embedding_claim(10)").fetchone()
    assert row is not None
    return row


@pytest.mark.parametrize("ahead", ["2 hours", "1 year"])
def test_a_pause_that_a_clock_ahead_wrote_is_over(provided: Connection, ahead: str) -> None:
    state(provided, retry_at=f"now() + interval '{ahead}'")
    assert claim(provided)[0] == "probe"


def test_a_pause_that_a_provider_may_ask_for_is_kept(provided: Connection) -> None:
    state(provided, retry_at="now() + interval '1 hour'")
    action, seconds = claim(provided)
    assert action == "wait"
    assert 3590 < seconds <= 3600


def test_a_provider_left_alone_by_searches_until_next_year_is_looked_at(provided: Connection) -> None:
    state(provided, query_off_until="now() + interval '1 minute'")
    assert claim(provided)[0] == "embed"
    state(provided, query_off_until="now() + interval '1 year'")
    assert claim(provided)[0] == "probe"


def test_a_lease_that_a_clock_ahead_gave_is_nobodys(provided: Connection) -> None:
    with psycopg.connect(provided.info.dsn, autocommit=True) as other:
        state(provided, lease_pid=str(other.info.backend_pid), lease_until="now() + interval '30 seconds'")
        assert claim(provided)[0] == "elsewhere"
        state(provided, lease_until="now() + interval '1 year'")
        assert claim(provided)[0] == "embed"


def test_a_memory_put_off_until_next_year_is_tried_in_the_round_after(provided: Connection) -> None:
    provided.execute(
        "insert into memory_plugin.embedding_attempts (namespace, id, content_hash, tries, alone, failed, next_at, "
        "reason) select namespace, id, memory_plugin._embedding_hash(content), 1, true, false, "
        "now() + interval '1 year', 'slow down' from memory_plugin.memory_records"
    )
    assert claim(provided)[0] == "done"
    assert claim(provided)[0] == "embed"


def test_a_memory_is_there_or_not_by_the_clock_of_now(conn: Connection) -> None:
    conn.execute("select memory_plugin.commit_memory('team:a', 'x', expires_at => now() + interval '1 hour')")
    for step, there in (("-", 0), ("+", 1)):
        conn.execute(
            f"update memory_plugin.memory_records set expires_at = expires_at {step} interval '2 hours'".encode()
        )
        found = conn.execute("select count(*) from memory_plugin.search(array['team:a'])").fetchone()
        assert found == (there,)
