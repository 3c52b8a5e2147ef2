"""A store of 200,000 memories, the requests that sixty-four clients send it for minutes, and what that came to."""

from __future__ import annotations

import random
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from clients import Request, Seen, press
from http_load import http

from fixtures.cluster import DURABLE, cluster
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import Sidecar
from http_sidecar import address, serving
from memory_plugin.installer import api, settings

DIMENSIONS = 384
NAMESPACES = 1000
# Of the namespaces, the first holds a tenth of all memories, the last ones a few each. One memory in ten has an
# embedding, which is what the graph holds.
FILL = """
insert into memory_plugin.memory_namespaces (name, kind)
select 'workspace:' || n, 'workspace' from generate_series(0, {namespaces} - 1) as n;
insert into memory_plugin.memory_records (namespace, content, kind, source, created_at, embedding)
select 'workspace:' || floor({namespaces} * power((i * 0.6180339887) % 1, 3))::integer,
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
# The first minute fills caches; the least that is compared is two half minutes after it.
WARM_UP, STRETCH = 60.0, 30.0


@dataclass(frozen=True)
class Loaded:
    """What the clients saw, and what the sidecar took meanwhile."""

    seen: Seen
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    resident_mb: float
    drift: float | None
    """Of the resident memory, from after the first minute to the end; None where the load was too short to tell."""
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
            conn.execute("set statement_timeout = '30min'")
            for statement in FILL.format(namespaces=NAMESPACES, dimensions=DIMENSIONS, memories=memories).split(";"):
                conn.execute(statement.encode())
        with serving(server.url(), Path(folder) / "sidecar.log") as sidecar:
            yield server, sidecar


def _request(method: str, path: str, body: object, *allowed: int) -> Request:
    return Request(http(method, path, body), frozenset(allowed))


def mixed(count: int = 4000, seed: int = 11) -> list[Request]:
    """Return requests: 70 % searches of four kinds, 25 % commits of three kinds, 5 % of everything else."""
    rng = random.Random(seed)  # noqa: S311
    made: list[Request] = []
    # Ids of the clients' own: committed, committed again, forgotten, in whatever order the clients come to it.
    ids = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(100)]

    def name() -> str:
        return f"workspace:{int(NAMESPACES * rng.random() ** 3)}"

    def embedding() -> list[float]:
        return [round(rng.gauss(0, 1), 4) for _ in range(DIMENSIONS)]

    for _ in range(count):
        chance = rng.random()
        if chance < 0.70:
            body: dict[str, object] = {"namespaces": [name() for _ in range(rng.choice((1, 1, 1, 3)))], "limit": 10}
            if chance < 0.55:
                body["query"] = f"w{rng.randrange(4096):03x} w{rng.randrange(4096):03x}"
            if chance < 0.20 or chance > 0.65:
                body["embedding"] = embedding()
            made.append(_request("POST", "/v1/search", body, 200))
        elif chance < 0.95:
            where = name()
            memory: dict[str, object] = {"content": f"a note of {rng.random()}", "kind": "fact", "source": "agent"}
            if chance > 0.92:
                number = rng.randrange(len(ids))
                where, memory["id"] = f"team:own-{number % 10}", ids[number]
            elif chance > 0.88:
                memory["embedding"] = embedding()
            elif chance > 0.87:
                where = f"team:scratch-{rng.randrange(5)}"
            made.append(_request("POST", f"/v1/namespaces/{where}/memories", memory, 201))
        elif chance < 0.96:
            made.append(_request("GET", "/v1/health", "", 200))
        elif chance < 0.97:
            made.append(_request("PATCH", f"/v1/namespaces/{name()}", {"metadata": {"seen": rng.randrange(100)}}, 200))
        elif chance < 0.98:
            made.append(_request("PUT", f"/v1/namespaces/{name()}", {"kind": "workspace"}, 200))
        elif chance < 0.99:
            number = rng.randrange(len(ids))
            asks = {"requested_by_namespace": f"team:own-{number % 10}"}
            made.append(_request("DELETE", f"/v1/memories/{ids[number]}", asks, 204, 404))
        else:
            made.append(_request("DELETE", f"/v1/namespaces/team:scratch-{rng.randrange(5)}", "", 204, 404))
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


def drift(held: list[tuple[float, float]], seconds: float) -> float | None:
    """Return by how much memory grew from just after the first minute to the end: held is (seconds, MB) in order."""
    early = [size for at, size in held if WARM_UP <= at < WARM_UP + STRETCH]
    late = [size for at, size in held if at >= seconds - STRETCH]
    if seconds < WARM_UP + 2 * STRETCH or not early or not late:
        return None
    return round(sum(late) / len(late) / (sum(early) / len(early)) - 1, 4)


def run(server: Server, sidecar: Sidecar, seconds: float, clients: int = 64) -> Loaded:
    """Keep the clients busy, and look once a second at what that takes."""
    held: list[tuple[float, float]] = []
    connections: list[int] = []
    over = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        with psycopg.connect(server.url(), autocommit=True) as conn:
            while True:
                held.append((time.monotonic() - began, resident_mb(sidecar.process.pid)))
                row = conn.execute(
                    "select count(*) from pg_stat_activity where application_name = 'memory-plugin'"
                ).fetchone()
                connections.append(row[0] if row else 0)
                if over.wait(min(1.0, seconds / 50)):
                    return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        seen = press(address(sidecar), mixed(), clients, seconds)
    finally:
        over.set()
        watching.join(30)
    ordered = sorted(seen.latencies) or [0.0]
    return Loaded(
        seen=seen,
        p50_ms=round(ordered[len(ordered) // 2], 1),
        p99_ms=round(ordered[int(len(ordered) * 0.99)], 1),
        slowest_ms=round(ordered[-1], 1),
        resident_mb=round(held[-1][1], 1),
        drift=drift(held, seconds),
        connections=max(connections),
    )
