"""Requests a second through the door: this sidecar, beside any other program that serves the same paths with plain SQL.

python bench/throughput.py --server-url URL [--yardstick PROGRAM] [--rows N] [--seconds S] [--rounds N] [--json FILE]

URL names a maintenance database of a server where databases may be made; two are, and dropped at the end: one with the
store installed, one with the plain tables (memory_namespaces, memory_records with HNSW over embedding, GIN over
content_tsv) that PROGRAM, a sidecar told its database and address by MEMORY_PLUGIN_DATABASE_URL and
MEMORY_PLUGIN_LISTEN_ADDR, queries with unqualified SQL. Both hold the same memories: a quarter in one org, the
rest in teams of a fortieth and workspaces of a hundred. Without PROGRAM that half is left out, by name.

One process keeps --clients connections busy (it asks again as an answer arrives). Both systems are measured in turn, a
few seconds at a time, so that whatever slows the machine slows both; printed are medians over the rounds. Searches name
a workspace and its team; questions are three words of one memory; embeddings are near one. rows: how many a search
gives back; recall: the share of the ten nearest, by brute force, among them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import server
import systems
from http_load import Load, http, press, serving
from psycopg import sql

PLAIN = """
create table memory_namespaces (
    name text primary key, kind text not null, expires_at timestamptz, metadata jsonb,
    created_at timestamptz not null default now()
);
create table memory_records (
    id uuid primary key default gen_random_uuid(),
    namespace text not null references memory_namespaces (name) on delete cascade,
    content text not null, kind text not null, source text not null, expires_at timestamptz, propagation jsonb,
    pin boolean not null default false, embedding vector({dimensions}),
    content_tsv tsvector generated always as (to_tsvector('english', content)) stored,
    created_at timestamptz not null default now()
);
"""
PLAIN_INDEXES = (
    "create index on memory_records (namespace, pin desc, created_at desc)",
    "create index on memory_records using gin (content_tsv)",
    "create index on memory_records using hnsw (embedding vector_cosine_ops)",
)
SEARCHES = ("listing", "query", "embedding")
OPERATIONS = (*SEARCHES, "commit", "commit with embedding")
REQUESTS_A_KIND = 400


@dataclass(frozen=True)
class Data:
    """The memories of the bench and what is asked of them."""

    namespaces: list[str]
    contents: list[str]
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    requests: dict[str, list[bytes]]
    nearest: list[set[str]]


def literal(vector: Any) -> str:
    """Return a vector as JSON and pgvector both write it."""
    return "[" + ",".join(f"{number:.6g}" for number in vector) + "]"


def data(rows: int, dimensions: int, seed: int = 7) -> Data:
    """Make the memories, deterministically: words by Zipf's law, vectors in clusters."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{c}{v}{d}{i}" for i, (c, v, d) in enumerate(rng.choice(list("bdfgklmnprst"), (20000, 3)))])
    weights = 1 / np.arange(1, len(words) + 1)
    drawn = rng.choice(len(words), (rows, 40), p=weights / weights.sum())
    lengths = 10 + rng.integers(0, 30, rows)
    contents = [" ".join(words[row[:length]]) for row, length in zip(drawn, lengths, strict=True)]
    teams = [f"team:{i}" for i in range(10)]
    namespaces = ["org:all"] * (rows // 4)
    namespaces += [teams[i % 10] for i in range(rows // 4)]
    namespaces += [f"workspace:{i // 100}" for i in range(rows - len(namespaces))]
    centres = rng.standard_normal((200, dimensions)).astype(np.float32)
    vectors = centres[rng.integers(0, 200, rows)] + 0.7 * rng.standard_normal((rows, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    requests: dict[str, list[bytes]] = {name: [] for name in OPERATIONS}
    nearest: list[set[str]] = []
    names = np.array(namespaces)
    members = {team: np.flatnonzero(names == team) for team in teams}
    workspaces = [f"workspace:{i}" for i in range((rows - rows // 4 * 2) // 100)]
    members |= {name: np.flatnonzero(names == name) for name in workspaces}
    for i in range(REQUESTS_A_KIND):
        both = [workspaces[i % len(workspaces)], teams[i % 10]]
        inside = np.concatenate([members[name] for name in both])
        row = int(rng.choice(inside))
        near = vectors[row] + 0.5 * rng.standard_normal(dimensions).astype(np.float32) / np.sqrt(dimensions)
        start = int(rng.integers(0, 7))
        question = " ".join(contents[row].split()[start : start + 3])
        requests["listing"].append(http("POST", "/v1/search", {"namespaces": both}))
        requests["query"].append(http("POST", "/v1/search", {"namespaces": both, "query": question, "limit": 10}))
        asked = f'{{"namespaces":{json.dumps(both)},"limit":10,"embedding":{literal(near)}}}'
        requests["embedding"].append(http("POST", "/v1/search", asked))
        similar = vectors[inside] @ near
        nearest.append({contents[j] for j in inside[np.argsort(-similar)[:10]]})
        memory = {"content": contents[int(rng.integers(0, rows))], "kind": "fact", "source": "agent"}
        path = f"/v1/namespaces/{both[0]}/memories"
        requests["commit"].append(http("POST", path, memory))
        written = json.dumps(memory)[:-1] + f',"embedding":{literal(near)}}}'
        requests["commit with embedding"].append(http("POST", path, written))
    return Data(namespaces, contents, vectors, requests, nearest)


def load(url: str, made: Data, schema: str) -> None:
    """Copy the memories into the tables of a schema."""
    with psycopg.connect(url) as conn, conn.cursor() as cursor:
        cursor.execute(sql.SQL("set search_path = {}, memory_plugin, public").format(sql.Identifier(schema)))
        names = sorted(set(made.namespaces))
        cursor.executemany(
            "insert into memory_namespaces (name, kind) values (%s, %s)", [(n, n.partition(":")[0]) for n in names]
        )
        columns = "id, namespace, content, kind, source, created_at, embedding"
        rng = np.random.default_rng(1)
        with cursor.copy(f"copy memory_records ({columns}) from stdin") as copy:
            for i, (namespace, content, vector) in enumerate(
                zip(made.namespaces, made.contents, made.vectors, strict=True)
            ):
                identifier = rng.bytes(16).hex()
                moment = f"2026-01-01 {i // 3600 % 24:02}:{i // 60 % 60:02}:{i % 60:02}Z"
                copy.write_row((identifier, namespace, content, "fact", "agent", moment, literal(vector)))


def returned(port: int, made: Data, name: str) -> dict[str, float]:
    """Return the mean number of rows of a kind of search and, by embedding, of the true ten nearest among them."""
    if name not in SEARCHES:
        return {}
    _, bodies = press(port, made.requests[name], 1, 0, keep=True)
    found = [[memory["content"] for memory in json.loads(body)["memories"]] for body in bodies]
    figures = {"rows": round(statistics.mean(map(len, found)), 2)}
    if name == "embedding":
        shares = [len(near.intersection(rows)) / len(near) for rows, near in zip(found, made.nearest, strict=True)]
        figures["recall"] = round(statistics.mean(shares), 4)
    return figures


def ours(url: str, made: Data) -> None:
    """Fill the store, its graph made afterwards."""
    with psycopg.connect(url, autocommit=True) as conn, systems.indexes_away(conn, "memory_plugin"):
        load(url, made, "memory_plugin")


def plain(url: str, made: Data, dimensions: int) -> None:
    """Make the plain tables, fill them, then index them."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(PLAIN.format(dimensions=dimensions).encode())
    load(url, made, "public")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set maintenance_work_mem = '1GB'")
        for statement in PLAIN_INDEXES:
            conn.execute(statement.encode())


def main() -> int:
    """Measure; print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", required=True)
    parser.add_argument("--yardstick", default="", help="the other sidecar: a program")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=1536)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(OPERATIONS))
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    made = data(options.rows, options.dimensions)
    with ExitStack() as stack:
        url = stack.enter_context(server.store(options.server_url, options.dimensions))
        ours(url, made)
        sidecars = {"memory-plugin": ([sys.executable, "-m", "memory_plugin.thin_api"], url)}
        if options.yardstick:
            url = stack.enter_context(server.database(options.server_url))
            plain(url, made, options.dimensions)
            # Go's driver asks for TLS unless told not to, even on a Unix socket.
            sidecars["yardstick"] = ([options.yardstick], url if "sslmode=" in url else f"{url}&sslmode=disable")
        else:
            sys.stdout.write("skipped the other sidecar: --yardstick names no program\n")
        for _, url in sidecars.values():
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute("vacuum analyze")
        ports = {name: stack.enter_context(serving(*sidecar)) for name, sidecar in sidecars.items()}
        figures = measure(ports, made, options)
    report(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(ports: dict[str, int], made: Data, options: argparse.Namespace) -> dict[str, Any]:
    """Return, for each operation and system, the medians over the rounds."""
    figures: dict[str, Any] = {
        "rows": options.rows,
        "dimensions": options.dimensions,
        "clients": options.clients,
        "operations": {},
    }
    for name in options.only.split(","):
        rounds: dict[str, list[Load]] = {system: [] for system in ports}
        for turn in range(options.rounds + 1):
            for system in sorted(ports, reverse=turn % 2 == 1):
                loaded, _ = press(ports[system], made.requests[name], options.clients, options.seconds)
                if turn:
                    rounds[system].append(loaded)
        figures["operations"][name] = {
            system: {
                "requests_s": round(statistics.median(one.requests_s for one in all_rounds), 1),
                "p50_ms": round(statistics.median(statistics.median(one.latencies) for one in all_rounds), 2),
                "p99_ms": round(statistics.median(np.percentile(one.latencies, 99) for one in all_rounds), 2),
                **returned(ports[system], made, name),
            }
            for system, all_rounds in rounds.items()
        }
        if "yardstick" in ports:
            ratios = [
                mine.requests_s / theirs.requests_s
                for mine, theirs in zip(rounds["memory-plugin"], rounds["yardstick"], strict=True)
            ]
            figures["operations"][name]["ratio"] = round(statistics.median(ratios), 3)
    return figures


def report(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    sys.stdout.write(
        f"{'':24}{'system':16}{'requests/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'rows':>7}{'recall':>8}{'ratio':>7}\n"
    )
    for name, by_system in figures["operations"].items():
        for system in (key for key in by_system if key != "ratio"):
            one = by_system[system]
            ratio = by_system.get("ratio", "") if system == "memory-plugin" else ""
            sys.stdout.write(
                f"{name:24}{system:16}{one['requests_s']:>11}{one['p50_ms']:>9}{one['p99_ms']:>9}"
                f"{one.get('rows', ''):>7}{one.get('recall', ''):>8}{ratio:>7}\n"
            )


if __name__ == "__main__":
    sys.exit(main())
