"""The database stops, hangs, restarts or is full while the sidecar serves: quick answers, and it serves again alone."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from fixtures.cluster import cluster
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import Sidecar, wait_until
from http_sidecar import CLIENT_SECONDS, STAND_IN, Answer, ask, ask_many, health, serving, stopped, worker_pid

COMMIT = "/v1/namespaces/workspace:a/memories"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Return a server of this module's own, which its tests stop."""
    with cluster("faults", embedded_bin_dir(18)) as server:
        server.execute(STAND_IN)
        yield server


@pytest.fixture
def sidecar(own_server: Server, tmp_path: Path) -> Iterator[Sidecar]:
    """Return a sidecar on that server, which is up."""
    with serving(own_server.url(), tmp_path / "sidecar.log") as running:
        yield running


def search(sidecar: Sidecar, **body: object) -> Answer:
    return ask(sidecar, "POST", "/v1/search", body)


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json["code"] == "unavailable"
    assert answer.seconds < CLIENT_SECONDS


def server_pids(server: Server) -> list[int]:
    """Return the postmaster and all its processes."""
    assert server.own is not None
    postmaster = int((server.own.data_dir / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


@contextmanager
def down(server: Server, mode: str) -> Iterator[None]:
    server.stop(mode)
    try:
        yield
    finally:
        server.start()


def recovers(sidecar: Sidecar, within: float = 3) -> None:
    start = time.monotonic()
    wait_until(lambda: search(sidecar).status == 200, "service after the database is back", timeout=within)
    wait_until(lambda: health(sidecar) == 200, "health after the database is back", timeout=within)
    assert time.monotonic() - start < within


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stopped_database_is_a_quick_503_and_service_resumes_when_it_is_back(
    own_server: Server, sidecar: Sidecar, mode: str
) -> None:
    assert search(sidecar).status == 200
    with down(own_server, mode):
        for _ in range(5):
            assert_unavailable(search(sidecar))
            assert_unavailable(ask(sidecar, "POST", COMMIT, {}))
        degraded = ask(sidecar, "GET", "/v1/health")
        assert degraded.status == 503
        assert degraded.json == {"status": "degraded", "version": "1.0.0", "capabilities": []}
        assert degraded.headers["retry-after"] == "1"
        for answer in ask_many(64, lambda _: search(sidecar)):
            assert_unavailable(answer)
    recovers(sidecar)


def test_a_sidecar_starts_without_its_database_and_finds_it_later(own_server: Server, tmp_path: Path) -> None:
    with down(own_server, "fast"):
        context = serving(own_server.url(), tmp_path / "sidecar.log", status=503)
        sidecar = context.__enter__()
        try:
            assert_unavailable(search(sidecar))
        except BaseException:
            context.__exit__(None, None, None)
            raise
    try:
        recovers(sidecar)
    finally:
        context.__exit__(None, None, None)


def test_a_search_after_a_restart_does_not_notice_its_dead_connection(own_server: Server, sidecar: Sidecar) -> None:
    before = {answer.json["pid"] for answer in ask_many(8, lambda _: search(sidecar, sleep=0.2))}
    assert len(before) > 1
    own_server.restart()
    wait_until(lambda: health(sidecar) == 200, "a first connection")
    for answer in ask_many(16, lambda _: search(sidecar)):
        assert answer.status == 200
        assert answer.json["pid"] not in before


def test_a_write_on_a_connection_that_died_idle_is_not_refused(own_server: Server, sidecar: Sidecar) -> None:
    for answer in ask_many(8, lambda _: search(sidecar, sleep=0.2)):
        assert answer.status == 200
    with own_server.connect() as conn:
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'memory-plugin'")
        wait_until(
            lambda: (
                not conn.execute(
                    "select from pg_stat_activity where application_name = 'memory-plugin' and query like '%v1_search%'"
                ).fetchall()
            ),
            "the sidecar's backends to end",
        )
        before = _committed(conn)
        for _ in range(8):
            assert ask(sidecar, "POST", COMMIT, {}).status == 201
        assert _committed(conn) == before + 8


def test_a_search_whose_connection_is_cut_is_run_again(own_server: Server, sidecar: Sidecar) -> None:
    with own_server.connect() as conn:
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(search(sidecar, sleep=0.5)))
        asking.start()
        cut = _terminate(conn, "%v1_search%")
        asking.join(10)
    assert answers[0].status == 200
    assert answers[0].json["pid"] not in cut
    assert answers[0].seconds < CLIENT_SECONDS


def test_a_write_whose_connection_is_cut_is_not_repeated(own_server: Server, sidecar: Sidecar) -> None:
    with own_server.connect() as conn:
        before = _place(conn)
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(ask(sidecar, "POST", COMMIT, {"sleep": 0.5})))
        asking.start()
        _terminate(conn, "%v1_commit_memory%")
        asking.join(10)
        assert_unavailable(answers[0])
        assert _place(conn) == before + 1


