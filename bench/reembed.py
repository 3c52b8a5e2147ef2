"""Change the embedding model of a store under writes and searches, killed twice on the way, and see what it cost.

python bench/reembed.py [--server-url URL] [--rows N] [--writes N] [--from N] [--to N] [--json FILE]

URL names a maintenance database of a server with plpython3u; without it one of this machine's packages is started. A
database is made in it and dropped. Both embedding services are the test suite's: hashed words, so that the time is the
store's and not a model's. Writes are due at a fixed rate, by one client, and those reached are counted. Printed: how
many memories had no new vector at the swap, how long until those had one that were committed before it, and how many
were without one once the writes ended. Exits 1 when a request failed or a memory is still without its new vector.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
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

from fixtures.embedding_service import EmbeddingService

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


def fill(conn: psycopg.Connection[Any], rows: int, dimensions: int) -> None:
    """Fill the store, its index over embeddings made afterwards: row by row it takes ten times as long."""
    index = "'memory_plugin.memory_vectors_embedding'::regclass"
    made = conn.execute(f"select pg_get_indexdef({index})".encode()).fetchone()
    assert made is not None  # noqa: S101
    conn.execute("drop index memory_plugin.memory_vectors_embedding")
    conn.execute(FILL, [list(WORDS), rows, dimensions, rows])
    conn.execute("set maintenance_work_mem = '512MB'")
    conn.execute(made[0])
    conn.execute("vacuum (analyze)")


@contextmanager
def embeddings(dimensions: int) -> Iterator[str]:
    """Run an embedding service in a process of its own; yield its URL."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_embeddings, args=(dimensions, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join()


