"""`memory-plugin serve`, as an operator runs it."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from memory_plugin.thin_api import server as http_server

PROGRAM = Path(sys.executable).with_name("memory-plugin")
OURS = ("DATABASE_URL", "MEMORY_PLUGIN_")


class Serving:
    """A `memory-plugin serve` that runs."""

    def __init__(self, *arguments: str | Path, **environ: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
        self.process = subprocess.Popen(
            [PROGRAM, "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, **environ},
        )

    def signposts(self) -> dict[str, str]:
        """Return the lines it prints when it is about to serve, by their first word."""
        assert self.process.stdout is not None
        found: dict[str, str] = {}
        for line in self.process.stdout:
            word, text = line.strip().split("  ", maxsplit=1)
            found[word] = text.strip()
            if word == "curl":
                break
        return found

    def health(self, base: str) -> httpx.Response:
        """Return the answer of /v1/health, as soon as there is one."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return httpx.get(f"{base}/v1/health", timeout=5)
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.communicate()
                assert time.monotonic() < deadline, "the sidecar does not answer"
                time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return status and what was said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    """Return what starts `memory-plugin serve`."""
    made: list[Serving] = []

    def make(*arguments: str | Path, **environ: str) -> Serving:
        made.append(Serving(*arguments, **environ))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.end()


