"""An installation whose server process is killed before its n-th statement, as a crash or an operator would."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from fixtures.installing import dump, install, settings_for
from fixtures.server import Server
from memory_plugin.installer import api
from memory_plugin.installer.errors import InstallError


class Counting:
    """Stands before every statement of an installation; kills the connection that is about to run number `at`."""

    def __init__(self, server: Server, at: int | None) -> None:
        self._server = server
        self._at = at
        self.seen = 0
        self._inside = False

    def arm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take the place of execute() until the test ends."""
        execute = psycopg.Connection.execute

        def counted(connection: psycopg.Connection[Any], *arguments: Any, **options: Any) -> Any:
            if not self._inside:
                self.seen += 1
                if self.seen == self._at:
                    self._inside = True
                    self._server.execute(f"select pg_terminate_backend({connection.info.backend_pid}, 5000)")
                    self._inside = False
            return execute(connection, *arguments, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", counted)


def statements_of_an_install(server: Server, url: str) -> int:
    """Install into an empty database and return how many statements that took."""
    counting = Counting(server, None)
    with pytest.MonkeyPatch.context() as patch:
        counting.arm(patch)
        install(url)
    return counting.seen


def kill_and_install_again(server: Server, url: str, at: int, fresh: str) -> None:
    """Kill an install at one statement, run it again, and find what a fresh install leaves (`fresh`, a dump)."""
    counting = Counting(server, at)
    with pytest.MonkeyPatch.context() as patch:
        counting.arm(patch)
        with pytest.raises(InstallError) as caught:
            install(url)
    assert counting.seen >= at
    assert caught.value.exit_code != 0
    assert "run this again" in f"{caught.value.message} {caught.value.hint}", caught.value.message
    install(url)
    assert dump(server, url) == fresh, f"killed at statement {at}"
    assert api.verify_store(settings_for(url)).differences == ()
