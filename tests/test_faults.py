"""Faults beneath clients that write: nothing acknowledged is lost or doubled, answers stay quick, service comes back.

`make torture` runs these faults longer; what is shortened here is named where it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from fixtures.cluster import DURABLE, cluster, free_port
from fixtures.installing import install
from fixtures.pgbouncer import program as pgbouncer
from fixtures.pgbouncer import running_pooler
from fixtures.server import Server, ServerError, embedded_bin_dir
from fixtures.sidecars import PROGRAM, clean_env, wait_until
from http_sidecar import address, ask, serving, worker_pid
from ledger import audit, survives, wait_for_writes, writing

# 10 s in a long run; here as long as makes every client meet it.
LOCK_SECONDS = float(os.environ.get("TORTURE_LOCK_SECONDS", "3"))
RESTARTS = int(os.environ.get("TORTURE_RESTARTS", "3"))
FEW = {"max_connections": "24", "superuser_reserved_connections": "3"}


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Return a server of this module's own that keeps what it acknowledges, with a store in it."""
    with cluster("faults", embedded_bin_dir(18), {**DURABLE, **FEW}) as server:
        install(server.url())
        yield server


@pytest.fixture
def store(own_server: Server) -> str:
    """Return the URL of the store, emptied."""
    # A test that failed may have left the server amid its recovery.
    wait_until(lambda: _emptied(own_server), "the server")
    return own_server.url()


def _emptied(server: Server) -> bool:
    try:
        server.execute("delete from memory_plugin.memory_records")
    except psycopg.OperationalError:
        return False
    return True


def postmaster(server: Server) -> int:
    assert server.own is not None
    return int((server.own.data_dir / "postmaster.pid").read_text().split()[0])