@pytest.fixture
def address() -> str:
    """Return an address nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def shell(line: str) -> str:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_embedded_serves_what_it_prints_and_stops_with_its_server(
    folder: Path, address: str, serving: Callable[..., Serving], number: int
) -> None:
    # Variables for another server are not followed.
    elsewhere = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    run = serving("--embedded", "--data-dir", folder, "--listen", address, "--dimensions", "3", **elsewhere)
    signposts = run.signposts()
    assert signposts["base URL"] == f"http://{address}"
    assert run.health(signposts["base URL"]).json()["status"] == "ok"
    # The rest of the line is the person's to add.
    if shutil.which("curl"):
        assert '"status"' in shell(signposts["curl"])
    memory = {"content": "tabs, not spaces", "kind": "fact", "source": "user", "embedding": [1, 2, 3]}
    written = httpx.post(f"http://{address}/v1/namespaces/workspace:a/memories", json=memory)
    assert written.status_code == 201
    rows = shell(f'{signposts["psql"]} -Atc "select content from memory_plugin.memory_records"')
    assert rows.strip() == "tabs, not spaces"
    status, said = run.end(number)
    assert status == 0, said
    assert "stopped" in said
    assert not (folder / "pgdata" / "postmaster.pid").exists()

    again = serving("--embedded", "--data-dir", folder, MEMORY_PLUGIN_LISTEN_ADDR=address)
    base = again.signposts()["base URL"]
    again.health(base)
    found = httpx.post(f"{base}/v1/search", json={"namespaces": ["workspace:a"], "query": "spaces"}).json()
    assert [one["content"] for one in found["memories"]] == ["tabs, not spaces"]


# Each of them made libpq go elsewhere, or refuse, or answer in another form.
LIBPQ = {
    "PGHOSTADDR": "127.0.0.1",
    "PGOPTIONS": "-c statement_timeout=1ms",
    "PGSERVICE": "nosuch",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody",
    "PGGSSENCMODE": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGCHANNELBINDING": "require",
    "PGDATESTYLE": "garbage",
    "PGTZ": "Nowhere/X",
    "PGCLIENTENCODING": "SQL_ASCII",
}


def test_embedded_follows_no_variable_of_libpq(folder: Path, address: str, serving: Callable[..., Serving]) -> None:
    run = serving("--embedded", "--data-dir", folder, "--listen", address, "--dimensions", "3", **LIBPQ)
    base = run.signposts()["base URL"]
    assert run.health(base).json()["status"] == "ok"
    memory = {"content": "here", "kind": "fact", "source": "user"}
    assert httpx.post(f"{base}/v1/namespaces/workspace:a/memories", json=memory).status_code == 201
    status, said = run.end()
    assert status == 0, said
    assert said.startswith("PostgreSQL 18."), said
    assert not (folder / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_embedded_server_that_ends_is_started_again_and_served(
    folder: Path, address: str, serving: Callable[..., Serving], number: int
) -> None:
    run = serving("--embedded", "--data-dir", folder, "--listen", address, "--dimensions", "3")
    run.health(run.signposts()["base URL"])
    pid_file = folder / "pgdata" / "postmaster.pid"
    os.kill(int(pid_file.read_text().split()[0]), number)
    memory = {"content": "again", "kind": "fact", "source": "user"}
    deadline = time.monotonic() + 30
    while httpx.post(f"http://{address}/v1/namespaces/workspace:a/memories", json=memory).status_code != 201:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    status, said = run.end()
    assert status == 0, said
    assert said.count("\nPostgreSQL had ended, and was started again\n") == 1
    assert not pid_file.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_while_it_starts_leaves_no_server_behind(
    folder: Path, address: str, serving: Callable[..., Serving], number: int
) -> None:
    run = serving("--embedded", "--data-dir", folder, "--listen", address)
    deadline = time.monotonic() + 60
    pid_file = folder / "pgdata" / "postmaster.pid"
    while not pid_file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    status, said = run.end(number)
    assert status == 0, said
    assert not pid_file.exists()


def test_a_terminal_that_is_closed_ends_service_and_server(folder: Path, address: str) -> None:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    arguments = [str(PROGRAM), "serve", "--embedded", "--data-dir", str(folder), "--listen", address]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, arguments, environ)  # noqa: S606
    said = b""
    while b"/v1/health" not in said:
        said += os.read(terminal, 4096)
    deadline = time.monotonic() + 30
    while True:
        try:
            assert httpx.get(f"http://{address}/v1/health", timeout=5).status_code == 200
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
    os.close(terminal)
    os.waitpid(pid, 0)
    assert not (folder / "pgdata" / "postmaster.pid").exists()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address.partition(":")[0], int(address.partition(":")[2])))


def test_taken_port_is_one_line_and_nothing_is_started(folder: Path, serving: Callable[..., Serving]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        run = serving("--embedded", "--data-dir", folder, "--listen", taken)
        out, said = run.process.communicate(timeout=60)
    assert run.process.returncode == 21
    assert out == ""
    assert said.startswith(f"memory-plugin: A setting is not valid: cannot listen on {taken}: address already in use")
    assert said.count("\n") == 1
    assert list(folder.iterdir()) == []


@pytest.mark.servers("any")
@pytest.mark.skipif(sys.platform != "linux", reason="an address can be held before it is listened on by Linux's names")
def test_port_that_another_serve_took_meanwhile_has_the_code_of_a_taken_one(
    database: str, address: str, serving: Callable[..., Serving]
) -> None:
    host, _, port = address.partition(":")
    # As of a service that has begun and does not listen yet.
    claim = http_server._claim(host, int(port))
    assert claim is not None
    with claim:
        run = serving("--listen", address, DATABASE_URL=database, MEMORY_PLUGIN_SKIP_MIGRATE="1")
        _, said = run.process.communicate(timeout=60)
    assert run.process.returncode == 21
    assert f"cannot listen on {address}: address already in use by another sidecar" in said.splitlines()[-1]


def test_a_setting_of_the_sidecar_is_checked_before_anything_is_started(
    folder: Path, empty_database: str, serving: Callable[..., Serving]
) -> None:
    for arguments in (["--embedded", "--data-dir", folder], ["--database-url", empty_database]):
        run = serving(*arguments, MEMORY_PLUGIN_TOKEN="short")
        out, said = run.process.communicate(timeout=60)
        assert (run.process.returncode, out, said.count("\n")) == (21, "", 1)
        assert "MEMORY_PLUGIN_TOKEN must be 16 to 512 characters" in said
    assert list(folder.iterdir()) == []
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select to_regnamespace('memory_plugin') is null").fetchone() == (True,)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--embedded", "--database-url", "postgres://h/d"], 2, "exclude each other"),
        (["--data-dir", "/tmp"], 2, "go with --embedded"),
        (["--embedded", "--listen", "9100"], 21, "must be HOST:PORT"),
        (["--embedded", "--dimensions", "4001"], 21, "from 1 to 4000"),
        (["--database-url", "postgres://h/d?pool_size=3"], 21, "pool_size"),
    ],
)
def test_wrong_use_is_one_line(serving: Callable[..., Serving], arguments: list[str], status: int, said: str) -> None:
    run = serving(*arguments)
    _, errors = run.process.communicate(timeout=60)
    assert run.process.returncode == status
    assert said in errors
    assert errors.count("\n") == 1


@pytest.mark.servers("any")
def test_server_of_ones_own_is_installed_into_and_served(
    empty_database: str, address: str, serving: Callable[..., Serving]
) -> None:
    on_path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    run = serving("--listen", address, DATABASE_URL=empty_database, PATH=on_path)
    signposts = run.signposts()
    assert run.health(f"http://{address}").status_code == 200
    assert signposts["psql"] == 'psql "$(memory-plugin dsn --show-password)"'
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select to_regclass('memory_plugin.memory_records') is not null").fetchone() == (True,)
    status, said = run.end()
    assert status == 0, said


@pytest.mark.servers("any")
def test_psql_line_works_where_the_program_is_not_on_the_path(
    empty_database: str, address: str, serving: Callable[..., Serving]
) -> None:
    run = serving("--listen", address, DATABASE_URL=empty_database, PATH="/usr/bin:/bin")
    line = run.signposts()["psql"]
    run.health(f"http://{address}")
    # The line's own psql may be absent here: what it is given is what counts.
    url = subprocess.run(
        ["/bin/sh", "-c", f'set -- {line}; printf %s "$2"'],
        env={"PATH": "/usr/bin:/bin", "DATABASE_URL": empty_database},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    with psycopg.connect(url) as conn:
        assert conn.execute("select version from memory_plugin.health()").fetchone() == ("1.0.0",)


@pytest.mark.servers("any")
def test_skip_migrate_leaves_the_database_alone(
    empty_database: str, address: str, serving: Callable[..., Serving]
) -> None:
    run = serving("--listen", address, DATABASE_URL=empty_database, MEMORY_PLUGIN_SKIP_MIGRATE="1")
    run.signposts()
    degraded = run.health(f"http://{address}")
    assert (degraded.status_code, degraded.json()["status"]) == (503, "degraded")
    with psycopg.connect(empty_database) as conn:
        assert conn.execute("select to_regnamespace('memory_plugin') is null").fetchone() == (True,)
