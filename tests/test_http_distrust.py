"""Connections that are open and of no use: dead without a word, or to a server that takes no writes any more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from fixtures.cluster import cluster
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import wait_until
from http_sidecar import STAND_IN, ask, ask_many, serving

COMMIT = "/v1/namespaces/workspace:a/memories"
POOL = 8


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """Return a server of this module's own, of which every setting may be changed."""
    with cluster("distrust", embedded_bin_dir(18)) as server:
        server.execute(STAND_IN)
        yield server


class Relay:
    """Stands between sidecar and server; what goes through it can be made to end without a word to either side."""

    def __init__(self, server: Server) -> None:
        self._server = (server.host, server.port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.opened: list[socket.socket] = []
        self._mute = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self) -> None:
        """Pass on nothing more of what is open; new connections work."""
        self._mute.set()
        self._mute = threading.Event()

    def close(self) -> None:
        """Let go of everything: what is read from ends."""
        for one in (self._listening, *self.opened):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(self._server)
                self.opened += (near, far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(one, other, self._mute), daemon=True).start()

    @staticmethod
    def _pass(one: socket.socket, other: socket.socket, mute: threading.Event) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if not mute.is_set():
                    other.sendall(data)
            if not mute.is_set():
                other.shutdown(socket.SHUT_WR)


@pytest.fixture
def relay(own_server: Server) -> Iterator[Relay]:
    with closing(Relay(own_server)) as made:
        yield made


def test_connections_that_died_without_a_word_do_not_cost_a_request_each(
    own_server: Server, relay: Relay, tmp_path: Path
) -> None:
    url = own_server.url(tcp=True).replace(f":{own_server.port}/", f":{relay.port}/")
    with serving(url, tmp_path / "log", MEMORY_PLUGIN_POOL_SIZE=str(POOL), MEMORY_PLUGIN_SWEEP_SECONDS="0") as sidecar:
        ask_many(POOL, lambda _: ask(sidecar, "POST", "/v1/search", {"sleep": 0.5}))
        assert len(relay.opened) >= 2 * POOL
        relay.lose()
        answers = [ask(sidecar, "POST", COMMIT, {"content": "x"}) for _ in range(4)]
        statuses = [answer.status for answer in answers]
        # A second one may come before the first has told.
        assert statuses[0] == 503
        assert statuses[2:] == [201, 201]
        assert all(answer.seconds < 2 for answer in answers)
        assert "memory_plugin_breaker_open 0.0" in sidecar.client.get("/metrics").text


def test_a_slow_statement_costs_nobody_else_anything(own_server: Server, relay: Relay, tmp_path: Path) -> None:
    url = own_server.url(tcp=True).replace(f":{own_server.port}/", f":{relay.port}/")
    with serving(url, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="0") as sidecar:
        assert ask(sidecar, "POST", "/v1/search", {"sleep": 60}).status == 503
        for _ in range(3):
            assert ask(sidecar, "POST", COMMIT, {"content": "x"}).status == 201


def test_writes_go_on_soon_after_the_server_takes_them_again(own_server: Server, tmp_path: Path) -> None:
    with serving(own_server.url(), tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="0") as sidecar:
        ask_many(POOL, lambda _: ask(sidecar, "POST", "/v1/search", {"sleep": 0.3}))
        # As after a failover to a server that was a standby until a moment ago: sessions that began as read-only.
        own_server.execute("alter database postgres set default_transaction_read_only = on")
        try:
            own_server.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'memory-plugin'"
            )
            wait_until(lambda: ask(sidecar, "POST", COMMIT, {"content": "x"}).status == 503, "a refusal")
            ask_many(POOL, lambda _: ask(sidecar, "POST", "/v1/search", {"sleep": 0.3}))
        finally:
            options = "-c default_transaction_read_only=off"
            with psycopg.connect(own_server.url(), autocommit=True, options=options) as conn:
                conn.execute("alter database postgres reset default_transaction_read_only")
        statuses = [ask(sidecar, "POST", COMMIT, {"content": "x"}).status for _ in range(3)]
        assert statuses[1:] == [201, 201]