class Load:
    """Writes at a rate and searches one after the other, each with its time and status."""

    def __init__(self, client: httpx.Client, writes: float) -> None:
        self.client = client
        self.every = 1 / writes
        self.times: dict[str, list[float]] = {"write": [], "search": []}
        self.failures: list[str] = []
        self.acknowledged: dict[str, float] = {}
        """When, by the clock on the wall, each memory was acknowledged."""
        self.began = time.monotonic()
        self.seconds = 0.0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._write, self._search)]
        for thread in self._threads:
            thread.start()

    def _ask(self, kind: str, path: str, body: dict[str, Any]) -> None:
        began = time.monotonic()
        try:
            answer = self.client.post(path, json=body)
            problem = "" if answer.is_success else answer.text
            if kind == "write" and not problem:
                self.acknowledged[answer.json()["id"]] = time.time()
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
        self.seconds = time.monotonic() - self.began

    def summary(self) -> dict[str, dict[str, float]]:
        """Return the count, the rate reached and the latencies of each kind."""
        return {
            kind: {
                "count": len(times),
                "per_second": round(len(times) / self.seconds, 1),
                **{
                    name: round(sorted(times)[min(len(times) * part // 100, len(times) - 1)] * 1000, 1)
                    for name, part in (("p50_ms", 50), ("p99_ms", 99), ("slowest_ms", 100))
                },
            }
            for kind, times in self.times.items()
        }


class Swap:
    """What memories lack as soon as the vectors are swapped, seen from a session of its own."""

    def __init__(self, url: str) -> None:
        self.at = 0.0
        """When the vectors were swapped, by the clock on the wall."""
        self.lacking: set[str] = set()
        """Memories without a vector when the swap was first seen."""
        self.filled_after_s: float | None = None
        """Seconds from the swap until every memory committed before it had its vector."""
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        look = """
        select
            coalesce(array_agg(r.id::text) filter (where r.id is not null), '{}'),
            count(r.id) filter (where r.created_at <= g.swapped_at),
            extract(epoch from clock_timestamp() - g.swapped_at)::float8, extract(epoch from g.swapped_at)::float8
        from memory_plugin.reembedding as g
        left join memory_plugin.memory_records as r on r.embedding is null
        where g.stage = 'swapped'
        group by g.swapped_at
        """
        with psycopg.connect(self._url, autocommit=True, prepare_threshold=None) as conn:
            while not self._stop.wait(0.02):
                row = conn.execute(look.encode()).fetchone()
                if row is None:
                    continue
                if not self.at:
                    self.lacking, self.at = set(row[0]), row[3]
                if not row[1]:
                    self.filled_after_s = round(row[2], 2)
                    return

    def stop(self) -> None:
        """Look no longer."""
        self._stop.set()
        self._thread.join()


def change(
    url: str, to: int, service: str, conn: psycopg.Connection[Any], rows: int
) -> tuple[list[float], list[int], str]:
    """Run reembed, killed at a third and at two thirds; return the runs' seconds, vectors then, and the last word."""
    command = [*server.PROGRAM, *("reembed", "--database-url", url, "--url", service)]
    command += ["--model", "new", "--dimensions", str(to)]
    column = "select from pg_attribute where attrelid = 'memory_plugin.memory_records'::regclass "
    column += "and attname = 'embedding_spare'"
    filled = "select count(*) from memory_plugin.memory_records where embedding_spare is not null"
    took, killed, there = [], [], 0
    for share in (1 / 3, 2 / 3, None):
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=None, text=True)
        while share is not None and process.poll() is None and there <= rows * share:
            # Counting reads the whole table, and is no part of what is measured.
            time.sleep(max(0.2, rows / 10_000))
            if conn.execute(column.encode()).fetchone() is not None:
                row = conn.execute(filled.encode()).fetchone()
                there = row[0] if row is not None else 0
        if share is not None:
            if process.poll() is not None:
                raise SystemExit(f"reembed ended before it was killed: {process.returncode}")
            process.kill()
            killed.append(there)
        said = process.communicate()[0]
        took.append(time.monotonic() - began)
    if process.returncode:
        raise SystemExit(f"reembed failed: {process.returncode}")
    return took, killed, said


def measure(server_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fill, load, change, count."""
    with ExitStack() as stack:
        url = stack.enter_context(server.store(server_url, options.old))
        old, new = (stack.enter_context(embeddings(n)) for n in (options.old, options.to))
        conn = stack.enter_context(psycopg.connect(url, autocommit=True))
        conn.execute("select memory_plugin.configure_embedding(%s, 'old', %s)", [old, options.old])
        conn.execute(
            "insert into memory_plugin.memory_namespaces (name, kind) "
            "select 'team:n' || i, 'team' from generate_series(0, 9) as i"
        )
        fill(conn, options.rows, options.old)
        client = stack.enter_context(server.sidecar(url, MEMORY_PLUGIN_EMBED_SECONDS="1"))
        load, swap = Load(client, options.writes), Swap(url)
        try:
            took, killed, said = change(url, options.to, new, conn, options.rows)
        finally:
            load.stop()
            waiting, deadline = 1, time.monotonic() + 60
            while waiting and time.monotonic() < deadline:
                row = conn.execute(
                    "select count(*), count(*) filter (where embedding is null or public.vector_dims(embedding) <> %s) "
                    "from memory_plugin.memory_records",
                    [options.to],
                ).fetchone()
                total, waiting = row if row is not None else (0, 1)
                time.sleep(0.2)
            swap.stop()
        sys.stdout.write(said)
        return {
            "bench": "reembed",
            "machine": server.described(url),
            "rows": options.rows,
            "from": options.old,
            "to": options.to,
            "writes_due_per_second": options.writes,
            "load_seconds": round(load.seconds, 1),
            **load.summary(),
            "failures": load.failures[:5],
            "failed_requests": len(load.failures),
            "runs_seconds": [round(seconds, 1) for seconds in took],
            "killed_at": killed,
            # What was acknowledged after the swap, or waited for it, is embedded like any other write.
            "lacking_at_the_swap": sum(load.acknowledged.get(one, 0) < swap.at for one in swap.lacking),
            "filled_after_seconds": swap.filled_after_s,
            "memories": total,
            "without_new_vector": waiting,
        }


def table(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [
        "| what | count | a second | p50 ms | p99 ms | slowest ms |",
        "|---|---|---|---|---|---|",
        *(f"| {kind} | {' | '.join(str(value) for value in result[kind].values())} |" for kind in ("write", "search")),
        "",
        f"{result['rows']} memories, {result['from']} to {result['to']} dimensions; writes due: "
        f"{result['writes_due_per_second']:g}/s",
        f"runs, the first two killed at {result['killed_at']} vectors: {result['runs_seconds']} s",
        f"memories of before the swap without a vector at it: {result['lacking_at_the_swap']}; those begun before had "
        f"theirs after {result['filled_after_seconds']} s",
        f"failed requests: {result['failed_requests']}",
        f"memories: {result['memories']}, of these without their new vector: {result['without_new_vector']}",
        *(f"  {failure}" for failure in result["failures"]),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print; status 1 when something was lost or refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server with plpython3u; without it this machine's is started")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--writes", type=float, default=50)
    parser.add_argument("--from", dest="old", type=int, default=256)
    parser.add_argument("--to", type=int, default=384)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    try:
        with server.full(options.server_url) as url:
            result = measure(url, options)
    except LookupError as error:
        sys.stderr.write(f"reembed: skipped: {error}\n")
        return 0
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(table(result))
    return 1 if result["failed_requests"] or result["without_new_vector"] or result["lacking_at_the_swap"] else 0


if __name__ == "__main__":
    sys.exit(main())
