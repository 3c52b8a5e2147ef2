"""Taking the store away takes the store and nothing else, and says so first."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from fixtures.installing import NEED_THE_STORE, install, make_earlier_shape, make_vector, members, refusal, rows
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
    database: str, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    rows(database, "create schema theirs")
    rows(database, theirs)
    before = rows(database, "select embedding::text from theirs.docs")
    assert uninstall(database) == 2
    assert "theirs.docs.embedding" in capsys.readouterr().out
    assert rows(database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'") == [
        ("memory_plugin",)
    ]
    assert uninstall(database, "--yes") == 0
    assert rows(database, SCHEMA) == GONE
    assert rows(database, "select embedding::text from theirs.docs") == before
    assert rows(database, "select '[1,2]'::public.vector::text") == [("[1,2]",)]


@pytest.mark.parametrize(
    "theirs",
    NEED_THE_STORE,
)
def test_it_is_refused_while_something_of_others_needs_the_store(
    database: str, capsys: pytest.CaptureFixture[str], theirs: str
) -> None:
    rows(database, "create schema theirs")
    rows(database, theirs)
    assert uninstall(database, "--yes") == 30
    assert "theirs." in capsys.readouterr().err
    assert rows(database, SCHEMA) != GONE
    assert install(database).applied == ()


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ("create table memory_plugin.foo (a int)", "table memory_plugin.foo"),
        ("create view memory_plugin.foo as select 1 as a", "view memory_plugin.foo"),
        ("create sequence memory_plugin.foo", "sequence memory_plugin.foo"),
        ("create function memory_plugin.foo() returns int language sql as 'select 1'", "function memory_plugin.foo()"),
        ("create type memory_plugin.foo as enum ('a')", "type memory_plugin.foo"),
        ("create domain memory_plugin.foo as int", "memory_plugin.foo"),
        ('create collation memory_plugin.foo from "C"', "collation memory_plugin.foo"),
        (
            "create table public.whole (a int) partition by list (a);"
            " create table memory_plugin.foo partition of public.whole default",
            "table memory_plugin.foo",
        ),
        ("create table memory_plugin._foo (a int)", "table memory_plugin._foo"),
    ],
)
@pytest.mark.parametrize("store", [True, False])
def test_it_is_refused_while_something_of_others_stands_in_the_schema(
    database: str, empty_database: str, capsys: pytest.CaptureFixture[str], theirs: str, named: str, store: bool
) -> None:
    url = database if store else empty_database
    if not store:
        rows(url, "create schema memory_plugin")
    rows(url, theirs)
    before = members(url, "memory_plugin")
    for arguments in ((), ("--yes",)):
        assert uninstall(url, *arguments) == 25
        printed = capsys.readouterr()
        assert not store or (named in printed.err and named in printed.out and "set schema" in printed.err)
    assert members(url, "memory_plugin") == before


def test_tables_of_others_that_are_called_as_ours_are_no_store(empty_database: str) -> None:
    for theirs in ("memory_records", "schema_migrations"):
        rows(empty_database, f"create schema memory_plugin; create table memory_plugin.{theirs} (version text)")
        assert uninstall(empty_database, "--yes") == 25
        assert refusal(empty_database).exit_code == 25
        assert rows(empty_database, f"drop table memory_plugin.{theirs}; drop schema memory_plugin") == []


def test_once_moved_away_what_others_had_in_the_schema_stays(empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, "create table memory_plugin.foo as select 7 as a")
    assert uninstall(empty_database, "--yes") == 25
    rows(empty_database, "alter table memory_plugin.foo set schema public")
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, "select a from public.foo") == [(7,)]


def test_what_an_earlier_version_left_goes_with_the_store(empty_database: str) -> None:
    install(empty_database)
    rows(
        empty_database,
        "create function memory_plugin._lexical_total(text[], integer) returns int language sql as 'select 1';"
        " create function memory_plugin._helper() returns int language sql as 'select 1';"
        " alter function memory_plugin._helper() owner to memory_plugin_owner;"
        " create type memory_plugin._pair as (a int); alter type memory_plugin._pair owner to memory_plugin_owner;"
        " create table memory_plugin.memory_vectors_spare (a int)",
    )
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, SCHEMA) == GONE


def test_a_store_of_the_earlier_shape_goes_and_an_empty_schema_too(empty_database: str) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    assert uninstall(empty_database, "--yes") == 0
    rows(empty_database, "create schema memory_plugin")
    assert uninstall(empty_database, "--yes") == 0
    assert rows(empty_database, SCHEMA) == GONE


def test_what_an_operators_migration_made_goes_unless_it_has_rows(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "001_notes.up.sql").write_text(
        "create table notes (a int);\n"
        "create function note() returns int language sql set search_path = pg_catalog, pg_temp as 'select 1';\n"
    )
    install(empty_database, migrations_dir=str(tmp_path))
    assert uninstall(empty_database, "--yes") == 25
    assert "ours: table memory_plugin.notes --" in capsys.readouterr().err
    rows(empty_database, "drop table memory_plugin.notes")
    assert uninstall(empty_database, "--yes") == 0


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
