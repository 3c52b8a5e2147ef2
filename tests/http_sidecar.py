"""The HTTP layer by itself, as a process of its own: what the tests of transport and faults start and speak to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx

from fixtures.cluster import free_port
from fixtures.sidecars import Sidecar, clean_env, wait_until

Told = TypeVar("Told")
# What a client allows; the sidecar must have answered before.
CLIENT_SECONDS = 2.0
# What the sidecar calls, without the rules: here only time and connections matter. A body steers what happens.
STAND_IN = """
    create schema memory_plugin;
    create table memory_plugin.committed (place bigserial, at timestamptz default clock_timestamp());
    create function memory_plugin.v1_health() returns json language sql as $$
        select '{"status":"ok","version":"1.0.0","capabilities":[]}'::json
    $$;
    create function memory_plugin.v1_search(body json) returns json language plpgsql as $$
        begin
            perform pg_sleep(coalesce((body ->> 'sleep')::float, 0));
            if body ->> 'lock' is not null then
                lock table memory_plugin.committed in row exclusive mode;
            end if;
            return json_build_object('memories', '[]'::json, 'pid', pg_backend_pid());
        end
    $$;
    create function memory_plugin.v1_commit_memory(namespace text, body json) returns json language plpgsql as $$
        begin
            insert into memory_plugin.committed default values;
            perform pg_sleep(coalesce((body ->> 'sleep')::float, 0));
            return json_build_object('id', pg_backend_pid(), 'namespace', namespace);
        end
    $$;
"""


class Answer(NamedTuple):
    """A response as it came over the socket, and how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextmanager
def serving(
    database: str, log_file: Path, *, status: int | None = 200, stderr: int | None = None, **settings: str
) -> Iterator[Sidecar]:
    """Serve a database without installing anything; enter once health answers `status` (None: once it answers).

    `stderr` is a file descriptor to log to instead of the file.
    """
    address = settings.setdefault("MEMORY_PLUGIN_LISTEN_ADDR", f"127.0.0.1:{free_port()}")
    command = [sys.executable, "-m", "memory_plugin.thin_api"]
    env = clean_env(MEMORY_PLUGIN_CONNINFO=database, **settings)
    with (
        log_file.open("wb") as log,
        subprocess.Popen(command, env=env, stdout=log, stderr=stderr or log) as process,
        httpx.Client(base_url=f"http://{address}", timeout=10, trust_env=False) as client,
    ):
        sidecar = Sidecar(f"http://{address}", database, client, process, log_file)
        try:
            wait_until(lambda: health(sidecar) in ((status,) if status else (200, 503)), "the sidecar's health")
            yield sidecar
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def health(sidecar: Sidecar) -> int:
    """Return the status of /v1/health; 0 when nobody listens."""
    assert sidecar.process.poll() is None, sidecar.log()
    try:
        return sidecar.client.get("/v1/health").status_code
    except httpx.TransportError:
        return 0


def address(sidecar: Sidecar) -> tuple[str, int]:
    """Return the host and port of a sidecar."""
    host, _, port = sidecar.base_url.removeprefix("http://").rpartition(":")
    return host, int(port)


def worker_pid(sidecar: Sidecar) -> int:
    """Return the process that answers requests."""
    children = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


def ask(sidecar: Sidecar, method: str, path: str, body: object = None, *, timeout: float = 10) -> Answer:
    """Send one request on a connection of its own; a body that is no bytes is sent as JSON."""
    payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    start = time.monotonic()
    connection = http.client.HTTPConnection(*address(sidecar), timeout=timeout)
    try:
        connection.request(method, path, payload)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, content, time.monotonic() - start)


def raw(sidecar: Sidecar, *parts: bytes, then: Callable[[socket.socket], None] | None = None) -> Answer:
    """Send bytes as they are and read one response."""
    start = time.monotonic()
    with socket.create_connection(address(sidecar), timeout=10) as sock:
        for part in parts:
            sock.sendall(part)
        if then is not None:
            then(sock)
        response = http.client.HTTPResponse(sock)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read(), time.monotonic() - start)


def ask_many(count: int, one: Callable[[int], Told]) -> list[Told]:
    """Call `one` in `count` threads at once and return what each gave; raise what any of them raised."""
    ready = threading.Barrier(count)

    def run(number: int) -> Told:
        ready.wait(10)
        return one(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count), timeout=60))


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Stop processes with SIGSTOP for the length of the block: to others they hang."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                continue
