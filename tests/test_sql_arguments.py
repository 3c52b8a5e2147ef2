"""What psql users give by mistake: refused by name, hinting at the name in SQL where it is another; nothing changes."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from doors import Contract

pytestmark = pytest.mark.servers("any")
ID = "'11111111-2222-3333-4444-555555555555'"


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        ("search(array['team:a'], max_results => 101)", "limit must be between 0 and 100", "max_results"),
        ("search(array['team:a'], max_results => -1)", "limit must be between 0 and 100", "max_results"),
        ("search(array['team:a'], skip_results => -1)", "offset must be between 0 and 10000", "skip_results"),
        ("search(array['team:a'], sources => '{oracle}')", "source must be one of: agent, runtime, user", "sources"),
        ("search(array['team:a'], lexical_weight => -1)", "weights must be numbers from 0 to 1e6", "lexical_weight"),
        (
            "search(array['team:a'], neighbour_weight => 11)",
            "weights.neighbour must be between 0 and 10",
            "neighbour_weight",
        ),
        ("search(array['team:a'], min_score => '-infinity')", "min_score must be between -1e300 and 1e300", ""),
        ("search(array['team:a'], min_score => 'nan')", "min_score must be between -1e300 and 1e300", ""),
        ("upsert_namespace('team:a', 'team', metadata => '[]')", "metadata must be a JSON object", ""),
        ("patch_namespace('team:a', metadata => '\"x\"')", "metadata must be a JSON object", ""),
        ("commit_memory('team:a', 'x', propagation => '[1]')", "propagation must be a JSON object", ""),
        ("commit_memory('team:a', null)", "content must not be blank", ""),
        ("commit_memory('team:a', 'x', kind => null)", "kind is required", ""),
        ("forget_memory(null, 'team:a')", "id is required", ""),
        ("forget_memory(gen_random_uuid(), 'Team a')", "requested_by_namespace must match", "workspace:4f2a"),
        ("get_memory('team:a', null)", "id is required", ""),
        ("get_memory('Team a', gen_random_uuid())", "namespace must match", "workspace:4f2a"),
        ("get_memory(null, gen_random_uuid())", "namespace is required", ""),
        ("find_duplicates('Team a')", "namespace must match", "workspace:4f2a"),
        ("sweep(0)", "max_rows must be between 1 and 1000000", ""),
        ("sweep(1000001)", "max_rows must be between 1 and 1000000", ""),
        ("sweep(null)", "max_rows must be between 1 and 1000000", ""),
        (
            "patch_namespace('team:a', expires_at => '2100-01-01', clear_expires_at => true)",
            "expires_at must not be given with clear_expires_at",
            "",
        ),
        (
            "patch_namespace('team:a', metadata => '{}', clear_metadata => true)",
            "metadata must not be given with clear_metadata",
            "",
        ),
    ],
)
def test_a_wrong_argument_is_refused_by_name(conn: psycopg.Connection[Any], call: str, message: str, hint: str) -> None:
    conn.execute("select memory_plugin.upsert_namespace('team:a', 'team', metadata => '{\"a\": 1}')")
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(f"select * from memory_plugin.{call}".encode())
    assert caught.value.sqlstate == "MP001"
    assert (caught.value.diag.message_primary or "").startswith(message)
    assert hint in (caught.value.diag.message_hint or "")
    kept = conn.execute("select metadata, expires_at from memory_plugin.memory_namespaces where name = 'team:a'")
    assert kept.fetchone() == ({"a": 1}, None)


EXPIRING = {
    "upsert_namespace": "upsert_namespace(%s, 'team', expires_at => %s)",
    "patch_namespace": "patch_namespace(%s, expires_at => %s)",
    "commit_memory": "commit_memory(%s, 'x', expires_at => %s)",
}


@pytest.mark.parametrize("function", EXPIRING)
@pytest.mark.parametrize("time", ["-infinity", "0001-12-31 23:59:59+00 BC", "10000-01-01 00:00:00+00"])
def test_an_expiry_that_no_client_can_read_is_refused(
    module_database: str, namespace: str, function: str, time: str
) -> None:
    with psycopg.connect(module_database, autocommit=True) as conn:
        conn.execute("select memory_plugin.upsert_namespace(%s, 'team')", [namespace])
        with pytest.raises(psycopg.Error) as caught:
            conn.execute(f"select memory_plugin.{EXPIRING[function]}".encode(), [namespace, time])
    assert caught.value.sqlstate == "MP001"
    assert caught.value.diag.message_primary == "expires_at must lie between the years 1 and 9999"


@pytest.mark.parametrize("function", EXPIRING)
@pytest.mark.parametrize(
    ("time", "kept"),
    [
        ("infinity", None),
        ("0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000Z"),
        ("9999-12-31 23:59:59.999999+00", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_an_expiry_may_be_the_first_or_the_last_moment_that_can_be_written_or_never(
    module_database: str, namespace: str, function: str, time: str, kept: str | None
) -> None:
    column = {"commit_memory": "memory_records where namespace"}.get(function, "memory_namespaces where name")
    with psycopg.connect(module_database, autocommit=True) as conn:
        conn.execute("select memory_plugin.upsert_namespace(%s, 'team', expires_at => '2999-01-01')", [namespace])
        conn.execute(f"select memory_plugin.{EXPIRING[function]}".encode(), [namespace, time])
        stored = f"select memory_plugin._rfc3339(expires_at) from memory_plugin.{column} = %s"
        assert conn.execute(stored.encode(), [namespace]).fetchone() == (kept,)


def words(count: int) -> str:
    """Return so many different words of a few letters."""
    return " ".join(f"q{number:x}z" for number in range(count))


def test_a_text_of_more_words_than_can_be_found_is_refused_by_field(contract: Contract) -> None:
    name = contract.name()
    answer = contract.commit(name, words(120_000))
    assert (answer.status, answer.body["code"]) == (400, "bad_request")
    assert answer.body["message"] == "content must hold fewer different words: at most a megabyte of them"
    assert contract.search([name]).body["memories"] == []
    # As long, of words that are said again and again.
    assert contract.commit(name, words(1000) * 120).status == 201
