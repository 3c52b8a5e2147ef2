"""Sixty-four keep-alive clients for minutes, and a thousand connections at once, on a store of 200,000 memories."""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from http_load import http, press

from fixtures.cluster import DURABLE, cluster
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import Sidecar
from http_sidecar import address, serving
from memory_plugin.installer import api, settings

DIMENSIONS = 384
NAMESPACES = 1000
# One in ten with an embedding, which is what the graph holds.
FILL = """
insert into memory_plugin.memory_namespaces (name, kind)
select 'workspace:' || n, 'workspace' from generate_series(0, {namespaces} - 1) as n;
insert into memory_plugin.memory_records (namespace, content, kind, source, created_at, embedding)
select 'workspace:' || i % {namespaces},
    'Memory ' || i || ': ' || (
        select string_agg('w' || substr(md5((i * 31 + w)::text), 1, 3), ' ') from generate_series(1, 20) as w
    ),
    (array['fact', 'summary', 'checkpoint'])[1 + i % 3], 'agent', '2026-01-01'::timestamptz + i * interval '1 second',
    case when i % 10 = 0 then (
        select array_agg(sin(i * d)::real)::memory_plugin.vector from generate_series(1, {dimensions}) as d
    ) end
from generate_series(1, {memories}) as i;
vacuum analyze memory_plugin.memory_records
"""


@dataclass(frozen=True)
class Loaded:
    """What the clients saw, and what the sidecar took meanwhile."""

    requests: int
    requests_s: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    resident_mb: float
    drift: float
    """Of the resident memory: the last tenth of the time over the second tenth, less one."""
    connections: int


@contextmanager
def filled(memories: int) -> Iterator[tuple[Server, Sidecar]]:
    """Run a server that keeps what it acknowledges, fill a store, and serve it."""
    tuning = {**DURABLE, "shared_buffers": "512MB", "max_wal_size": "4GB"}
    with (
        cluster("torture", embedded_bin_dir(18), tuning) as server,
        tempfile.TemporaryDirectory(prefix="mp-torture-") as folder,
    ):
        api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": server.url()}, dimensions=str(DIMENSIONS)))
        with psycopg.connect(server.url(), autocommit=True) as conn:
            for statement in FILL.format(namespaces=NAMESPACES, dimensions=DIMENSIONS, memories=memories).split(";"):
                conn.execute(statement.encode())
        with serving(server.url(), Path(folder) / "sidecar.log") as sidecar:
            yield server, sidecar


def mixed(count: int = 4000, seed: int = 11) -> list[bytes]:
    """Return requests: 70 % searches of three kinds, 25 % commits, 5 % of everything else."""
    rng = random.Random(seed)  # noqa: S311
    made = []
    for _ in range(count):
        name, chance = f"workspace:{rng.randrange(NAMESPACES)}", rng.random()
        if chance < 0.7:
            body: dict[str, object] = {"namespaces": [name], "limit": 10}
            if chance < 0.5:
                body["query"] = f"w{rng.randrange(4096):03x} w{rng.randrange(4096):03x}"
            if chance < 0.2:
                body["embedding"] = [round(rng.gauss(0, 1), 4) for _ in range(DIMENSIONS)]
            made.append(http("POST", "/v1/search", body))
        elif chance < 0.95:
            memory = {"content": f"a note of {rng.random()}", "kind": "fact", "source": "agent"}
            made.append(http("POST", f"/v1/namespaces/{name}/memories", memory))
        elif chance < 0.97:
            made.append(http("GET", "/v1/health", ""))
        elif chance < 0.99:
            made.append(http("PATCH", f"/v1/namespaces/{name}", {"metadata": {"seen": rng.randrange(100)}}))
        else:
            made.append(http("PUT", f"/v1/namespaces/{name}", {"kind": "workspace"}))
    return made


def resident_mb(process: int) -> float:
    """Return what a process and its children hold in memory."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    total = 0
    for pid in (process, *map(int, children)):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def run(server: Server, sidecar: Sidecar, seconds: float, clients: int = 64) -> Loaded:
    """Keep the clients busy; any answer but 2xx is an error of http_load's and ends the run."""
    held: list[float] = []
    connections: list[int] = []
    over = threading.Event()

    def watch() -> None:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            while not over.wait(min(1.0, seconds / 50)):
                held.append(resident_mb(sidecar.process.pid))
                row = conn.execute(
                    "select count(*) from pg_stat_activity where application_name = 'memory-plugin'"
                ).fetchone()
                connections.append(row[0] if row else 0)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        load, _ = press(address(sidecar)[1], mixed(), clients, seconds)
    finally:
        over.set()
        watching.join()
    ordered = sorted(load.latencies)
    tenth = max(1, len(held) // 10)
    early, late = held[tenth : 2 * tenth], held[-tenth:]
    return Loaded(
        requests=len(ordered),
        requests_s=round(load.requests_s, 1),
        p50_ms=round(ordered[len(ordered) // 2], 1),
        p99_ms=round(ordered[int(len(ordered) * 0.99)], 1),
        slowest_ms=round(ordered[-1], 1),
        resident_mb=round(held[-1], 1),
        drift=round(sum(late) / len(late) / (sum(early) / len(early)) - 1, 4),
        connections=max(connections),
    )


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.readline()
    finally:
        writer.close()


async def _one(host: str, port: int, request: bytes) -> tuple[str, float]:
    """Connect, ask once, and say what came and how many seconds after the start of the connection."""
    began = time.monotonic()
    try:
        line = await asyncio.wait_for(_first_line(host, port, request), 30)
    except (TimeoutError, asyncio.TimeoutError):
        return "no answer", time.monotonic() - began
    except OSError:
        return "refused", time.monotonic() - began
    words = line.split()
    return (words[1].decode() if len(words) > 1 else "cut"), time.monotonic() - began


def herd(sidecar: Sidecar, size: int) -> tuple[dict[str, int], float]:
    """Open so many connections at once, one search on each; return what came back and the slowest answer's seconds."""
    request = http("POST", "/v1/search", {"namespaces": ["workspace:1"], "limit": 5})

    async def together() -> list[tuple[str, float]]:
        host, port = address(sidecar)
        return await asyncio.gather(*(_one(host, port, request) for _ in range(size)))

    answers = asyncio.run(together())
    return dict(Counter(outcome for outcome, _ in answers)), max(seconds for _, seconds in answers)
