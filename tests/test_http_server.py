"""The sidecar as a process: start and stop, addresses, draining, what it does when its parent dies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from fixtures.cluster import free_port
from fixtures.sidecars import Sidecar, clean_env, wait_until
from http_sidecar import Answer, address, ask, serving, worker_pid
from memory_plugin.thin_api import server as http_server
from memory_plugin.thin_api.settings import from_env

pytestmark = pytest.mark.servers("any")

DOCKERFILE = Path(__file__).parent.parent / "docker" / "Dockerfile.sidecar"
SLOW = """
    create or replace function memory_plugin.v1_search(body json) returns json language plpgsql as $$
        begin
            perform pg_sleep((body ->> 'sleep')::float);
            return '{"memories":[]}';
        end
    $$;
"""


@pytest.fixture
def sidecar(database: str, tmp_path: Path) -> Iterator[Sidecar]:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(SLOW)
    with serving(database, tmp_path / "sidecar.log") as running:
        yield running


def run(**settings: str) -> subprocess.CompletedProcess[str]:
    """Run the sidecar to its end, which must be its own."""
    return subprocess.run(
        [sys.executable, "-m", "memory_plugin.thin_api"],
        env=clean_env(**settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def image_finds_healthy(**settings: str) -> bool:
    """Run the sidecar image's health check, beside a proxy that is for other machines."""
    (check,) = re.findall(r"HEALTHCHECK .* CMD (\[.*\])\n", DOCKERFILE.read_text().replace("\\\n", ""))
    command = [sys.executable, *json.loads(check)[1:]]
    environ = clean_env(http_proxy="http://127.0.0.1:9", **settings)
    return subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0


def test_sigterm_lets_a_request_finish_and_ends_with_zero(database: str, sidecar: Sidecar) -> None:
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(sidecar, "POST", "/v1/search", {"sleep": 1})))
    asking.start()
    with psycopg.connect(database, autocommit=True) as conn:
        running = "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        wait_until(lambda: conn.execute(running).fetchall(), "the request to reach the database")
    sidecar.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not listening(*address(sidecar)), "an end to accepting")
    asking.join(10)
    assert [answer.status for answer in answers] == [200]
    assert sidecar.process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_idle_sidecar_ends_at_once_with_one_line_for_its_start_and_one_for_its_stop(
    sidecar: Sidecar, number: signal.Signals
) -> None:
    sidecar.process.send_signal(number)
    assert sidecar.process.wait(5) == 0
    lines = [line for line in sidecar.log().splitlines() if not re.search(r" (database_reachable|superuser)\b", line)]
    assert len(lines) == 2, lines
    host, port = address(sidecar)
    assert f" started address={host}:{port} " in lines[0]
    assert f" stopped address={host}:{port} status=0" in lines[1]


def test_a_hangup_of_every_process_lets_a_request_finish(database: str, sidecar: Sidecar) -> None:
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(sidecar, "POST", "/v1/search", {"sleep": 1})))
    asking.start()
    with psycopg.connect(database, autocommit=True) as conn:
        running = "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"
        wait_until(lambda: conn.execute(running).fetchall(), "the request to reach the database")
    for pid in (worker_pid(sidecar), sidecar.process.pid):
        os.kill(pid, signal.SIGHUP)
    asking.join(10)
    assert [answer.status for answer in answers] == [200]
    assert sidecar.process.wait(10) == 0


def test_a_hangup_that_nohup_ignores_stays_ignored(database: str, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(database, tmp_path / "sidecar.log") as sidecar:
            worker = worker_pid(sidecar)
            sidecar.process.send_signal(signal.SIGHUP)
            assert ask(sidecar, "GET", "/v1/health").status == 200
            assert worker_pid(sidecar) == worker
            assert sidecar.process.poll() is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_inside_the_first_one_does_not_lock_it_up() -> None:
    granian = http_server._Server("127.0.0.1", from_env({"MEMORY_PLUGIN_CONNINFO": "dbname=none"}))
    # Held by the interrupted thread itself in a real signal handler; by another one here, so that a test can end.
    with granian.main_loop_interrupt._cond:
        signals = threading.Thread(target=lambda: [granian.signal_handler_interrupt() for _ in "ab"], daemon=True)
        signals.start()
        signals.join(10)
        assert not signals.is_alive()
    assert granian.main_loop_interrupt.wait(10)


def test_the_log_never_holds_the_password(server: object, tmp_path: Path) -> None:
    url = f"postgresql://someone:s3cretword@127.0.0.1:{free_port()}/somewhere"
    with serving(url, tmp_path / "sidecar.log", status=503) as sidecar:
        ask(sidecar, "POST", "/v1/search", {})
        wait_until(lambda: "database_unreachable" in sidecar.log(), "the line about the database")
        assert "/somewhere" in sidecar.log()
        assert "s3cretword" not in sidecar.log()


def test_an_address_in_use_is_one_line_and_a_failure(sidecar: Sidecar) -> None:
    host, port = address(sidecar)
    done = run(MEMORY_PLUGIN_CONNINFO=sidecar.database, MEMORY_PLUGIN_LISTEN_ADDR=f"{host}:{port}")
    assert done.returncode == 21
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"{host}:{port}" in done.stderr
    assert "in use" in done.stderr
    assert ask(sidecar, "GET", "/v1/health").status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="an address can be held before it is listened on by Linux's names")