def test_64_clients_of_a_hung_server_are_all_answered_in_time(own_server: Server, sidecar: Sidecar) -> None:
    assert search(sidecar).status == 200
    with stopped(server_pids(own_server)):
        for _ in range(2):
            for answer in ask_many(64, lambda _: search(sidecar)):
                assert_unavailable(answer)
        assert ask(sidecar, "GET", "/v1/health").status == 503
        assert "reason=breaker" in sidecar.log()
    recovers(sidecar)


def test_few_clients_of_a_hung_server_are_enough_to_turn_others_away(own_server: Server, sidecar: Sidecar) -> None:
    assert search(sidecar).status == 200
    with stopped(server_pids(own_server)):
        for answer in ask_many(3, lambda _: search(sidecar)):
            assert_unavailable(answer)
        wait_until(lambda: "memory_plugin_breaker_open 1.0" in sidecar.client.get("/metrics").text, "the breaker", 5)
    recovers(sidecar)


def test_a_write_too_large_for_the_socket_does_not_hang_on_a_hung_server(own_server: Server, sidecar: Sidecar) -> None:
    large = {"content": "x" * 1_000_000}
    assert ask(sidecar, "POST", COMMIT, large).status == 201
    with stopped(server_pids(own_server)):
        assert_unavailable(ask(sidecar, "POST", COMMIT, large))
    recovers(sidecar)


def test_a_locked_table_is_a_503_in_time_and_does_not_stop_what_needs_no_lock(
    own_server: Server, sidecar: Sidecar
) -> None:
    with own_server.connect() as conn, conn.transaction():
        conn.execute("lock table memory_plugin.committed")
        for answer in ask_many(64, lambda _: search(sidecar, lock=True)):
            assert_unavailable(answer)
        wait_until(lambda: search(sidecar).status == 200, "an unhindered search", timeout=3)
    recovers(sidecar)


def test_a_statement_past_its_deadline_is_cancelled_on_the_server(own_server: Server, sidecar: Sidecar) -> None:
    assert_unavailable(search(sidecar, sleep=60))
    # Nor is one such statement a reason to turn others away.
    assert search(sidecar).status == 200
    with own_server.connect() as conn:
        wait_until(
            lambda: (
                not conn.execute(
                    "select from pg_stat_activity where state = 'active' and query like '%v1_search%' "
                    "and pid <> pg_backend_pid()"
                ).fetchall()
            ),
            "the statement's end",
            timeout=5,
        )


def test_one_slow_search_does_not_stop_the_others(sidecar: Sidecar) -> None:
    slow: list[Answer] = []
    asking = threading.Thread(target=lambda: slow.append(search(sidecar, sleep=60)))
    asking.start()
    while asking.is_alive():
        assert search(sidecar).status == 200
    asking.join()
    assert_unavailable(slow[0])
    assert search(sidecar).status == 200


@pytest.mark.parametrize("count", [3, 12], ids=["some", "more than connections"])
def test_slow_searches_alone_do_not_turn_others_away(own_server: Server, tmp_path: Path, count: int) -> None:
    with serving(own_server.url(), tmp_path / "sidecar.log", MEMORY_PLUGIN_POOL_SIZE="8") as sidecar:
        for _ in range(2):
            for answer in ask_many(count, lambda _: search(sidecar, sleep=60)):
                assert_unavailable(answer)
        assert ask(sidecar, "GET", "/v1/health").status == 200
        assert ask(sidecar, "POST", COMMIT, {}).status == 201
        assert "reason=statement_deadline" in sidecar.log()
        assert "reason=breaker" not in sidecar.log()


def test_an_exhausted_pool_is_a_503_in_time_and_bounds_the_connections(own_server: Server, tmp_path: Path) -> None:
    with serving(own_server.url(), tmp_path / "sidecar.log", MEMORY_PLUGIN_POOL_SIZE="2") as sidecar:
        counts: list[int] = []
        with own_server.connect() as conn:
            asking = threading.Thread(target=lambda: answers.extend(ask_many(12, lambda _: search(sidecar, sleep=1.2))))
            answers: list[Answer] = []
            asking.start()
            while asking.is_alive():
                row = conn.execute(
                    "select count(*) from pg_stat_activity where application_name = 'memory-plugin'"
                ).fetchone()
                assert row is not None
                counts.append(row[0])
            asking.join()
        assert max(counts) <= 2
        assert sorted({answer.status for answer in answers}) == [200, 503]
        assert all(answer.seconds < CLIENT_SECONDS for answer in answers)
        assert search(sidecar).status == 200


def test_a_burst_on_a_healthy_database_is_served_and_health_stays_ok(sidecar: Sidecar) -> None:
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.append(health(sidecar))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        answers = ask_many(400, lambda _: search(sidecar))
    finally:
        over.set()
        looking.join()
    assert {answer.status for answer in answers} == {200}
    assert set(seen) == {200}


