"""Recall of search by embedding over data of other shapes than that of semantic.py.

python bench/shapes.py [--server-url URL] [--size tiny|full] [--shapes NAME,…] [--json FILE]

A store for each shape, its rows written one after another in an order of chance, one in ten a summary and the others
facts, half of the namespaces about twelve topics, the others about all 400, some of which are talked of much more than
others. Shapes: `cone`, every embedding near to every other, as some models make them; `manifold`, few directions;
`tight`, near-copies; `flat`, few directions and no topics. Asked are questions like the rows (`own topic`), about any
topic (`any topic`), and about nothing of the kind (`stranger`), each also by an exact scan.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import server
from numpy.typing import NDArray
from rows import literal

Vectors = NDArray[np.float64]
TOPICS, DIRECTIONS = 400, 24
# Namespaces of fewer rows are compared anyway, and only fill the graph.
COMPARED = 6000
SHAPES = ("cone", "manifold", "tight", "flat")
# Dimensions, namespaces of how many rows, questions of each class.
SIZES: dict[str, tuple[int, list[tuple[int, int]], int]] = {
    "tiny": (32, [(1, 6500), (1, 300)], 24),
    "full": (384, [(1, 40_000), (2, 12_000), (4, 3000)], 100),
}
OURS = "select id from memory_plugin.search(array[%(n)s], embedding => %(e)s::{v}.vector, max_results => 10)"
SCAN = """
select id from memory_plugin.memory_records
where namespace = %(n)s and (expires_at is null or expires_at > now())
order by (embedding operator({v}.<=>) %(e)s::{v}.vector) + 0, created_at desc, id limit 10
"""
ANSWER = """
select (memory_plugin.v1_search(json_build_object('namespaces', array[%(n)s], 'embedding', %(e)s::json, 'limit', 10))
    -> 'search' ->> 'exact')::boolean
