"""`memory-plugin status` tells what a store holds: counts and sizes, for programs and for people."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from fixtures.installing import rows
from fixtures.sidecars import at_a_terminal
from memory_plugin import __version__
from memory_plugin.installer import cli
from memory_plugin.installer.stats import size


@pytest.fixture
def filled(conn: psycopg.Connection[Any], database: str) -> str:
    """Return the URL of a store with memories of each kind, some of which have expired."""
    conn.execute("select memory_plugin.commit_memory('team:a', 'one', pin => true)")
    conn.execute("select memory_plugin.commit_memory('team:a', 'two', kind => 'summary')")
    conn.execute("select memory_plugin.commit_memory('team:b', 'three', kind => 'checkpoint')")
    conn.execute("select memory_plugin.commit_memory('team:b', 'four')")
    conn.execute("update memory_plugin.memory_records set expires_at = now() - interval '1 s' where content = 'four'")
    return database


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["status", *arguments]) == 0
    return capsys.readouterr().out


def test_json_has_the_counts_and_sizes(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    stats = json.loads(told(capsys, "--database-url", filled, "--json"))["stats"]
    assert stats["namespaces"] == {"live": 2, "expired": 0}
    assert stats["memories"] == {
        "live": 3, "fact": 1, "summary": 1, "checkpoint": 1, "pinned": 1, "without_embedding": 3, "expired": 1,
    }  # fmt: skip
    assert stats["bytes"]["memory_records"] > 0
    assert stats["vector"]["schema"] == "memory_plugin"


def test_a_log_gets_plain_lines(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "--database-url", filled).splitlines()
    assert f"program: memory-plugin {__version__}" in lines
    assert "memories: 3 (1 fact, 1 summary, 1 checkpoint)" in lines
    assert "expired, not yet swept: 1 memories, 0 namespaces" in lines


@pytest.mark.servers("any")
def test_a_terminal_gets_a_table(filled: str) -> None:
    shown = at_a_terminal("status", "--database-url", filled, columns=200)
    assert f"memory-plugin {__version__} " in shown
    assert "│ memories" in shown
    assert "3 (1 fact, 1 summary, 1 checkpoint)" in shown


def test_before_an_installation_there_is_nothing_to_count(
    empty_database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(told(capsys, "--database-url", empty_database, "--json"))["stats"] is None
    assert "contents" not in told(capsys, "--database-url", empty_database)


def test_what_cannot_be_counted_is_said_and_is_no_failure(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows(database, "drop function memory_plugin.stats()")
    assert "contents: not counted: the function memory_plugin.stats() is not there" in told(
        capsys, "--database-url", database
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 kB"),
        (8192, "8.0 kB"),
        (10 * 1024, "10 kB"),
        (1536 * 1024, "1.5 MB"),
        (5 * 1024**4, "5.0 TB"),
        (5000 * 1024**4, "5000 TB"),
    ],
)
def test_sizes_are_written_as_people_do(number: int, words: str) -> None:
    assert size(number) == words