def test_waiting_for_a_connection_shortens_the_statement(own_server: Server, tmp_path: Path) -> None:
    with serving(own_server.url(), tmp_path / "sidecar.log", MEMORY_PLUGIN_POOL_SIZE="1") as sidecar:
        first: list[Answer] = []
        holding = threading.Thread(target=lambda: first.append(search(sidecar, sleep=0.9)))
        with own_server.connect() as conn:
            holding.start()
            wait_until(
                lambda: conn.execute("select from pg_stat_activity where wait_event = 'PgSleep'").fetchall(),
                "the connection to be taken",
            )
        assert_unavailable(search(sidecar, sleep=60))
        holding.join()
        assert first[0].status == 200


def test_a_server_without_a_free_connection_is_a_503_until_there_is_one(own_server: Server, tmp_path: Path) -> None:
    url = own_server.url()
    own_server.execute("create role few login connection limit 1")
    own_server.execute("grant usage on schema memory_plugin to few")
    try:
        few = own_server.url(user="few", password="x")
        with (
            psycopg.connect(few) as taken,
            serving(few, tmp_path / "sidecar.log", status=503) as sidecar,
        ):
            assert_unavailable(search(sidecar))
            taken.close()
            recovers(sidecar)
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("revoke all on schema memory_plugin from few")
            conn.execute("drop role few")


def test_a_database_that_does_not_answer_the_phone_is_a_quick_503(tmp_path: Path) -> None:
    # A listener that accepts and says nothing: a connection attempt hangs instead of failing.
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen(64)
        url = f"postgresql://nobody@127.0.0.1:{mute.getsockname()[1]}/none"
        with serving(url, tmp_path / "sidecar.log", status=503) as sidecar:
            for answer in ask_many(64, lambda _: search(sidecar)):
                assert_unavailable(answer)


@pytest.mark.parametrize("kind", ["full", "closed pipe"])
def test_a_log_that_takes_nothing_stops_nobody(own_server: Server, tmp_path: Path, kind: str) -> None:
    if kind == "full":
        reading, writing = None, os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
    try:
        with serving(own_server.url(), tmp_path / "stdout", stderr=writing) as sidecar:
            if reading is not None:
                os.close(reading)
            with down(own_server, "fast"):
                for _ in range(3):
                    assert_unavailable(search(sidecar))
                assert ask(sidecar, "GET", "/v1/health").json["status"] == "degraded"
            recovers(sidecar)
    finally:
        os.close(writing)


def test_a_worker_that_is_killed_again_and_again_is_replaced_each_time(sidecar: Sidecar) -> None:
    for _ in range(5):
        victim = worker_pid(sidecar)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: _serves_again(sidecar, victim), "another worker", timeout=5)  # noqa: B023
    assert search(sidecar).status == 200
    assert sidecar.log().count("worker_died") == 5
    assert sidecar.stop() == 0


def test_a_sidecar_told_to_end_while_its_worker_is_dead_ends_well(sidecar: Sidecar) -> None:
    first = worker_pid(sidecar)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: _serves_again(sidecar, first), "another worker")
    os.kill(worker_pid(sidecar), signal.SIGKILL)
    # Its successor comes after a pause.
    wait_until(lambda: sidecar.log().count("worker_died") == 2, "the death to be noticed")
    assert sidecar.stop(5) == 0


def test_a_database_without_the_store_is_degraded(own_server: Server, tmp_path: Path) -> None:
    own_server.execute("create database bare template template0")
    with serving(own_server.url("bare"), tmp_path / "sidecar.log", status=503) as sidecar:
        assert ask(sidecar, "GET", "/v1/health").json["status"] == "degraded"
        answer = search(sidecar)
        assert_unavailable(answer)
        assert "not installed" in answer.json["message"]


def _serves_again(sidecar: Sidecar, victim: int) -> bool:
    return health(sidecar) == 200 and worker_pid(sidecar) != victim


def _terminate(conn: psycopg.Connection, pattern: str) -> set[int]:
    """End the backends that run such a statement, once there are some, and return their process ids."""
    found: set[int] = set()

    def cut() -> bool:
        rows = conn.execute(
            "select pid, pg_terminate_backend(pid) from pg_stat_activity "
            "where state = 'active' and wait_event = 'PgSleep' and query like %s and pid <> pg_backend_pid()",
            [pattern],
        ).fetchall()
        found.update(pid for pid, _ in rows)
        return bool(found)

    wait_until(cut, "a running statement to cut")
    return found


def _committed(conn: psycopg.Connection) -> int:
    row = conn.execute("select count(*) from memory_plugin.committed").fetchone()
    assert row is not None
    return int(row[0])


def _place(conn: psycopg.Connection) -> int:
    """Return how often a commit was begun: a sequence does not roll back."""
    row = conn.execute("select last_value * is_called::integer from memory_plugin.committed_place_seq").fetchone()
    assert row is not None
    return int(row[0])