"""


class Data:
    """Rows of one shape, in namespaces, and questions about them."""

    def __init__(self, shape: str, dimensions: int, spaces: list[tuple[int, int]]) -> None:
        """Draw what the shape is made of and which topics each namespace has."""
        self.shape, self.dimensions = shape, dimensions
        self.rng = np.random.default_rng(3)
        self.sizes = [size for count, size in spaces for _ in range(count)]
        self.names = [f"team:{number}-of-{size}" for number, size in enumerate(self.sizes)]
        self.middle = self.rng.standard_normal(dimensions)
        self.directions = self.rng.standard_normal((DIRECTIONS, dimensions)) / np.sqrt(DIRECTIONS)
        self.places = self.rng.standard_normal((TOPICS, DIRECTIONS))
        self.centres = _unit(self.rng.standard_normal((TOPICS, dimensions)))
        weights = 1 / np.arange(1, TOPICS + 1) ** 0.8
        self.topics = [
            np.arange(TOPICS) if number % 2 == 0 else self.rng.choice(TOPICS, 12, replace=False)
            for number in range(len(self.names))
        ]
        self.weights = [weights[topics] / weights[topics].sum() for topics in self.topics]

    def about(self, number: int, count: int) -> NDArray[np.int64]:
        """Return topics of a namespace, as often as they are talked of there."""
        return self.rng.choice(self.topics[number], count, p=self.weights[number])

    def draw(self, topics: NDArray[np.int64]) -> Vectors:
        """Return a unit vector for each topic."""
        count = len(topics)
        along = self.rng.standard_normal((count, DIRECTIONS))
        noise = self.rng.standard_normal((count, self.dimensions))
        if self.shape == "cone":
            return _unit(1.6 * self.middle + (self.places[topics] + 0.6 * along) @ self.directions + 0.35 * noise)
        if self.shape == "manifold":
            return _unit((self.places[topics] + 0.7 * along) @ self.directions + 0.15 * noise)
        if self.shape == "tight":
            width = 0.05 + 0.4 * self.rng.random((count, 1)) ** 2
            return _unit(self.centres[topics] + width * noise / np.sqrt(self.dimensions))
        return _unit(along @ self.directions + 0.1 * noise)

    def stranger(self) -> Vectors:
        """Return a unit vector that is like no row, but for what all rows have in common."""
        noise = self.rng.standard_normal((1, self.dimensions))
        return _unit(1.6 * self.middle + noise if self.shape == "cone" else noise)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def load(url: str, data: Data) -> None:
    """Write the rows of all namespaces in an order of chance, over two connections, the graph growing with them."""
    order = data.rng.permutation(np.repeat(np.arange(len(data.names)), data.sizes))
    topics = np.empty(len(order), dtype=np.int64)
    for number in range(len(data.names)):
        of = np.flatnonzero(order == number)
        topics[of] = data.about(number, len(of))
    vectors = data.draw(topics)
    kinds = np.where(data.rng.random(len(order)) < 0.1, "summary", "fact")
    statement = "copy memory_plugin.memory_records (namespace, content, kind, source, embedding) from stdin"

    def write(first: int) -> None:
        with psycopg.connect(url) as conn, conn.cursor().copy(statement.encode()) as copy:
            for at in range(first, len(order), 2):
                name = data.names[order[at]]
                copy.write_row([name, f"memory {at}", kinds[at], "agent", literal(vectors[at])])

    with psycopg.connect(url, autocommit=True) as conn:
        conn.cursor().executemany("select memory_plugin.upsert_namespace(%s, 'team')", [(name,) for name in data.names])
        with ThreadPoolExecutor(2) as both:
            list(both.map(write, range(2)))
        conn.execute("vacuum analyze")


def asked(
    conn: psycopg.Connection[Any], vector: str, data: Data, size: int, *, few: bool, about: str, count: int
) -> dict[str, Any]:
    """Ask questions of one class; return what was found of the exact answers and how long both took."""
    ours, scan = (text.format(v=vector).encode() for text in (OURS, SCAN))
    numbers = [n for n, s in enumerate(data.sizes) if s == size and (len(data.topics[n]) < TOPICS) == few]
    found, said, took, scanned = [], [], [], []
    for _ in range(count):
        number = int(data.rng.choice(numbers))
        topics = data.about(number, 1) if about == "own topic" else data.rng.integers(TOPICS, size=1)
        question = data.stranger() if about == "stranger" else data.draw(topics)
        values = {"n": data.names[number], "e": literal(question[0])}
        began = time.perf_counter()
        answer = {row[0] for row in conn.execute(ours, values)}
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
        exact = {row[0] for row in conn.execute(scan, values)}
        scanned.append(time.perf_counter() - began)
        found.append(len(answer & exact) / len(exact))
        said.append(bool(conn.execute(ANSWER, values).fetchall()[0][0]))
    return {
        "class": f"{size:,} rows, {'twelve topics' if few else 'all topics'}, {about}",
        "questions": count,
        "recall": round(float(np.mean(found)), 4),
        "worst_question": min(found),
        "said_exact": round(float(np.mean(said)), 3),
        "p50_ms": round(float(np.median(took)) * 1000, 3),
        "scan_p50_ms": round(float(np.median(scanned)) * 1000, 3),
    }


def measured(url: str, data: Data, count: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of every class."""
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as conn:
        # Ours has no use for a second processor either.
        conn.execute("set max_parallel_workers_per_gather = 0")
        place = "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
        ((vector,),) = conn.execute(place).fetchall()
        for size in sorted({size for size in data.sizes if size > COMPARED}):
            for few in sorted({len(t) < TOPICS for t, s in zip(data.topics, data.sizes, strict=True) if s == size}):
                for about in ("own topic", "any topic", "stranger"):
                    yield asked(conn, vector, data, size, few=few, about=about, count=count)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-url")
    parser.add_argument("--size", choices=sorted(SIZES), default="full")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dimensions, spaces, count = SIZES[options.size]
    shapes: dict[str, Any] = {}
    with server.server(options.server_url) as url:
        for shape in options.shapes.split(","):
            data = Data(shape, dimensions, spaces)
            with server.store(url, dimensions) as made:
                load(made, data)
                server.warm(made)
                shapes[shape] = []
                for figures in measured(made, data, count):
                    shapes[shape].append(figures)
                    sys.stdout.write(
                        "{0:9s}{class:40s} recall {recall:.4f}, worst {worst_question:.1f}, exact {said_exact:.2f}; "
                        "{p50_ms:.1f} ms, scan {scan_p50_ms:.1f} ms\n".format(shape, **figures)
                    )
                    sys.stdout.flush()
        if options.json:
            text = {"server": server.described(url), "dimensions": dimensions, "shapes": shapes}
            options.json.write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
