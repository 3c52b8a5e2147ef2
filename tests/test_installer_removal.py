"""The documented way to remove a store takes the store, all of it, and nothing else."""

from __future__ import annotations

import pytest

from fixtures.installing import MIGRATIONS, NEED_THE_STORE, install, make_vector, psql, rows
from fixtures.server import Server

DOWN = MIGRATIONS / "000_schema_bootstrap.down.sql"
GONE = [(None,)]
SCHEMA = "select to_regnamespace('memory_plugin')"


@pytest.mark.parametrize(
    "theirs",
    [
        "create table theirs.docs as select '[1,2,3]'::memory_plugin.vector as embedding",
        "create table theirs.docs as select array['[1,2,3]'::memory_plugin.vector] as embeddings",
        "create domain theirs.unit as memory_plugin.vector(3)",
        *NEED_THE_STORE,
    ],
)
def test_removal_is_refused_while_another_schema_would_lose_something(
    server: Server, database: str, theirs: str
) -> None:
    rows(database, "create schema theirs")
    rows(database, theirs)
    done = psql(server, database, DOWN)
    assert done.returncode != 0
    assert "would also drop:" in done.stderr
    assert "theirs." in done.stderr
    assert "Nothing was dropped." in done.stderr
    assert rows(database, SCHEMA) != GONE
    assert install(database).applied == ()


def test_removal_after_following_its_hint_keeps_the_other_schemas_vectors(server: Server, empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, "create schema theirs")
    rows(empty_database, "create table theirs.docs as select '[1,2,3]'::memory_plugin.vector as embedding")
    assert "alter extension vector set schema public;" in psql(server, empty_database, DOWN).stderr
    rows(empty_database, "alter extension vector set schema public")
    assert psql(server, empty_database, DOWN).returncode == 0
    assert rows(empty_database, SCHEMA) == GONE
    assert rows(empty_database, "select embedding::text from theirs.docs") == [("[1,2,3]",)]


@pytest.mark.parametrize("vector", ["memory_plugin", "public"])
def test_removal_says_what_goes_and_leaves_a_database_that_can_be_installed_again(
    server: Server, empty_database: str, vector: str
) -> None:
    make_vector(empty_database, vector)
    install(empty_database)
    rows(
        empty_database,
        'select memory_plugin.v1_commit_memory(\'team:x\', \'{"content":"tea","kind":"fact","source":"user"}\')',
    )
    done = psql(server, empty_database, DOWN)
    assert done.returncode == 0
    assert "table memory_plugin.memory_records" in done.stderr
    assert "and with 1 memories" in done.stderr
    assert ("extension vector" in done.stderr) is (vector == "memory_plugin")
    assert rows(empty_database, SCHEMA) == GONE
    held = rows(empty_database, "select count(*) from pg_extension where extname = 'vector'")
    assert held == [(0,)] if vector == "memory_plugin" else [(1,)]
    assert psql(server, empty_database, DOWN).returncode == 0
    assert install(empty_database).applied
