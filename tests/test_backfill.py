"""The backfill beyond its plain course: trees, other databases, kills, rows that cannot come, and its verification."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.installing import connected, rows
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, clean_env, wait_until
from memory_plugin.installer import cli
from memory_plugin.installer.transfer.lineage import Lineage, Route

W = "00000000-0000-4000-8000-00000000000{}".format
STORED = "select count(*) from memory_plugin.memory_records"


def make_source(url: str, memories: int = 0, *, embedding: bool = True) -> None:
    """Make the platform's earlier tables: workspace 1 is the root of 2; `memories` go to workspace 2, LOCAL."""
    with connected(url) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute(
            "create table public.workspaces (id uuid primary key, parent_id uuid);"
            " create table public.agent_memories (id uuid primary key default gen_random_uuid(), workspace_id uuid,"
            " content text, scope text, namespace text, created_at timestamptz default now(), updated_at timestamptz)"
        )
        if embedding:
            connection.execute(
                "do $$ begin execute format('alter table public.agent_memories add column embedding %s.vector',"
                " (select extnamespace::regnamespace from pg_extension where extname = 'vector')); end $$"
            )
        connection.execute("insert into public.workspaces values (%s, null), (%s, %s)", [W(1), W(2), W(1)])
        connection.execute(
            "insert into public.agent_memories (workspace_id, content, scope, created_at)"
            " select %s, 'memory ' || i, 'LOCAL', '2024-01-01'::timestamptz + i * interval '1 second'"
            " from generate_series(1, %s) as i",
            [W(2), memories],
        )


def add(url: str, content: str | None, scope: str | None = "LOCAL", **more: Any) -> None:
    """Add one earlier memory."""
    values = {"workspace_id": W(2), "content": content, "scope": scope, **more}
    with connected(url) as connection:
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        connection.execute(
            f"insert into public.agent_memories ({names}) values ({marks})".encode(), list(values.values())
        )


@pytest.fixture
def backfill(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a caller of the command on `database` that returns its exit code and the facts it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEMORY_PLUGIN_DATABASE_URL", database)

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        code = cli.run(["backfill", "--json", *arguments])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else {"error": printed.err}

    return call


def counts(facts: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return read, written, unchanged, refused."""
    return facts["read"], facts["written"], facts["unchanged"], facts["refused"]


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


def test_what_the_store_has_otherwise_is_refused_and_kept(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 5)
    assert backfill()[0] == 0
    rows(database, "update memory_plugin.memory_records set content = 'newer' where content = 'memory 3'")
    code, facts = backfill()
    assert (code, *counts(facts)) == (0, 5, 0, 4, 1)
    assert rows(database, "select count(*) from memory_plugin.memory_records where content = 'newer'") == [(1,)]


def test_an_expired_memory_under_the_same_id_is_as_if_absent(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 2)
    assert backfill()[0] == 0
    rows(database, "update memory_plugin.memory_records set expires_at = '2020-01-01', content = 'old'")
    code, facts = backfill()
    assert (code, *counts(facts)) == (0, 2, 2, 0, 0)
    live = "select count(*) from memory_plugin.memory_records where expires_at is null and content like 'memory %'"
    assert rows(database, live) == [(2,)]


def test_ids_that_stand_twice_in_a_table_without_a_key_lose_no_row_in_silence(
    database: str, backfill: Callable[..., Any]
) -> None:
    make_source(database, 6)
    rows(database, "alter table public.agent_memories drop constraint agent_memories_pkey, alter id drop not null")
    rows(database, "insert into public.agent_memories select * from public.agent_memories where content = 'memory 4'")
    add(database, "no id", id=None)
    code, facts = backfill("--batch-size", "1")
    assert (code, *counts(facts)) == (0, 8, 6, 0, 2)


def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    server: Server, database: str, backfill: Callable[..., Any]
) -> None:
    make_source(database, 3000)
    command = [PROGRAM, "backfill", "--batch-size", "20"]
    environment = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
    with (
        psycopg.connect(database, autocommit=True) as watcher,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):

        def stored() -> int:
            row = watcher.execute(STORED).fetchone()
            assert row is not None
            return int(row[0])

        wait_until(lambda: stored() >= 40, "the first batches")
        process.kill()
        process.wait(20)
        busy = (
            "select from pg_stat_activity"
            " where application_name = 'memory-plugin backfill' and datname = current_database()"
        )
        wait_until(lambda: watcher.execute(busy.encode()).fetchone() is None, "the end of its session")
        kept = stored()
    assert 40 <= kept < 3000
    assert kept % 20 == 0
    assert backfill("--verify")[0] == 27
    code, facts = backfill()
    assert (code, *counts(facts)) == (0, 3000, 3000 - kept, kept, 0)
    assert rows(database, "select count(*), count(distinct id) from memory_plugin.memory_records") == [(3000, 3000)]
    assert backfill("--verify")[0] == 0


def test_after_begins_behind_an_id(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 10)
    (middle,) = rows(database, "select id::text from public.agent_memories order by id offset 3 limit 1")[0]
    code, facts = backfill("--after", middle)
    assert (code, *counts(facts)) == (0, 6, 6, 0, 0)


@pytest.mark.parametrize(
    ("statement", "missing", "extra"),
    [
        ("delete from memory_plugin.memory_records where content = 'memory 1'", 1, 0),
        ("update memory_plugin.memory_records set content = 'memory 2' where content = 'memory 1'", 1, 1),
        ("insert into memory_plugin.memory_records (namespace, content, kind, source)"
         " select namespace, content, kind, source from memory_plugin.memory_records where content = 'memory 1'", 0, 1),
        ("update memory_plugin.memory_records set expires_at = '2020-01-01' where content = 'memory 1'", 1, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sample", [(), ("--sample", "5")])
def test_verify_finds_what_is_missing_changed_or_doubled(
    database: str, backfill: Callable[..., Any], statement: str, missing: int, extra: int, sample: tuple[str, ...]
) -> None:
    make_source(database, 4)
    assert backfill()[0] == 0
    assert backfill("--verify", *sample)[0] == 0
    rows(database, statement)
    code, facts = backfill("--verify", *sample)
    assert code == 27
    (different,) = facts["different"]
    assert (different["namespace"], different["missing"], different["extra"]) == (f"workspace:{W(2)}", missing, extra)


def test_verify_can_leave_out_what_the_platform_has_added_since(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 2)
    assert backfill()[0] == 0
    rows(database, f"select memory_plugin.commit_memory('workspace:{W(2)}', 'since then')")
    assert backfill("--verify")[0] == 27
    assert backfill("--verify", "--ignore-new")[0] == 0


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
