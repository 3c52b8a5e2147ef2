"""Taking the store away takes the store and nothing else, and says so first."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from fixtures.installing import NEED_THE_STORE, install, make_vector, rows
from fixtures.sidecars import PROGRAM, clean_env
from memory_plugin.installer import cli

SCHEMA = "select to_regnamespace('memory_plugin')"
GONE = [(None,)]


def uninstall(url: str, *arguments: str) -> int:
    """Run the command."""
    return cli.run(["uninstall", "--database-url", url, *arguments])


def test_without_yes_it_only_tells(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows(database, "select memory_plugin.commit_memory('team:a', 'tea')")
    assert uninstall(database) == 2
    printed = capsys.readouterr()
    assert "memory_records" in printed.out
    assert "1 memories" in printed.out
    assert "memory_plugin_owner" in printed.out
    assert "--yes" in printed.err
    assert rows(database, "select content from memory_plugin.memory_records") == [("tea",)]


@pytest.mark.parametrize("vector", ["memory_plugin", "public", "extensions"])
def test_with_yes_the_store_goes_and_can_be_installed_again(empty_database: str, vector: str) -> None:
    make_vector(empty_database, vector)
    install(empty_database)
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, SCHEMA) == GONE
    kept = rows(empty_database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")
    assert kept == ([] if vector == "memory_plugin" else [(vector,)])
    assert uninstall(empty_database, "--yes") == 0
    assert install(empty_database).applied


@pytest.mark.parametrize(
    "theirs",
    [
        "create table theirs.docs as select '[1,2,3]'::memory_plugin.vector as embedding",
        "create table theirs.docs as select array['[1,2,3]'::memory_plugin.vector] as embedding",
        "create domain theirs.unit as memory_plugin.vector(3); create table theirs.docs as"
        " select '[1,2,3]'::theirs.unit as embedding",
        "create table theirs.docs as select '[1,2,3]'::memory_plugin.vector as embedding;"
        " alter table theirs.docs alter embedding set default '[1]'::memory_plugin.vector;"
        " create policy p on theirs.docs using (embedding operator(memory_plugin.=) '[1,2,3]')",
    ],
)
def test_pgvector_moves_to_public_first_when_others_use_it(
    empty_database: str, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    install(empty_database)
    rows(empty_database, "create schema theirs")
    rows(empty_database, theirs)
    before = rows(empty_database, "select embedding::text from theirs.docs")
    assert uninstall(empty_database) == 2
    assert "theirs.docs.embedding" in capsys.readouterr().out
    assert rows(
        empty_database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
    ) == [("memory_plugin",)]
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, SCHEMA) == GONE
    assert rows(empty_database, "select embedding::text from theirs.docs") == before
    assert rows(empty_database, "select '[1,2]'::public.vector::text") == [("[1,2]",)]


@pytest.mark.parametrize(
    "theirs",
    NEED_THE_STORE,
)
def test_it_is_refused_while_something_of_others_needs_the_store(
    empty_database: str, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    install(empty_database)
    rows(empty_database, "create schema theirs")
    rows(empty_database, theirs)
    assert uninstall(empty_database, "--yes") == 30
    assert "theirs." in capsys.readouterr().err
    assert rows(empty_database, SCHEMA) != GONE
    assert install(empty_database).applied == ()


def test_an_export_asked_for_is_complete_before_anything_goes(database: str, tmp_path: Path) -> None:
    rows(database, "select memory_plugin.commit_memory('team:a', 'tea')")
    rows(database, "select memory_plugin.commit_memory('team:a', 'old', expires_at => '2020-01-01')")
    file = tmp_path / "all.ndjson.gz"
    assert uninstall(database, "--yes", "--export", str(tmp_path / "missing" / "all.gz")) == 21
    assert rows(database, "select count(*) from memory_plugin.memory_records") == [(2,)]
    assert uninstall(database, "--yes", "--export", str(file)) == 0
    assert rows(database, SCHEMA) == GONE
    with gzip.open(file, "rt") as lines:
        contents = [json.loads(line).get("content") for line in lines]
    assert sorted(filter(None, contents)) == ["old", "tea"]


@pytest.mark.parametrize(
    "ours",
    [
        "create trigger theirs after insert on memory_plugin.memory_records"
        " for each row execute function public.audit()",
        "create policy theirs on memory_plugin.memory_records using (true)",
        "create index theirs on memory_plugin.memory_records (source)",
        "alter default privileges in schema memory_plugin grant select on tables to public",
    ],
)
def test_what_belongs_to_the_stores_own_tables_goes_with_them(empty_database: str, ours: str) -> None:
    install(empty_database)
    rows(
        empty_database,
        "create function public.audit() returns trigger language plpgsql as 'begin return null; end'",
    )
    rows(empty_database, ours)
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, SCHEMA) == GONE
    assert rows(empty_database, "select count(*) from pg_proc where proname = 'audit'") == [(1,)]


@pytest.mark.parametrize("file", ["-", "memories.ndjson"])
def test_what_is_told_does_not_stand_among_the_exported_memories(database: str, tmp_path: Path, file: str) -> None:
    rows(database, "select memory_plugin.commit_memory('team:a', 'tea')")
    environment = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
    command = [PROGRAM, "uninstall", "--yes", "--export", file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    exported = done.stdout if file == "-" else (tmp_path / file).read_text()
    assert [json.loads(line)["type"] for line in exported.splitlines()] == ["namespace", "memory"]
    told = done.stderr if file == "-" else done.stdout
    assert "drops: 1 memories" in told
    assert "dropped: the schema memory_plugin" in told


def test_nothing_to_remove_is_no_failure(empty_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert uninstall(empty_database, "--yes") == 0
    assert "nothing to remove" in capsys.readouterr().out
