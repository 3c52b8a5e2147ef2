"""The backfill beyond its plain course: trees, other databases, rows that cannot come, sources of another shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from fixtures.backfilling import STORED, W, add, counts, make_source
from fixtures.installing import connected, rows
from fixtures.server import Server
from memory_plugin.installer.transfer.lineage import Lineage, Route

TREE = {
    "root": None,
    "child": "root",
    "leaf": "child",
    "self": "self",
    "a": "b",
    "b": "a",
    "under": "a",
    "lost": "gone",
}


@pytest.mark.parametrize(
    ("workspace", "scope", "namespace", "reason"),
    [
        ("leaf", "LOCAL", "workspace:leaf", ""),
        ("nowhere", "LOCAL", "workspace:nowhere", ""),
        ("root", "TEAM", "team:root", ""),
        ("leaf", "TEAM", "team:child", ""),
        ("under", "TEAM", "team:a", ""),
        ("root", "GLOBAL", "org:root", ""),
        ("leaf", "GLOBAL", "org:root", ""),
        ("self", "TEAM", None, "cycle"),
        ("a", "TEAM", None, "cycle"),
        ("a", "GLOBAL", None, "cycle"),
        ("under", "GLOBAL", None, "cycle"),
        ("lost", "TEAM", None, "orphan"),
        ("lost", "GLOBAL", None, "orphan"),
        ("nowhere", "TEAM", None, "orphan"),
        ("nowhere", "GLOBAL", None, "orphan"),
        ("leaf", "local", None, "scope is local"),
        ("leaf", None, None, "scope is null"),
        (None, "LOCAL", None, "workspace_id is null"),
    ],
)
def test_a_scope_goes_where_the_tree_says_or_nowhere(
    workspace: str | None, scope: str | None, namespace: str | None, reason: str
) -> None:
    lineage = Lineage(TREE)
    found = lineage.route(workspace, scope)
    assert found.namespace == namespace
    assert (found.reason or "").startswith(reason)
    assert (found.reason is None) is (namespace is not None)
    assert lineage.route(workspace, scope) == found


def test_a_tree_ten_thousand_deep_is_walked() -> None:
    lineage = Lineage({"0": None, **{str(i): str(i - 1) for i in range(1, 10_000)}})
    assert lineage.route("9999", "GLOBAL") == Route("org:0")


def test_rows_that_break_a_rule_stay_behind_each_with_its_reason(
    database: str, backfill: Callable[..., Any], tmp_path: Path
) -> None:
    make_source(database, 3)
    add(database, "\u00a0\n")
    add(database, None)
    add(database, "two dimensions", embedding="[1,2]")
    add(database, "zeros", embedding=str([0] * 1536))
    add(database, "no scope", None)
    add(database, "no time", created_at=None)
    add(database, "no place", "TEAM", workspace_id=W(9))
    code, facts = backfill("--refused", "left.ndjson", "--batch-size", "2")
    assert code == 0
    assert counts(facts) == (10, 3, 0, 7)
    left = [json.loads(line) for line in (tmp_path / "left.ndjson").read_text().splitlines()]
    reasons = sorted(line["reason"] for line in left)
    assert reasons == sorted(
        [
            "content must not be blank",
            "content must not be blank",
            "embedding must have 1536 dimensions, not 2",
            "embedding must not be all zeros",
            "scope is null, and not one of: LOCAL, TEAM, GLOBAL",
            "created_at is null",
            f"orphan: workspace {W(9)} is not in workspaces",
        ]
    )
    assert all("content" not in line for line in left)
    code, facts = backfill("--verify")
    assert code == 0
    assert facts["refused"] == 7


@pytest.mark.parametrize("arguments", [(), ("--dry-run",)])
def test_a_memory_of_too_many_words_is_refused_and_the_batch_goes_on(
    database: str, backfill: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    make_source(database, 3)
    add(database, " ".join(f"w{i:08d}" for i in range(130_000)))
    code, facts = backfill(*arguments)
    assert (code, *counts(facts)) == (0, 4, 3, 0, 1)
    assert list(facts["reasons"]) == ["content must hold fewer different words: at most a megabyte of them"]


@pytest.mark.parametrize("time", ["infinity", "-infinity", "0044-03-15 12:00+00 BC", "20000-01-01"])
def test_a_time_that_no_answer_can_write_is_refused(database: str, backfill: Callable[..., Any], time: str) -> None:
    make_source(database, 2)
    add(database, "out of time", created_at=time)
    code, facts = backfill()
    assert (code, *counts(facts)) == (0, 3, 2, 0, 1)
    assert facts["reasons"] == {"created_at must lie between the years 1 and 9999": 1}
    code, facts = backfill("--verify")
    assert (code, facts["refused"]) == (0, 1)


def test_an_empty_workspace_or_scope_beside_one_that_is_null_counts_each_row_once(
    database: str, backfill: Callable[..., Any], tmp_path: Path
) -> None:
    make_source(database, 5)
    rows(database, "alter table public.agent_memories alter workspace_id type text")
    for workspace in ("", None):
        for scope in ("LOCAL", "", None):
            add(database, "nowhere", scope, workspace_id=workspace)
    code, facts = backfill("--refused", "left.ndjson")
    assert (code, *counts(facts)) == (0, 11, 5, 0, 6)
    left = [json.loads(line) for line in (tmp_path / "left.ndjson").read_text().splitlines()]
    assert len({line["id"] for line in left}) == len(left) == 6
    given = rows(database, "select id::text, workspace_id, scope from public.agent_memories where content = 'nowhere'")
    assert {(line["id"], line["workspace_id"], line["scope"]) for line in left} == set(given)


def test_embeddings_and_times_come_along(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database)
    add(database, "with", "GLOBAL", embedding=str([0.25] * 1536), created_at="2023-04-05 06:07:08.9+00")
    assert backfill()[0] == 0
    same = (
        "select r.embedding::text = a.embedding::text and r.created_at = a.created_at and r.namespace = 'org:' || %s"
        " from memory_plugin.memory_records as r inner join public.agent_memories as a using (id)"
    )
    with connected(database) as connection:
        assert connection.execute(same, [W(1)]).fetchall() == [(True,)]


def test_a_source_elsewhere_is_read_and_left_as_it_is(
    database: str, new_empty_database: Callable[[], str], backfill: Callable[..., Any]
) -> None:
    source = new_empty_database()
    make_source(source, 25, embedding=False)
    code, facts = backfill("--source-url", source, "--dry-run")
    assert (code, *counts(facts)) == (0, 25, 25, 0, 0)
    assert facts["places"] == [{"workspace": W(2), "namespace": f"workspace:{W(2)}", "memories": 25}]
    assert rows(database, STORED) == [(0,)]
    assert rows(database, "select count(*) from memory_plugin.memory_namespaces") == [(0,)]
    code, facts = backfill("--source-url", source, "--batch-size", "10")
    assert (code, *counts(facts)) == (0, 25, 25, 0, 0)
    assert rows(source, "select count(*) from public.agent_memories") == [(25,)]
    assert backfill("--verify", "--source-url", source)[0] == 0
    code, facts = backfill()
    assert code == 21
    assert "--source-url" in facts["error"]


@pytest.mark.servers("any")
def test_a_source_that_is_not_there_is_named_as_the_source(
    server: Server, database: str, backfill: Callable[..., Any]
) -> None:
    away = "postgresql://u:hush@127.0.0.1:1/x"
    for url, status in ((away, 10), (server.url("absent"), 11), ("mysql://x", 21)):
        code, facts = backfill("--source-url", url)
        assert code == status
        assert "--source-url" in facts["error"]
        assert "DATABASE_URL" not in facts["error"]
        assert "--database-url" not in facts["error"]


def test_a_source_of_another_encoding_is_read_as_what_it_says(
    server: Server, database: str, backfill: Callable[..., Any]
) -> None:
    name = database.partition("?")[0].rpartition("/")[2] + "_latin1"
    server.execute(f"create database \"{name}\" template template0 encoding 'LATIN1' locale 'C'")
    try:
        make_source(server.url(name))
        add(server.url(name), "naïve")
        assert backfill("--source-url", server.url(name))[0] == 0
    finally:
        server.execute(f'drop database "{name}" with (force)')
    assert rows(database, "select content from memory_plugin.memory_records") == [("naïve",)]


def test_ids_that_stand_twice_in_a_table_without_a_key_lose_no_row_in_silence(
    database: str, backfill: Callable[..., Any]
) -> None:
    make_source(database, 6)
    rows(database, "alter table public.agent_memories drop constraint agent_memories_pkey, alter id drop not null")
    rows(database, "insert into public.agent_memories select * from public.agent_memories where content = 'memory 4'")
    add(database, "no id", id=None)
    code, facts = backfill("--batch-size", "1")
    assert (code, *counts(facts)) == (0, 8, 6, 0, 2)


def test_a_file_that_cannot_be_written_is_told_before_anything_is(
    database: str, backfill: Callable[..., Any], tmp_path: Path
) -> None:
    make_source(database, 3)
    for file in ("/proc/refused.ndjson", str(tmp_path / "missing" / "refused.ndjson"), str(tmp_path)):
        code, facts = backfill("--refused", file)
        assert code in (2, 21), facts
        assert file in facts["error"]
    assert rows(database, STORED) == [(0,)]


@pytest.mark.servers("any")
def test_a_file_that_is_full_is_told_as_such(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 3)
    add(database, None)
    code, facts = backfill("--refused", "/dev/full")
    assert code == 21
    assert "--refused: cannot write /dev/full: No space left on device" in facts["error"]


def test_an_error_of_the_source_is_told_as_the_sources_without_its_password(
    database: str, new_empty_database: Callable[[], str], backfill: Callable[..., Any]
) -> None:
    source = new_empty_database()
    make_source(source, 3, embedding=False)
    rows(source, "alter table public.agent_memories alter created_at type text using 'open-sesame'")
    code, facts = backfill("--source-url", make_conninfo(source, password="open-sesame"))
    assert code == 1
    assert "reading the source: invalid input syntax for type timestamp" in facts["error"]
    assert "open-sesame" not in facts["error"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("drop table public.agent_memories", "agent_memories"),
        ("alter table public.agent_memories drop column scope", "scope"),
        ("alter table public.agent_memories alter id type text", "uuid"),
        ("alter table public.agent_memories alter embedding type text", "vector"),
    ],
)
def test_a_source_of_another_shape_is_refused(
    database: str, backfill: Callable[..., Any], change: str, word: str
) -> None:
    make_source(database)
    rows(database, change)
    code, facts = backfill()
    assert code == 21
    assert word in facts["error"]


@pytest.mark.parametrize("arguments", [("--sample", "1"), ("--ignore-new",), ("--dry-run", "--verify")])
def test_options_that_do_not_go_together_are_wrong_use(
    backfill: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    assert backfill(*arguments)[0] == 2
