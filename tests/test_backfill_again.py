"""A backfill that is run again, cut off, overtaken or in want of room loses nothing and doubles nothing."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.backfilling import STORED, W, add, counts, make_source
from fixtures.installing import connected, rows
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, clean_env, wait_until
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.transfer import staging
from memory_plugin.installer.transfer.backfill import RefusedFile


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


def test_an_embedding_that_the_source_has_got_since_comes_and_replaces_none(
    database: str, backfill: Callable[..., Any]
) -> None:
    make_source(database, 4)
    assert backfill()[0] == 0
    source, stored = str([0.25] * 1536), str([0.5] * 1536)
    with connected(database) as connection:
        connection.execute("update public.agent_memories set embedding = %s where content <> 'memory 4'", [source])
        connection.execute("set search_path = memory_plugin, public")
        connection.execute("update memory_records set embedding = %s where content = 'memory 1'", [stored])
        connection.execute("update memory_records set content = 'newer' where content = 'memory 2'")
    code, facts = backfill("--dry-run")
    assert (code, facts["updated"], *counts(facts)) == (0, 1, 4, 0, 2, 1)
    code, facts = backfill()
    assert (code, facts["updated"], *counts(facts)) == (0, 1, 4, 0, 2, 1)
    assert rows(
        database, "select content, left(embedding::text, 5) from memory_plugin.memory_records order by content"
    ) == [("memory 1", "[0.5,"), ("memory 3", "[0.25"), ("memory 4", None), ("newer", None)]
    assert rows(database, "select count(*) from memory_plugin.memory_vectors") == [(2,)]
    code, facts = backfill()
    assert (code, facts["updated"], *counts(facts)) == (0, 0, 4, 0, 3, 1)


def test_an_embedding_that_another_session_is_writing_is_not_overwritten(
    database: str, backfill: Callable[..., Any]
) -> None:
    make_source(database, 2)
    assert backfill()[0] == 0
    theirs, ours = str([0.5] * 1536), str([0.25] * 1536)
    rows(database, f"update public.agent_memories set embedding = '{ours}'")
    waiting = (
        "select 1 from pg_stat_activity where application_name = 'memory-plugin backfill' and wait_event_type = 'Lock'"
        " and datname = current_database()"
    )
    with psycopg.connect(database) as other, ThreadPoolExecutor(1) as pool:
        other.execute("set search_path = memory_plugin, public")
        other.execute("update memory_records set embedding = %s where content = 'memory 1'", [theirs])
        running = pool.submit(backfill)
        wait_until(lambda: bool(rows(database, waiting)), "the backfill to wait for the row")
        other.commit()
        code, facts = running.result(60)
    assert (code, facts["updated"], *counts(facts)) == (0, 1, 2, 0, 1, 0)
    assert rows(
        database, "select content, left(embedding::text, 5) from memory_plugin.memory_records order by content"
    ) == [("memory 1", "[0.5,"), ("memory 2", "[0.25")]


def test_a_row_that_another_session_commits_meanwhile_is_counted_as_what_became_of_it(
    database: str, backfill: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(database, 4)
    rows(database, f"update public.agent_memories set embedding = '{[0.25] * 1536}' where content <> 'memory 4'")
    ids = dict(rows(database, "select content, id from public.agent_memories"))
    write = staging.write

    def overtaken(connection: psycopg.Connection[Any]) -> None:
        """Commit three of the rows after they were looked for and before they are written."""
        with connected(database) as other:
            for content, committed in (("memory 1", "memory 1"), ("memory 2", "other"), ("memory 4", "memory 4")):
                other.execute(
                    "select memory_plugin.commit_memory(%s, %s, id => %s)",
                    [f"workspace:{W(2)}", committed, ids[content]],
                )
        write(connection)

    monkeypatch.setattr(staging, "write", overtaken)
    code, facts = backfill()
    assert (code, facts["updated"], *counts(facts)) == (0, 1, 4, 1, 1, 1)
    assert rows(
        database, "select content, embedding is not null from memory_plugin.memory_records order by content"
    ) == [("memory 1", True), ("memory 3", True), ("memory 4", False), ("other", False)]


def out_of_room(*_: object) -> None:
    """Refuse to write a line."""
    raise BadSettingError("no space left on device")


def test_a_refused_row_is_in_the_file_before_a_later_run_may_begin_behind_it(
    database: str, backfill: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_source(database, 6)
    rows(database, "update public.agent_memories set content = '' where id in (select id from public.agent_memories"
         " order by id limit 1 offset 3)")  # fmt: skip
    with monkeypatch.context() as full:
        full.setattr(RefusedFile, "note", out_of_room)
        code, facts = backfill("--batch-size", "2")
    assert code == 21
    (after,) = re.findall("--after ([0-9a-f-]+)", facts["error"])
    assert rows(database, STORED) == [(2,)]
    code, facts = backfill("--batch-size", "2", "--after", after)
    assert (code, *counts(facts)) == (0, 4, 3, 0, 1)
    assert len((tmp_path / "backfill-refused.ndjson").read_text().splitlines()) == 1


def test_no_file_of_refused_rows_is_left_when_none_was_refused(
    database: str, backfill: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "backfill-refused.ndjson"
    make_source(database, 2)
    add(database, "")
    assert backfill()[1]["refused_file"] == file.name
    assert backfill("--dry-run")[1]["refused_file"] is None
    assert len(file.read_text().splitlines()) == 1
    rows(database, "delete from public.agent_memories where content = ''")
    assert backfill()[1]["refused_file"] is None
    assert not file.exists()
