"""Upkeep: what has expired goes by itself, one of many sidecars at a time, and no request notices."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from fixtures.cluster import free_port
from fixtures.server import Server
from fixtures.sidecars import wait_until
from http_sidecar import ask, health, serving, stopped
from memory_plugin.thin_api import maintenance
from memory_plugin.thin_api.maintenance import BATCH, Maintenance

LOCK = "select pg_advisory_xact_lock(hashtextextended('memory_plugin.maintain', 0))"
HANGS = """
create or replace function memory_plugin.maintain(max_rows integer default 1000) returns bigint
language sql as 'select 0::bigint from pg_sleep(600)'
"""
FILL = """
    insert into memory_plugin.memory_records (id, namespace, content, kind, source, expires_at)
    select gen_random_uuid(), %s, 'gone ' || i, 'fact', 'agent', now() - interval '1 minute'
    from generate_series(1, %s) as i
"""


def fill(conn: psycopg.Connection[Any], namespace: str, rows: int) -> None:
    """Commit one memory that stays, and so many that have expired."""
    conn.execute("select memory_plugin.commit_memory(%s, 'stays')", [namespace])
    conn.execute(FILL, [namespace, rows])


def count(conn: psycopg.Connection[Any]) -> int:
    row = conn.execute("select count(*) from memory_plugin.memory_records").fetchone()
    assert row is not None
    return int(row[0])


def maintain(conn: psycopg.Connection[Any], rows: int) -> int | None:
    found = conn.execute("select memory_plugin.maintain(%s)", [rows]).fetchone()
    assert found is not None
    return found[0]  # type: ignore[no-any-return]


def swept(log: str) -> list[int]:
    return [int(rows) for rows in re.findall(r" swept rows=(\d+) ", log)]


def test_a_batch_takes_at_most_so_many_rows_and_says_how_many(conn: psycopg.Connection[Any], namespace: str) -> None:
    fill(conn, namespace, 25)
    assert [maintain(conn, 10) for _ in range(4)] == [10, 10, 5, 0]
    assert count(conn) == 1


def test_while_one_session_is_at_it_another_gets_null_at_once(database: str, conn: psycopg.Connection[Any]) -> None:
    with psycopg.connect(database) as other:
        other.execute(LOCK)
        assert maintain(conn, 10) is None
        other.rollback()
        assert maintain(conn, 10) == 0


@pytest.mark.parametrize("rows", [0, -1, None, 1_000_001])
def test_a_batch_of_no_size_is_refused(conn: psycopg.Connection[Any], rows: int | None) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute("select memory_plugin.maintain(%s)", [rows])
    assert caught.value.sqlstate == "MP001"


def test_a_sidecar_sweeps_batch_by_batch_and_logs_counts_alone(
    database: str, conn: psycopg.Connection[Any], namespace: str, tmp_path: Path
) -> None:
    fill(conn, namespace, 2 * BATCH + 7)
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="1") as sidecar:
        wait_until(lambda: count(conn) == 1, "the expired rows to go")
        wait_until(lambda: len(swept(sidecar.log())) == 3, "a line for each batch")
        assert swept(sidecar.log()) == [BATCH, BATCH, 7]
        assert namespace not in sidecar.log()
        assert "gone" not in sidecar.log()
        assert f"memory_plugin_swept_rows_total {2 * BATCH + 7}.0" in ask(sidecar, "GET", "/metrics").body.decode()


@pytest.mark.servers("any")
def test_of_many_sidecars_each_row_is_swept_by_one(
    database: str, conn: psycopg.Connection[Any], namespace: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        sidecars = [
            stack.enter_context(serving(database, tmp_path / f"log{number}", MEMORY_PLUGIN_SWEEP_SECONDS="1"))
            for number in range(4)
        ]
        fill(conn, namespace, 3 * BATCH)
        wait_until(lambda: count(conn) == 1, "the expired rows to go")
        wait_until(lambda: sum(sum(swept(sidecar.log())) for sidecar in sidecars) == 3 * BATCH, "the lines")


@pytest.mark.servers("any")
def test_with_the_setting_0_nothing_is_swept_and_the_role_is_looked_at_all_the_same(
    database: str, conn: psycopg.Connection[Any], namespace: str, tmp_path: Path
) -> None:
    fill(conn, namespace, 5)
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="0") as sidecar:
        wait_until(lambda: " superuser " in sidecar.log(), "the look at the role")
        assert 'maintenance_rounds_total{outcome="done"} 0.0' in ask(sidecar, "GET", "/metrics").body.decode()
    assert count(conn) == 6


@pytest.fixture
def upkeep() -> Callable[[str], Maintenance]:
    """Return a maker of clocks that only tick when told, for the outcomes of single rounds."""
    return lambda conninfo: Maintenance(conninfo, 0)


def test_no_error_ends_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def connect(*_: object) -> None:
        tried.append(threading.current_thread().name)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(maintenance, "connect", connect)
    monkeypatch.setattr(maintenance, "FIRST_RETRY", 0.01)
    clock = Maintenance("", 0)
    clock.start()
    try:
        wait_until(lambda: tried.count("maintenance") >= 3, "the clock to try again")
        assert clock.round() == "RuntimeError"
    finally:
        clock.close()


def test_a_round_says_what_kept_it_and_the_next_one_mends_itself(
    database: str, empty_database: str, upkeep: Callable[[str], Maintenance]
) -> None:
    nobody = upkeep(f"host=127.0.0.1 port={free_port()} user=x dbname=x")
    assert nobody.round() == "unreachable"
    absent = upkeep(empty_database)
    assert absent.round() == "3F000"
    there = upkeep(database)
    with psycopg.connect(database) as other:
        other.execute(LOCK)
        assert there.round() == ""
        assert there.rounds == {"done": 0, "elsewhere": 1, "failed": 0}
    assert there.round() == ""
    assert there.rounds == {"done": 1, "elsewhere": 1, "failed": 0}


@pytest.mark.servers("any")
def test_a_batch_that_hangs_is_given_up_and_cancelled(
    database: str, upkeep: Callable[[str], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.maintenance.BATCH_SECONDS", 0.5)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(HANGS)
        hung = upkeep(make_conninfo(database, application_name="hung upkeep"))
        assert hung.round() == "deadline"
        assert hung.rounds["failed"] == 1
        running = "select from pg_stat_activity where application_name = 'hung upkeep' and state = 'active'"
        wait_until(lambda: not conn.execute(running).fetchall(), "the statement to be cancelled")


@pytest.mark.servers("embedded18")
def test_a_batch_that_heeds_no_cancel_is_not_followed_by_another_beside_it(
    database: str, upkeep: Callable[[str], Maintenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.maintenance.BATCH_SECONDS", 0.5)
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(HANGS)
        hung = upkeep(make_conninfo(database, application_name="unheeding upkeep"))
        running = "select pid from pg_stat_activity where application_name = 'unheeding upkeep' and state = 'active'"
        round_ = threading.Thread(target=hung.round, daemon=True)
        round_.start()
        wait_until(lambda: conn.execute(running).fetchall(), "the batch to begin")
        with stopped([pid for (pid,) in conn.execute(running).fetchall()]):
            round_.join(3)
            assert round_.is_alive()
        round_.join(20)
        assert hung.rounds["failed"] == 1


@pytest.mark.servers("any")
def test_a_lost_connection_costs_one_round(database: str, upkeep: Callable[[str], Maintenance]) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        row = conn.execute("select pg_get_functiondef('memory_plugin.maintain'::regproc)").fetchone()
        assert row is not None
        conn.execute(
            "create or replace function memory_plugin.maintain(max_rows integer default 1000) returns bigint "
            "language sql as 'select 0::bigint from pg_terminate_backend(pg_backend_pid())'"
        )
        clock = upkeep(database)
        assert clock.round() in ("connection_lost", "57P01")
        conn.execute(row[0])
        assert clock.round() == ""


@pytest.mark.servers("any")
def test_a_hung_server_and_its_recovery_are_a_line_each_and_requests_go_on(
    private_server: Server, tmp_path: Path
) -> None:
    from memory_plugin.installer import api, settings

    url = private_server.url("postgres")
    api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": url}))
    with serving(url, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="1") as sidecar:
        assert private_server.own is not None
        postmaster = int((private_server.own.data_dir / "postmaster.pid").read_text().split()[0])
        with stopped([postmaster]):
            # The listener still takes connections in, and nobody says a word on them.
            wait_until(lambda: "maintenance_failed reason=unreachable" in sidecar.log(), "the line", 30)
            assert health(sidecar) == 200
        wait_until(lambda: "maintenance_resumed" in sidecar.log(), "the recovery", 30)
        assert sidecar.log().count("maintenance_failed") == 1


LARGE = """
    insert into memory_plugin.memory_records (id, namespace, content, kind, source)
    select gen_random_uuid(), %s, 'old ' || i, 'fact', 'agent' from generate_series(1, %s) as i
