"""What the sidecar adds to a statement: one request over HTTP against the same call through psycopg, taken in turn.

python bench/sidecar_overhead.py --database-url URL [--requests N] [--clients N]

The database must have the store installed, without memories. A sidecar of its own is started on it. First one client:
the same call by HTTP (one kept connection) and as `select memory_plugin.v1_...(...)` by psycopg, alternately, so that
whatever slows the machine slows both. Then several clients at once, for requests a second. Latencies are medians. A
namespace holds a hundred memories to search, another takes what is committed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from http_load import answered, http, press, serving

if TYPE_CHECKING:
    from typing_extensions import LiteralString

WARM_UP = 200
MEMORIES = 100
SEARCHED, WRITTEN = "workspace:bench", "workspace:bench-written"


@dataclass(frozen=True)
class Call:
    """A request, and the same as SQL."""

    method: str
    path: str
    statement: LiteralString
    body: str = ""
    before: tuple[str, ...] = ()
    """Parameters of the statement before the body."""

    @property
    def request(self) -> bytes:
        """Return the bytes of the request."""
        return http(self.method, self.path, self.body)

    @property
    def parameters(self) -> list[str]:
        """Return the parameters of the statement."""
        return [*self.before, *([self.body] if self.body else [])]


def calls(dimensions: int) -> dict[str, Call]:
    """Return what is measured, by name."""

    def search(**asked: object) -> Call:
        body = json.dumps({"namespaces": [SEARCHED], **asked})
        return Call("POST", "/v1/search", "select memory_plugin.v1_search(%s::json)", body)

    def commit(**more: object) -> Call:
        body = json.dumps(
            {"content": "The harbour master keeps a log of tides", "kind": "fact", "source": "agent", **more}
        )
        path = f"/v1/namespaces/{WRITTEN}/memories"
        return Call("POST", path, "select memory_plugin.v1_commit_memory(%s::text, %s::json)", body, (WRITTEN,))

    # Any numbers will do, as long as they are as long as an embedding's are.
    embedding = [round(math.sin(place + 1), 7) for place in range(dimensions)]
    return {
        "health": Call("GET", "/v1/health", "select memory_plugin.v1_health()"),
        "listing": search(),
        "query": search(query="harbour log of tides", limit=10),
        "embedding": search(embedding=embedding, limit=10),
        "commit": commit(),
        "commit with embedding": commit(embedding=embedding),
    }


def fill(database: str) -> int:
    """Make the namespaces and the memories that are searched; return how many numbers an embedding has."""
    with psycopg.connect(database, autocommit=True) as conn:
        for name in (SEARCHED, WRITTEN):
            conn.execute("select memory_plugin.upsert_namespace(%s, 'workspace')", [name])
        (dimensions,) = conn.execute(
            "select atttypmod from pg_attribute "
            "where attrelid = 'memory_plugin.memory_records'::regclass and attname = 'embedding'"
        ).fetchall()[0]
        for number in range(MEMORIES):
            content = f"Tide {number} came to the harbour at hour {number % 24}, and the log has it"
            embedding = json.dumps([round(math.cos(number + place), 7) for place in range(dimensions)])
            conn.execute("select memory_plugin.commit_memory(%s, %s, embedding => %s)", [SEARCHED, content, embedding])
    return int(dimensions)


class Client:
    """One kept connection, with as little of a client as will do: it shares the machine with what it measures."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """Send a request and return the body of its response; anything but success is an error."""
        self.sock.sendall(request)
        answer = bytearray()
        while (body := answered(answer)) is None:
            answer += self.sock.recv(65536)
        return body


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def overhead(port: int, database: str, call: Call, count: int) -> dict[str, float]:
    """Return both medians and their difference, in ms."""
    request, parameters = call.request, call.parameters
    client = Client(port)
    with psycopg.connect(database, autocommit=True, prepare_threshold=None) as conn:
        cursor = conn.cursor()
        over_http, direct = [], []
        for turn in range(min(WARM_UP, count) + count):
            asked = seconds(lambda: client.ask(request))
            sql = seconds(lambda: cursor.execute(call.statement, parameters).fetchone())
            if turn >= min(WARM_UP, count):
                over_http.append(asked * 1000)
                direct.append(sql * 1000)
    http_p50, sql_p50 = statistics.median(over_http), statistics.median(direct)
    return {"http_p50_ms": http_p50, "direct_p50_ms": sql_p50, "own_cost_ms": http_p50 - sql_p50}


def throughput(port: int, call: Call, clients: int, length: float) -> dict[str, float]:
    """Return requests a second, p50 and p99 in ms, with so many clients at once."""
    loaded, _ = press(port, [call.request], clients, length)
    taken = sorted(loaded.latencies)
    return {
        "requests_s": loaded.requests_s,
        "p50_ms": taken[len(taken) // 2],
        "p99_ms": taken[int(len(taken) * 0.99)],
    }


def main() -> int:
    """Measure, print a line of JSON a measurement."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", default=os.environ.get("MEMORY_PLUGIN_DATABASE_URL"))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the clients ask at once, for each call")
    options = parser.parse_args()
    if not options.database_url:
        parser.error("--database-url or MEMORY_PLUGIN_DATABASE_URL is needed")
    measured = calls(fill(options.database_url))
    with serving([sys.executable, "-m", "memory_plugin.thin_api"], options.database_url) as port:
        for name, call in measured.items():
            shown = overhead(port, options.database_url, call, options.requests)
            loaded = throughput(port, call, options.clients, options.seconds)
            figures = {key: round(value, 3) for key, value in {**shown, **loaded}.items()}
            sys.stdout.write(json.dumps({"call": name, "clients": options.clients, **figures}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
