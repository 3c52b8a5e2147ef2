"""The embedded server when it ends by itself: started again, and waited for while it recovers."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.embedded_folder import Holder, answers, await_end, postmaster
from memory_plugin.installer import cluster, embedded, pgprograms


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_server_that_ends_is_started_again_where_it_was(
    filled_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    # A socket in a folder of its own, which it keeps.
    monkeypatch.setattr(cluster, "_LONGEST_SOCKET", 40)
    with embedded.start(filled_folder) as server, server.kept_up(said.append):
        assert server.address.socket_dir != filled_folder / "pgdata"
        for times in (1, 2):
            os.kill(postmaster(filled_folder / "pgdata"), number)
            await_lines(said, times)
            assert answers(server.url)
        assert set(said) == {"PostgreSQL had ended, and was started again"}
    assert not answers(server.url)
    assert not server.address.socket_dir.exists()
    assert len(said) == 2


def test_server_that_does_not_start_again_is_tried_on(filled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(filled_folder) as server, server.kept_up(said.append):
        rules = filled_folder / "pgdata" / "pg_hba.conf"
        rules.rename(filled_folder / "away")
        os.kill(postmaster(filled_folder / "pgdata"), signal.SIGINT)
        await_lines(said, 2)
        assert said[0].startswith("WARNING: PostgreSQL has ended, and is tried again in 0.04 s: it does not start: ")
        assert said[1].startswith("WARNING: PostgreSQL has ended, and is tried again in 0.08 s: ")
        (filled_folder / "away").rename(rules)
        await_lines(said, 1, "PostgreSQL had ended, and was started again")
        assert answers(server.url)


@pytest.fixture
def recovering(filled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose server recovers until `go` is there, for longer than one that says nothing may take."""
    monkeypatch.setattr(cluster, "PG_CTL_TIMEOUT_S", 1)
    monkeypatch.setattr(cluster, "START_TIMEOUT_S", 1)
    monkeypatch.setattr(cluster, "TELL_EVERY_S", 0.5)
    with (filled_folder / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write(f"restore_command = 'until test -e {filled_folder}/go; do sleep 0.1; done; false'\n")
    return filled_folder


def recover(folder: Path) -> None:
    """Let the next start of the server recover."""
    (folder / "pgdata" / "recovery.signal").touch()
    if os.geteuid() == 0:
        shutil.chown(folder / "pgdata" / "recovery.signal", pgprograms.account_for().name)  # type: ignore[union-attr]


def test_recovery_is_waited_for_however_long_it_takes(recovering: Path, holder: Callable[..., Holder]) -> None:
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == 4:
            (recovering / "go").touch()

    recover(recovering)
    with embedded.start(recovering, report=report) as server:
        assert answers(server.url)
    assert len(said) >= 4
    assert {line.split(":")[0] for line in said} == {"waiting for PostgreSQL"}
    assert said[-1].startswith("waiting for PostgreSQL: the database system is "), said


def test_recovery_that_is_not_waited_for_leaves_no_server(recovering: Path) -> None:
    def report(line: str) -> None:
        raise SystemExit(line)

    recover(recovering)
    with pytest.raises(SystemExit, match="waiting for PostgreSQL: "):
        embedded.start(recovering, report=report)
    assert not (recovering / "pgdata" / "postmaster.pid").exists()


def test_who_leaves_while_the_server_recovers_does_not_wait_for_it(
    recovering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(recovering) as server, server.kept_up(said.append):
        recover(recovering)
        os.kill(postmaster(recovering / "pgdata"), signal.SIGINT)
        await_lines(said, 1, "waiting for PostgreSQL: ")
    assert not (recovering / "pgdata" / "postmaster.pid").exists()
    assert not (recovering / "go").exists()
    assert not [line for line in said if "WARNING" in line]


def test_server_that_was_killed_is_no_trouble_at_the_end(filled_folder: Path) -> None:
    with embedded.start(filled_folder):
        pid = postmaster(filled_folder / "pgdata")
        os.kill(pid, signal.SIGKILL)
        await_end(pid)


def test_server_of_two_users_is_started_again_once(filled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(filled_folder) as one, embedded.start(filled_folder) as two:
        with one.kept_up(said.append), two.kept_up(said.append):
            os.kill(postmaster(filled_folder / "pgdata"), signal.SIGKILL)
            # While both use it, a number that is still taken is tried again.
            await_lines(said, 1, "PostgreSQL had ended")
            started = postmaster(filled_folder / "pgdata")
            assert answers(one.url)
        two.close()
        assert postmaster(filled_folder / "pgdata") == started
        assert answers(one.url)


def await_lines(said: list[str], count: int, start: str = "") -> None:
    deadline = time.monotonic() + 30
    while sum(line.startswith(start) for line in said) < count:
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