def kill_a_backend(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn:
        row = conn.execute(
            "select pid from pg_stat_activity where application_name = 'memory-plugin' limit 1"
        ).fetchone()
    assert row is not None
    os.kill(row[0], signal.SIGKILL)
    # The server ends every other backend and recovers by itself; the cause has ended when it takes connections.
    wait_until(lambda: not Path(f"/proc/{row[0]}").exists(), "the backend's end")
    wait_until(lambda: _left(server) >= 0, "the server's own recovery")


def kill_the_server(server: Server) -> None:
    main = postmaster(server)
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    for pid in (main, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    # A child just forked ends when it misses its parent; until then its memory keeps another server from starting.
    wait_until(lambda: _starts(server), "the server to start")


def _starts(server: Server) -> bool:
    try:
        server.start()
    except ServerError:
        return False
    return True


def restart_again_and_again(server: Server) -> None:
    for turn in range(RESTARTS):
        server.stop("immediate" if turn % 2 else "fast")
        server.start()


def lock_the_memories(server: Server) -> None:
    lock(server, "memory_plugin.memory_records")


def lock_the_namespaces(server: Server) -> None:
    lock(server, "memory_plugin.memory_namespaces")


def lock(server: Server, table: str) -> None:
    with psycopg.connect(server.url()) as conn:
        conn.execute(f"lock table {table} in access exclusive mode".encode())
        # How long the fault lasts, not a wait for an effect.
        time.sleep(LOCK_SECONDS)


def take_every_connection(server: Server) -> None:
    with ExitStack() as stack:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'memory-plugin'"
            )
            for _ in range(40):
                try:
                    stack.enter_context(psycopg.connect(server.url(), connect_timeout=5))
                except psycopg.OperationalError:
                    break
            else:
                pytest.fail("the server had no limit")
        # How long the fault lasts, not a wait for an effect.
        time.sleep(1)


def kill_the_sweep(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn:
        # So slow that the sidecar's own session is met in the middle of a batch.
        conn.execute(
            "create or replace function public.slowly() returns trigger language plpgsql as "
            "$$begin if old.namespace = 'team:old' then perform pg_sleep(0.002); end if; return old; end$$"
        )
        conn.execute("create trigger slowly before delete on memory_plugin.memory_records for each row "
                     "execute function public.slowly()")  # fmt: skip
        conn.execute("select memory_plugin.commit_memory('team:old', i::text) from generate_series(1, 2000) as i")
        conn.execute("update memory_plugin.memory_records set expires_at = '2020-01-01' where namespace = 'team:old'")
        sweeping = "select pid from pg_stat_activity where query like %s and wait_event = 'PgSleep'"
        wait_until(lambda: conn.execute(sweeping, ["%maintain(%"]).fetchone(), "the sidecar's sweep")
        row = conn.execute(sweeping, ["%maintain(%"]).fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGKILL)
    wait_until(lambda: _as_quick_as_ever(server), "the server's own recovery")
    wait_until(lambda: _left(server) == 0, "the sidecar's own sweep to finish what was left")


def _as_quick_as_ever(server: Server) -> bool:
    try:
        server.execute("drop trigger slowly on memory_plugin.memory_records")
    except psycopg.OperationalError:
        return False
    return True


def _left(server: Server) -> int:
    try:
        with psycopg.connect(server.url(), connect_timeout=5) as conn:
            row = conn.execute(
                "select count(*) from memory_plugin.memory_records where namespace = 'team:old'"
            ).fetchone()
    except psycopg.OperationalError:
        return -1
    assert row is not None
    return int(row[0])


FAULTS: tuple[Callable[[Server], None], ...] = (
    kill_a_backend,
    kill_the_server,
    restart_again_and_again,
    lock_the_memories,
    lock_the_namespaces,
    take_every_connection,
    kill_the_sweep,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_database_loses_no_acknowledged_write(
    own_server: Server, store: str, tmp_path: Path, fault: Callable[[Server], None]
) -> None:
    settings = {"MEMORY_PLUGIN_SWEEP_SECONDS": "1"} if fault is kill_the_sweep else {}
    with serving(store, tmp_path / "sidecar.log", **settings) as sidecar:
        with writing(address(sidecar)) as ledger:
            survives(ledger, lambda: fault(own_server))
        audit(ledger, store)


def test_a_killed_worker_loses_no_acknowledged_write(store: str, tmp_path: Path) -> None:
    with serving(store, tmp_path / "sidecar.log") as sidecar:
        with writing(address(sidecar)) as ledger:
            survives(ledger, lambda: os.kill(worker_pid(sidecar), signal.SIGKILL))
        audit(ledger, store)


def test_a_killed_sidecar_loses_no_acknowledged_write_and_is_started_again(store: str, tmp_path: Path) -> None:
    listen = ("127.0.0.1", free_port())
    settings = {"DATABASE_URL": store, "MEMORY_PLUGIN_LISTEN_ADDR": f"{listen[0]}:{listen[1]}"}
    with (tmp_path / "log").open("wb") as log:
        boot = subprocess.Popen(
            [PROGRAM, "boot", "--", "sleep", "300"], env=clean_env(**settings), stdout=log, stderr=log
        )
    try:
        with writing(listen) as ledger:
            wait_for_writes(ledger, 20, 40)
            ledger.slowest = 0.0

            def kill() -> None:
                for child in Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text().split():
                    if b"thin_api" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)
                        return
                pytest.fail("no sidecar to kill")

            survives(ledger, kill)
        audit(ledger, store)
    finally:
        boot.terminate()
        boot.wait(30)


@pytest.mark.parametrize("restarted", ["pooler", "database"])
def test_behind_a_pooler_a_restart_loses_no_acknowledged_write(
    own_server: Server, store: str, tmp_path: Path, restarted: str
) -> None:
    if pgbouncer() is None:
        pytest.skip("no PgBouncer on this machine")
    with running_pooler(own_server) as pooler, serving(pooler.url("postgres"), tmp_path / "sidecar.log") as sidecar:

        def restart_the_database() -> None:
            own_server.stop("fast")
            wait_until(lambda: ask(sidecar, "GET", "/v1/health").status == 503, "the pooler to have tried in vain")
            own_server.start()

        with writing(address(sidecar)) as ledger:
            survives(ledger, pooler.restart if restarted == "pooler" else restart_the_database)
        audit(ledger, store)
