"""An installation that is killed at its n-th statement, as a crash or an operator would, and run again.

Either its server process is killed, or the installer itself; of a new store, or of one with memories in it from an
earlier state of the schema, into which the earlier version goes on writing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from fixtures.installing import dump, install, rows, settings_for
from fixtures.server import Server
from fixtures.sidecars import clean_env
from memory_plugin.installer import api
from memory_plugin.installer.errors import InstallError
from upgrading import FILL, MEMORIES, NAMES, at_state

_WRITE = """
insert into memory_plugin.memory_records (id, namespace, content, kind, source)
values (%s, 'workspace:a', 'written meanwhile', 'fact', 'agent')
"""


class Start(NamedTuple):
    """What a database holds before the installation, and whether somebody writes into it meanwhile."""

    prepare: Callable[[Server, str], None]
    written: bool


def _with_memories(server: Server, url: str) -> None:
    at_state(server, url, NAMES[1])
    rows(url, FILL)


FRESH = Start(lambda server, url: None, written=False)
UPGRADE = Start(_with_memories, written=True)


class Counting:
    """Stands before every statement of an installation, and calls `kill` with the connection that runs number `at`."""

    def __init__(self, at: int | None, kill: Callable[[psycopg.Connection[Any]], None]) -> None:
        self._at = at
        self._kill = kill
        self._thread = threading.get_ident()
        self.seen = 0
        self._inside = False

    def arm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of execute() until the test ends."""
        execute = psycopg.Connection.execute

        def counted(connection: psycopg.Connection[Any], *arguments: Any, **options: Any) -> Any:
            # What sets a session back may fail: with the connection its settings are gone too.
            resets = isinstance(arguments[0], bytes) and arguments[0].startswith(b"reset ")
            if not resets and not self._inside and threading.get_ident() == self._thread:
                self.seen += 1
                if self.seen == self._at:
                    self._inside = True
                    self._kill(connection)
                    self._inside = False
            return execute(connection, *arguments, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", counted)


def statements_of_an_install(server: Server, url: str, start: Start = FRESH) -> int:
    """Install into an empty database and return how many statements that took."""
    start.prepare(server, url)
    counting = Counting(None, lambda _: None)
    with pytest.MonkeyPatch.context() as patch:
        counting.arm(patch)
        install(url)
    return counting.seen


@contextmanager
def _writing(url: str) -> Iterator[set[str]]:
    """Write as the earlier version does, until the block ends; what is acknowledged goes into the set."""
    acknowledged: set[str] = set()
    over = threading.Event()

    def run() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("set lock_timeout = '1s'")
            while not over.wait(0.002):
                written = str(uuid.uuid4())
                try:
                    conn.execute(_WRITE, [written])
                except psycopg.errors.LockNotAvailable:
                    continue
                acknowledged.add(written)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield acknowledged
    finally:
        over.set()
        thread.join(30)


def _kill_its_backend(server: Server, url: str, at: int) -> None:
    """Install until the server process is killed that is about to run a statement; the installer says what to do."""

    def kill(connection: psycopg.Connection[Any]) -> None:
        server.execute(f"select pg_terminate_backend({connection.info.backend_pid}, 5000)")

    counting = Counting(at, kill)
    with pytest.MonkeyPatch.context() as patch:
        counting.arm(patch)
        with pytest.raises(InstallError) as caught:
            install(url)
    assert counting.seen >= at
    assert caught.value.exit_code != 0
    assert "run this again" in f"{caught.value.message} {caught.value.hint}", caught.value.message


def _kill_the_installer(server: Server, url: str, at: int) -> None:
    """Install in a process that is killed at a statement: every other one just before it, the rest in its midst."""
    done = subprocess.run(
        [sys.executable, __file__, url, str(at)],
        env=clean_env(PYTHONPATH=str(Path(__file__).parent)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def die(url: str, at: int) -> None:
    """Install, and end by SIGKILL at a statement."""

    def kill(_: psycopg.Connection[Any]) -> None:
        if at % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        timer = threading.Timer(0.003, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()

    with pytest.MonkeyPatch.context() as patch:
        Counting(at, kill).arm(patch)
        install(url)
    # The statement was over sooner than the timer, and the last.
    os.kill(os.getpid(), signal.SIGKILL)


KILLS: dict[str, Callable[[Server, str, int], None]] = {
    "backend": _kill_its_backend,
    "installer": _kill_the_installer,
}


def kill_and_install_again(
    server: Server, url: str, at: int, fresh: str, start: Start = FRESH, killed: str = "backend"
) -> None:
    """Kill an install at one statement, run it again, and find what a fresh install leaves (`fresh`, a dump)."""
    start.prepare(server, url)
    if start.written:
        before = rows(url, MEMORIES)
        with _writing(url) as acknowledged:
            KILLS[killed](server, url, at)
            install(url)
        after = rows(url, MEMORIES)
        assert [row for row in after if row[0]["id"] not in acknowledged] == before
        assert acknowledged <= {row[0]["id"] for row in after}, "an acknowledged write is lost"
    else:
        KILLS[killed](server, url, at)
        install(url)
    assert dump(server, url) == fresh, f"killed at statement {at}"
    assert api.verify_store(settings_for(url)).differences == ()


if __name__ == "__main__":
    die(sys.argv[1], int(sys.argv[2]))
