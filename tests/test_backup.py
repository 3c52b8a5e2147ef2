"""A dump of the schema restores into a fresh database and serves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from fixtures.installing import connected, install, rows
from fixtures.server import Server


@pytest.mark.parametrize("schema", ["memory_plugin", "public"])
def test_a_dump_of_the_schema_restores_into_a_fresh_database_and_serves(
    server: Server, new_empty_database: Callable[[], str], tmp_path: Path, schema: str
) -> None:
    source, target = new_empty_database(), new_empty_database()
    for url in (source, target):
        if schema == "memory_plugin":
            rows(url, "create schema memory_plugin")
        rows(url, f"create extension vector schema {schema}")
    install(source)
    if server.has_plpython:
        rows(target, "create extension plpython3u")
    embedding = str([1.0] + [0.0] * 1535)
    with connected(source) as connection:
        connection.execute(
            "select memory_plugin.commit_memory('team:a', 'an apple', embedding => %s::text::" + schema + ".vector)",  # type: ignore[arg-type]
            [embedding],
        )
    dump = tmp_path / "memory.dump"
    run(server, "pg_dump", "--schema=memory_plugin", "--format=custom", f"--file={dump}", source)
    # Where the extension had to make the schema first, the dump's own `create schema` is the one statement that fails.
    restored = run(server, "pg_restore", f"--dbname={target}", str(dump), check=schema == "public")
    failed = [line for line in restored.splitlines() if "error:" in line]
    assert [line for line in failed if 'schema "memory_plugin" already exists' not in line] == []
    assert rows(target, "select content from memory_plugin.memory_records") == [("an apple",)]
    assert not install(target).applied
    found = "select content from memory_plugin.search(array['team:a'], query => 'apple')"
    assert rows(target, found) == [("an apple",)]
    with psycopg.connect(target) as connection:
        nearest = connection.execute(
            "select content from memory_plugin.search(array['team:a'], embedding => %s)", [embedding]
        ).fetchall()
    assert nearest == [("an apple",)]


def run(server: Server, program: str, *arguments: str, check: bool = True) -> str:
    """Run one of the server's own programs; return what it said on standard error."""
    assert server.own is not None
    done = subprocess.run([server.own.bin_dir / program, *arguments], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done.stderr
