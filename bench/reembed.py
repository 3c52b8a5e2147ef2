"""Change the embedding model of a store under writes and searches, killed twice on the way, and see what it cost.

python bench/reembed.py --server-url URL [--rows N] [--writes N] [--from N] [--to N]

URL names a maintenance database of a server with plpython3u; a database is made in it and dropped. Both embedding
services are the test suite's: hashed words, so that the time is the store's and not a model's. Prints a table; exits 1
when a request failed or a memory is without its new vector.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import httpx
import psycopg
import server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fixtures.embedding_service import EmbeddingService

PROGRAM = (sys.executable, "-c", "from memory_plugin.installer.cli import main; main()")
WORDS = ("car", "boat", "plane", "tree", "house", "river", "stone", "cloud", "doctor", "wheel", "garden", "letter")
FILL = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, created_at, embedding)
select
    'team:n' || i %% 10, gen_random_uuid(), 'the ' || (%s::text[])[1 + i %% 12] || ' of number ' || i, 'fact', 'agent',
    now() - (%s::int - i) * interval '1 second',
    (select array_agg((random() - 0.5)::real) from generate_series(1, %s) as d where d > 0 or i = 0)::public.vector
from generate_series(1, %s) as i
"""


def serve_embeddings(dimensions: int, pipe: Pipe) -> None:
    """Be an embedding service until told to end."""
    service = EmbeddingService(dimensions, key=None)
    pipe.send(service.url)
    pipe.recv()
    service.stop()


@contextmanager
def embeddings(dimensions: int) -> Iterator[str]:
    """Run an embedding service in a process of its own; yield its URL."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_embeddings, args=(dimensions, there), daemon=True)
    process.start()
    yield here.recv()
    here.send(None)
    process.join()


@contextmanager
def sidecar(url: str) -> Iterator[httpx.Client]:
    """Serve the store; yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **os.environ,
        "MEMORY_PLUGIN_DATABASE_URL": url,
        "MEMORY_PLUGIN_LISTEN_ADDR": address,
        "MEMORY_PLUGIN_EMBED_SECONDS": "1",
    }
    process = subprocess.Popen([*PROGRAM, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=10) as client:
            deadline = time.monotonic() + 30
            while True:
                try:
                    client.get("/v1/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait()


class Load:
    """Writes at a rate and searches one after the other, each with its time and status."""

    def __init__(self, client: httpx.Client, writes: float) -> None:
        self.client = client
        self.every = 1 / writes
        self.times: dict[str, list[float]] = {"write": [], "search": []}
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._write, self._search)]
        for thread in self._threads:
            thread.start()

    def _ask(self, kind: str, path: str, body: dict[str, Any]) -> None:
        began = time.monotonic()
        try:
            answer = self.client.post(path, json=body)
            problem = "" if answer.is_success else answer.text
        except httpx.HTTPError as error:
            problem = repr(error)
        self.times[kind].append(time.monotonic() - began)
        if problem:
            self.failures.append(f"{kind}: {problem}")

    def _write(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            number = len(self.times["write"])
            content = f"a {WORDS[number % 12]} written as number {number}"
            body = {"content": content, "kind": "fact", "source": "agent"}
            self._ask("write", f"/v1/namespaces/team:n{number % 10}/memories", body)
            due += self.every

    def _search(self) -> None:
        while not self._stop.wait(0.02):
            number = len(self.times["search"])
            body = {"namespaces": [f"team:n{number % 10}"], "query": f"{WORDS[number % 12]} of {number}"}
            self._ask("search", "/v1/search", body)

    def stop(self) -> None:
        """End the load."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def change(url: str, to: int, service: str, conn: psycopg.Connection[Any], rows: int) -> tuple[list[float], str]:
    """Run reembed, killed when a third and when two thirds are filled; return each run's seconds and the last word."""
    command = [*PROGRAM, "reembed", "--database-url", url, "--model", "new", "--dimensions", str(to), "--url", service]
    took = []
    for share in (1 / 3, 2 / 3, None):
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=None, text=True)
        while share is not None and process.poll() is None:
            time.sleep(0.5)
            column = "select from pg_attribute where attrelid = 'memory_plugin.memory_records'::regclass "
            column += "and attname = 'embedding_spare'"
            if conn.execute(column.encode()).fetchone() is None:
                continue
            filled = conn.execute("select count(*) from memory_plugin.memory_records where embedding_spare is not null")
            row = filled.fetchone()
            if row is not None and row[0] > rows * share:
                process.kill()
        said = process.communicate()[0]
        took.append(time.monotonic() - began)
        if share is None and process.returncode:
            raise SystemExit(f"reembed failed: {process.returncode}")
    return took, said


def main() -> int:
    """Fill, load, change, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server-url", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--writes", type=float, default=50)
    parser.add_argument("--from", dest="old", type=int, default=256)
    parser.add_argument("--to", type=int, default=384)
    options = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(server.store(options.server_url, options.old))
        old, new = (stack.enter_context(embeddings(n)) for n in (options.old, options.to))
        conn = stack.enter_context(psycopg.connect(url, autocommit=True))
        conn.execute("select memory_plugin.configure_embedding(%s, 'old', %s)", [old, options.old])
        conn.execute(
            "insert into memory_plugin.memory_namespaces (name, kind) "
            "select 'team:n' || i, 'team' from generate_series(0, 9) as i"
        )
        conn.execute(FILL, [list(WORDS), options.rows, options.old, options.rows])
        conn.execute("vacuum (analyze)")
        client = stack.enter_context(sidecar(url))
        load = Load(client, options.writes)
        try:
            took, said = change(url, options.to, new, conn, options.rows)
        finally:
            load.stop()
        waiting, deadline = 1, time.monotonic() + 60
        while waiting and time.monotonic() < deadline:
            time.sleep(0.5)
            row = conn.execute(
                "select count(*), count(*) filter (where embedding is null or public.vector_dims(embedding) <> %s) "
                "from memory_plugin.memory_records",
                [options.to],
            ).fetchone()
            total, waiting = row if row is not None else (0, 1)
    out = sys.stdout.write
    out(f"{said}\n| what | count | p50 ms | p99 ms | slowest ms |\n|---|---|---|---|---|\n")
    for kind, times in load.times.items():
        ordered = sorted(times)
        shown = (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])
        out(f"| {kind} | {len(times)} | " + " | ".join(f"{value * 1000:.1f}" for value in shown) + " |\n")
    out(f"\n{options.rows} memories, {options.old} to {options.to} dimensions, {options.writes:.0f} writes/s\n")
    out(f"runs, the first two killed: {', '.join(f'{seconds:.0f} s' for seconds in took)}\n")
    out(f"failed requests: {len(load.failures)}\nmemories: {total}, of these without their new vector: {waiting}\n")
    for failure in load.failures[:5]:
        out(f"  {failure}\n")
    return 1 if load.failures or waiting else 0


if __name__ == "__main__":
    sys.exit(main())
