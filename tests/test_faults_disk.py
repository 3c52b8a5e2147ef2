"""Full disks beneath clients that write: of the tables, of the server's log of writes, of the sidecar's own log."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from fixtures.as_root import as_root
from fixtures.cluster import DURABLE, cluster
from fixtures.installing import install
from fixtures.server import Server, ServerError, embedded_bin_dir, server_account
from fixtures.sidecars import wait_until
from http_sidecar import address, serving
from ledger import NAMESPACE, Ledger, audit, survives, writing


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """Mount a small file system in memory, which only root may."""
    folder = Path(tempfile.mkdtemp(prefix="mp-test-disk-", dir="/tmp"))
    folder.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Return a server of this module's own that keeps what it acknowledges."""
    with cluster("disk", embedded_bin_dir(18), DURABLE) as server:
        yield server


@pytest.fixture
def disk() -> Iterator[Path]:
    """Return a small disk to fill."""
    with small_disk(200) as folder:
        yield folder


def fill(disk: Path) -> Path:
    """Leave no room; return the file whose end makes room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    return ballast


def refusals(ledger: Ledger, more: int) -> None:
    """Wait until so many more requests were refused."""
    refused = ledger.statuses.get(503, 0)
    wait_until(lambda: ledger.statuses.get(503, 0) > refused + more, "requests to be refused")


@as_root
def test_a_full_disk_of_the_tables_refuses_writes_quickly_and_loses_none(
    own_server: Server, disk: Path, tmp_path: Path
) -> None:
    space = disk / "space"
    space.mkdir(mode=0o700)
    shutil.chown(space, server_account() or "root")
    own_server.execute(f"create tablespace small location '{space}'")
    own_server.execute("create database filled tablespace small")
    try:
        url = own_server.url("filled")
        install(url)
        with serving(url, tmp_path / "sidecar.log") as sidecar:
            with writing(address(sidecar), padding=2000) as ledger:

                def fault() -> None:
                    ballast = fill(disk)
                    refusals(ledger, 20)
                    ballast.unlink()

                survives(ledger, fault)
            audit(ledger, url)
            assert NAMESPACE not in sidecar.log()
    finally:
        own_server.execute("drop database filled with (force)")
        own_server.execute("drop tablespace small")


@as_root
def test_a_full_disk_of_the_log_of_writes_loses_none_and_the_sidecar_is_back_by_itself(
    disk: Path, tmp_path: Path
) -> None:
    few = {"min_wal_size": "32MB", "max_wal_size": "32MB", "shared_buffers": "16MB"}
    with cluster("disk", embedded_bin_dir(18), {**DURABLE, **few}, parent=disk) as server:
        install(server.url())
        with serving(server.url(), tmp_path / "sidecar.log") as sidecar:
            with writing(address(sidecar)) as ledger:

                def fault() -> None:
                    ballast = fill(disk)
                    # The server cannot go on without its log: it ends itself as soon as the next file of it is due.
                    wait_until(lambda: not _switched(server), "the server's end")
                    refusals(ledger, 20)
                    ballast.unlink()
                    # Whoever looks after servers starts this one again, if it did not come back by itself.
                    wait_until(lambda: _there(server), "the server to start", timeout=40)

                survives(ledger, fault)
            audit(ledger, server.url())


def _switched(server: Server) -> bool:
    try:
        with server.connect() as conn:
            for _ in range(20):
                conn.execute("select pg_switch_wal()")
                conn.execute("select pg_logical_emit_message(true, 'x', repeat('x', 100000))")
    except psycopg.Error:
        return False
    return True


def _there(server: Server) -> bool:
    with contextlib.suppress(ServerError):
        server.start()
    try:
        server.execute("select pg_switch_wal()")
    except psycopg.Error:
        return False
    return True


def test_a_log_that_takes_nothing_keeps_nobody_from_being_served(own_server: Server) -> None:
    install(own_server.url())
    # What a full disk says to every write, also without root's rights.
    with serving(own_server.url(), Path("/dev/full")) as sidecar:
        with writing(address(sidecar)) as ledger:

            def fault() -> None:
                own_server.stop("immediate")
                refusals(ledger, 20)
                own_server.start()

            survives(ledger, fault)
        audit(ledger, own_server.url())