def test_of_sidecars_that_start_at_once_on_one_address_one_serves(database: str) -> None:
    where = f"127.0.0.1:{free_port()}"
    env = clean_env(MEMORY_PLUGIN_CONNINFO=database, MEMORY_PLUGIN_LISTEN_ADDR=where)
    command = [sys.executable, "-m", "memory_plugin.thin_api"]
    started = [subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        wait_until(lambda: sum(process.poll() is None for process in started) == 1, "the end of all but one")
        assert sorted(process.returncode or 0 for process in started) == [0, 21, 21, 21]
        wait_until(lambda: listening(*_split(where)), "the one that serves")
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(20)


def _split(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    return host, int(port)


def test_a_host_that_is_not_there_is_one_line_and_a_failure() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid", "a..b"):
        done = run(MEMORY_PLUGIN_CONNINFO="dbname=x", MEMORY_PLUGIN_LISTEN_ADDR=f"{host}:{free_port()}")
        assert done.returncode == 21
        assert len(done.stderr.splitlines()) == 1
        assert host in done.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "MEMORY_PLUGIN_DATABASE_URL"),
        ({"DATABASE_URL": "dbname=x", "MEMORY_PLUGIN_LISTEN_ADDR": "9100"}, "MEMORY_PLUGIN_LISTEN_ADDR"),
        ({"DATABASE_URL": "dbname=x", "MEMORY_PLUGIN_POOL_SIZE": "0"}, "MEMORY_PLUGIN_POOL_SIZE"),
        ({"DATABASE_URL": "postgres://u:s3cretword@h/d?x=%zz"}, "database URL"),
        ({"DATABASE_URL": "postgres://u:s3cretword\udce9@h/d"}, "database URL"),
    ],
)
def test_a_setting_that_cannot_be_used_is_one_line_and_status_21(settings: dict[str, str], named: str) -> None:
    done = run(**settings)
    assert done.returncode == 21
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr
    assert "s3cretword" not in done.stderr


@pytest.mark.parametrize(("listen", "hosts"), [("", ["127.0.0.1", "::1"]), ("[::1]", ["::1"]), ("localhost", None)])
def test_it_listens_where_it_is_told(database: str, tmp_path: Path, listen: str, hosts: list[str] | None) -> None:
    port = free_port()
    log_file = tmp_path / "sidecar.log"
    settings = {"MEMORY_PLUGIN_CONNINFO": database, "MEMORY_PLUGIN_LISTEN_ADDR": f"{listen}:{port}"}
    command = [sys.executable, "-m", "memory_plugin.thin_api"]
    with log_file.open("wb") as log, subprocess.Popen(command, env=clean_env(**settings), stderr=log) as process:
        try:
            for host in hosts or ["localhost"]:
                wait_until(lambda host=host: listening(host, port), f"a listener on {host}")  # type: ignore[misc]
                shown = f"[{host}]" if ":" in host else host
                assert httpx.get(f"http://{shown}:{port}/v1/health", trust_env=False).status_code in (200, 503)
            if listen == "[::1]":
                assert not listening("127.0.0.1", port)
            wait_until(lambda: image_finds_healthy(**settings), "the image's check to find it healthy")
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_a_worker_does_not_outlive_a_killed_parent(sidecar: Sidecar) -> None:
    worker = worker_pid(sidecar)
    sidecar.process.kill()
    sidecar.process.wait(5)
    wait_until(lambda: not Path(f"/proc/{worker}").exists() or _is_zombie(worker), "the worker's end", timeout=8)
    assert not listening(*address(sidecar))


def test_a_sidecar_can_be_started_again_at_once_after_a_kill(sidecar: Sidecar, tmp_path: Path) -> None:
    host, port = address(sidecar)
    # An open connection leaves remains behind that must not look like a listener.
    with socket.create_connection((host, port)):
        sidecar.process.kill()
        sidecar.process.wait(5)
        wait_until(lambda: not listening(host, port), "the old worker's end", timeout=8)
    with serving(sidecar.database, tmp_path / "second.log", MEMORY_PLUGIN_LISTEN_ADDR=f"{host}:{port}") as second:
        assert ask(second, "GET", "/v1/health").status == 200
        assert "database_reachable" in second.log()


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_any_wsgi_server_runs_the_application(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from memory_plugin.thin_api import app

    monkeypatch.setenv("MEMORY_PLUGIN_CONNINFO", database)
    monkeypatch.setattr(app, "_application", None)
    try:
        # As gunicorn gives it: the path as it was sent beside the decoded one.
        assert _call(app, "GET", "/v1/health")[0] == "200 OK"
        assert _call(app, "POST", "/v1/namespaces/workspace:a/memories", "/v1/namespaces/workspace:a%2Fmemories")[
            0
        ].startswith("405")
        assert _call(app, "GET", "/v1/health", "/v1%2Fhealth")[0].startswith("404")
    finally:
        made = app._application
        assert made is not None
        made.close()


def _call(app: object, method: str, path: str, sent: str | None = None) -> tuple[str, bytes]:
    seen: list[str] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "wsgi.input": None}
    if sent is not None:
        environ["RAW_URI"] = sent
    body = b"".join(app.application(environ, lambda line, headers: seen.append(line)))  # type: ignore[attr-defined]
    return seen[0], body