"""


@pytest.mark.servers("any")
@pytest.mark.parametrize("every", ["3600", "0"])
def test_the_name_of_a_large_namespace_is_free_again_soon_after_it_was_deleted(
    database: str, conn: psycopg.Connection[Any], namespace: str, tmp_path: Path, every: str
) -> None:
    conn.execute("select memory_plugin.commit_memory(%s, 'old')", [namespace])
    conn.execute(LARGE, [namespace, 30_000])
    path = f"/v1/namespaces/{namespace}"
    memory = {"content": "new", "kind": "fact", "source": "user"}
    # The clock of a sidecar that nobody wakes comes far too late.
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS=every) as sidecar:
        assert ask(sidecar, "DELETE", path).status == 204
        assert ask(sidecar, "POST", "/v1/search", {"namespaces": [namespace]}).json["memories"] == []
        for answer in (ask(sidecar, "POST", f"{path}/memories", memory), ask(sidecar, "PUT", path, {"kind": "team"})):
            assert answer.seconds < 1
            if answer.status == 503:
                assert "still being removed" in answer.json["message"]
        wait_until(lambda: ask(sidecar, "PUT", path, {"kind": "team"}).status == 200, "the name to be free", timeout=60)
        assert ask(sidecar, "POST", f"{path}/memories", memory).status == 201
        found = ask(sidecar, "POST", "/v1/search", {"namespaces": [namespace]}).json["memories"]
        assert {memory["content"] for memory in found} == {"new"}


def test_a_deleted_namespace_that_is_large_is_swept_without_waiting_for_the_clock(
    database: str, conn: psycopg.Connection[Any], namespace: str, tmp_path: Path
) -> None:
    conn.execute("select memory_plugin.commit_memory(%s, 'old')", [namespace])
    conn.execute(LARGE, [namespace, 10_500])
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="3600") as sidecar:
        assert ask(sidecar, "DELETE", f"/v1/namespaces/{namespace}").status == 204
        wait_until(lambda: count(conn) == 0, "the rows to go", timeout=60)


def test_a_name_whose_former_memories_are_a_great_many_is_refused_with_what_to_do(
    conn: psycopg.Connection[Any], namespace: str
) -> None:
    conn.execute("select memory_plugin.commit_memory(%s, 'old')", [namespace])
    conn.execute(LARGE, [namespace, 10_000])
    conn.execute("select memory_plugin.delete_namespace(%s)", [namespace])
    for call in ("commit_memory(%s, 'new')", "upsert_namespace(%s, 'team')"):
        with pytest.raises(psycopg.Error, match="still being removed") as caught:
            conn.execute(f"select memory_plugin.{call}".encode(), [namespace])
        assert caught.value.sqlstate == "MP009"
        assert "memory_plugin.sweep(" in (caught.value.diag.message_hint or "")
    # What is left now goes with the new start.
    assert maintain(conn, 1) == 1
    conn.execute("select memory_plugin.commit_memory(%s, 'new')", [namespace])
    assert count(conn) == 1


def test_embeddings_go_as_fast_with_a_plan_from_when_there_were_none(
    conn: psycopg.Connection[Any], namespace: str
) -> None:
    # The trigger's plan is made for an empty copy, and kept.
    commit = "select memory_plugin.commit_memory(%s, 'one', embedding => array_fill(1, array[1536])::real[]::vector)"
    conn.execute("set search_path = memory_plugin, public")
    conn.execute("set plan_cache_mode = force_generic_plan")
    for _ in range(2):
        conn.execute(commit, [namespace])
        conn.execute("select memory_plugin.delete_namespace(%s)", [namespace])
    for _ in range(20):
        conn.execute(commit, [namespace])
    with conn.transaction():
        conn.execute("select memory_plugin.delete_namespace(%s)", [namespace])
        row = conn.execute("select seq_scan from pg_stat_xact_user_tables where relname = 'memory_vectors'").fetchone()
    assert row == (0,)
