"""What a memory takes on disk, part by part, and how long the index over embeddings takes to build.

python bench/sizing.py [--server-url URL] [--size tiny|full] [--json FILE]

Two stores hold the same memories of 300 bytes, one without embeddings and one with a random one each. The parts are
those of docs/operations.md, Sizing. The index is built on one core. FILE gets {"server": {...}, "rows", "dimensions",
"bytes": {PART: bytes a memory}, "index_ms": ms a memory}.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import server
import systems

SIZES = {"tiny": (400, 64), "full": (10000, 1536)}
NAMESPACE = "workspace:sizing"
WORDS = 30000
BYTES = 300
PARTS = """
select
    pg_table_size('memory_plugin.memory_records') as "row",
    pg_indexes_size('memory_plugin.memory_records') as "indexes",
    pg_total_relation_size('memory_plugin.memory_lengths') as "length",
    pg_total_relation_size('memory_plugin.memory_vectors')
    - pg_relation_size('memory_plugin.memory_vectors_embedding') as "copy",
    pg_total_relation_size('memory_plugin.memory_sketches') as "sketch",
    pg_relation_size('memory_plugin.memory_vectors_embedding') as "index"
"""


def texts(rng: np.random.Generator, rows: int) -> list[str]:
    """Return texts of BYTES bytes, of words of which few are common."""
    made = []
    for _ in range(rows):
        words = np.minimum(rng.zipf(1.2, BYTES // 4), WORDS)
        made.append(" ".join(f"w{word:x}" for word in words)[:BYTES])
    return made


def fill(url: str, contents: list[str], embeddings: list[str | None]) -> float:
    """Store the memories; return the seconds that the index over their embeddings took."""
    with systems.connect(url) as conn:
        conn.execute("insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'workspace')", [NAMESPACE])
        with systems.indexes_away(conn, "memory_plugin", "memory_vectors"):
            conn.execute(
                "insert into memory_plugin.memory_records (namespace, content, kind, source, embedding) "
                "select %s, m.content, 'fact', 'agent', m.embedding::vector "
                "from unnest(%s::text[], %s::text[]) as m (content, embedding)",
                [NAMESPACE, contents, embeddings],
            )
        conn.execute("set max_parallel_maintenance_workers = 0")
        began = time.monotonic()
        conn.execute("reindex index memory_plugin.memory_vectors_embedding")
        seconds = time.monotonic() - began
        conn.execute("vacuum analyze")
    return seconds


def parts(url: str) -> dict[str, int]:
    """Return the bytes of each part of a store."""
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as conn:
        (found,) = conn.execute(PARTS).fetchall()
    return found


def measure(server_url: str, rows: int, dimensions: int) -> dict[str, Any]:
    """Fill both stores and return the figures."""
    rng = np.random.default_rng(8)
    contents = texts(rng, rows)
    embeddings: list[str | None] = [
        str([round(float(x), 6) for x in rng.standard_normal(dimensions)]) for _ in range(rows)
    ]
    with server.store(server_url, dimensions) as bare, server.store(server_url, dimensions) as embedded:
        fill(bare, contents, [None] * rows)
        seconds = fill(embedded, contents, embeddings)
        without, having = parts(bare), parts(embedded)
        described = server.described(embedded)
    sizes = {part: without[part] for part in ("row", "indexes", "length")}
    sizes["embedding"] = having["row"] - without["row"]
    sizes |= {part: having[part] for part in ("copy", "sketch", "index")}
    return {
        "server": described,
        "rows": rows,
        "dimensions": dimensions,
        "bytes": {part: round(size / rows) for part, size in sizes.items()},
        "index_ms": round(seconds * 1000 / rows, 2),
    }


def main() -> int:
    """Measure; print the parts, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with server.server(options.server_url) as url:
        figures = measure(url, *SIZES[options.size])
    sys.stdout.writelines(f"{part:12}{size:>8} bytes a memory\n" for part, size in figures["bytes"].items())
    sys.stdout.write(f"{'all':12}{sum(figures['bytes'].values()):>8} bytes a memory\n")
    sys.stdout.write(f"index built in {figures['index_ms']} ms a memory\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
