"""A clock that jumps beneath clients that write: the server's and the sidecar's, an hour ahead and an hour behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fixtures.clock import Clock
from fixtures.cluster import DURABLE, cluster
from fixtures.installing import install
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import wait_until
from http_sidecar import address, serving, worker_pid
from ledger import audit, survives, wait_for_writes, writing

HOUR = 3600


@pytest.fixture(scope="module")
def own_server(clock: Clock) -> Iterator[Server]:
    """Return a server whose clock may be set, with a store in it."""
    with cluster("clock", embedded_bin_dir(18), DURABLE, clock.environ) as server:
        install(server.url())
        yield server


def ahead(server: Server) -> float:
    """Return how far the server's clock is ahead of ours, in seconds."""
    with server.connect() as conn:
        row = conn.execute("select extract(epoch from clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0]) - time.time()


def sidecar_settings(clock: Clock) -> dict[str, str]:
    return {**clock.environ, "MEMORY_PLUGIN_SWEEP_SECONDS": "1"}


def test_a_clock_that_jumps_loses_no_acknowledged_write(own_server: Server, clock: Clock, tmp_path: Path) -> None:
    url = own_server.url()
    with serving(url, tmp_path / "sidecar.log", **sidecar_settings(clock)) as sidecar:
        assert "faketime" in Path(f"/proc/{worker_pid(sidecar)}/maps").read_text()
        with writing(address(sidecar)) as ledger:
            for seconds in (HOUR, -HOUR, 0):
                survives(ledger, lambda seconds=seconds: clock.set(seconds))  # type: ignore[misc]
                assert ahead(own_server) == pytest.approx(seconds, abs=60)
        audit(ledger, url)
        # Nothing broke, so nothing was refused either.
        assert set(ledger.statuses) == {200, 201, 204}
        # Upkeep goes on, too, with a clock that was set back.
        clock.set(-HOUR)
        with own_server.connect() as conn:
            conn.execute("select memory_plugin.commit_memory('team:old', 'x', expires_at => now() - interval '1 day')")
        wait_until(lambda: left(own_server) == 0, "the sidecar's sweep")
    clock.set(0)


def left(server: Server) -> int:
    with server.connect() as conn:
        row = conn.execute("select count(*) from memory_plugin.memory_records where namespace = 'team:old'").fetchone()
    assert row is not None
    return int(row[0])


def test_a_clock_set_back_while_a_table_is_locked_holds_no_answer_up(
    own_server: Server, clock: Clock, tmp_path: Path
) -> None:
    url = own_server.url()
    with serving(url, tmp_path / "sidecar.log", **sidecar_settings(clock)) as sidecar:
        with writing(address(sidecar)) as ledger:
            wait_for_writes(ledger, 20, 20)
            with psycopg.connect(url) as conn:
                conn.execute("lock table memory_plugin.memory_records in access exclusive mode")
                # Statements are waiting by now, with a time-out that the server reckons by its own clock.
                wait_until(lambda: waiting(own_server) > 0, "a statement that waits")
                clock.set(-HOUR)
                refused = ledger.statuses.get(503, 0)
                wait_until(lambda: ledger.statuses.get(503, 0) > refused + 4, "writes refused for the lock")
            survives(ledger, lambda: clock.set(0))
        audit(ledger, url)


def waiting(server: Server) -> int:
    with server.connect() as conn:
        row = conn.execute("select count(*) from pg_locks where not granted").fetchone()
    assert row is not None
    return int(row[0])
