"""The rows that semantic.py measures: in clusters (topics), and in namespaces that hold a few topics or all of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
TOPICS = 256
FOREIGN = TOPICS
"""A topic that no row is about."""
KINDS = ("fact", "summary", "checkpoint")


class Table:
    """The rows of one table, in namespaces, and where questions come from."""

    def __init__(self, dimensions: int, spaces: list[tuple[int, int]]) -> None:
        """Draw the topics of each namespace."""
        rng = np.random.default_rng(7)
        self.dimensions = dimensions
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.topics: list[NDArray[np.int64]] = []
        for count, size in spaces:
            for number in range(count):
                own = number % 2 == 1 or (count == 1 and size < 100_000 and len(self.names) % 2 == 1)
                self.names.append(f"team:{size}-{number}{'-own' if own else ''}")
                self.sizes.append(size)
                self.topics.append(rng.choice(TOPICS, 8, replace=False) if own else np.arange(TOPICS))
        self.centres = rng.standard_normal((TOPICS, dimensions)).astype("f4")
        self.centres /= np.linalg.norm(self.centres, axis=1, keepdims=True)
        # Within a topic most of the spread lies in a few directions, as it does in embeddings of text.
        self.spread = rng.standard_normal((TOPICS, 16, dimensions)).astype("f4") / np.sqrt(dimensions)
        foreign = rng.standard_normal((1, dimensions)).astype("f4")
        self.centres = np.concatenate([self.centres, foreign / np.linalg.norm(foreign)])
        self.spread = np.concatenate(
            [self.spread, rng.standard_normal((1, 16, dimensions)).astype("f4") / np.sqrt(dimensions)]
        )

    def draw(self, rng: np.random.Generator, topics: NDArray[np.int64]) -> Vectors:
        """Return a unit vector for each topic, (len(topics), dimensions)."""
        weights = 1 / np.sqrt(np.arange(1, 17))
        weights = 0.6 * weights / np.linalg.norm(weights)
        noise = rng.standard_normal((len(topics), self.dimensions)).astype("f4") * (0.5 / np.sqrt(self.dimensions))
        out = self.centres[topics] + noise
        along = (rng.standard_normal((len(topics), 16)) * weights).astype("f4")
        for topic in np.unique(topics):
            of = topics == topic
            out[of] += along[of] @ self.spread[topic]
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), dtype="f4")

    def batches(self, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        """Yield (namespace numbers, vectors) of all rows in an order of chance."""
        order = rng.permutation(np.repeat(np.arange(len(self.names)), self.sizes))
        for at in range(0, len(order), 20_000):
            of = order[at : at + 20_000]
            yield of, self.draw(rng, np.array([rng.choice(self.topics[number]) for number in of]))


def load(url: str, table: Table) -> None:
    """Write the rows of a table into a store, its graph made afterwards, and delete some."""
    rng = np.random.default_rng(11)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set maintenance_work_mem = '3GB'")
        graph = "memory_plugin.memory_vectors_embedding"
        definition = conn.execute("select pg_get_indexdef(%s::regclass)", [graph]).fetchall()[0]
        conn.execute(f"drop index {graph}".encode())
        conn.cursor().executemany(
            "insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'team')", [(n,) for n in table.names]
        )
        statement = (
            "copy memory_plugin.memory_records (namespace, id, content, kind, source, expires_at, embedding) "
            "from stdin (format binary)"
        )
        with conn.cursor().copy(statement) as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
            for numbers, vectors in table.batches(rng):
                copy.write(_binary(table, rng, numbers, vectors))
            copy.write(struct.pack("!h", -1))
        conn.execute(definition[0])
        # Vacuum mends the graph around each deleted row, on one core: of the largest tables most wait for the next one.
        large = sum(table.sizes) > 500_000
        delete = "delete from memory_plugin.memory_records where get_byte(uuid_send(id), 3) < "
        conn.execute(f"{delete} {1 if large else 8}".encode())
        conn.execute("vacuum (freeze, analyze)")
        conn.execute(f"{delete} 8".encode())
        # As autovacuum does of so many deleted rows, which is off here: this table is set to be vacuumed soon.
        conn.execute("vacuum memory_plugin.memory_sketches")


def _binary(table: Table, rng: np.random.Generator, numbers: NDArray[np.int64], vectors: Vectors) -> bytes:
    """Return rows in the form of a binary COPY."""
    kinds, expired, ids = rng.random(len(numbers)), rng.random(len(numbers)) < 0.5, rng.bytes(16 * len(numbers))
    out = []
    for at, number in enumerate(numbers):
        kind = KINDS[0 if kinds[at] < 0.7 else 1 if kinds[at] < 0.9 else 2]
        content = b"What was said of matter %d, in as many words as people use for such things" % at
        parts = [table.names[number].encode(), ids[16 * at : 16 * at + 16], content, kind.encode(), b"agent"]
        # 2001-01-01, or none
        parts.append(struct.pack("!q", 366 * 86_400_000_000) if expired[at] else None)
        parts.append(struct.pack("!hh", table.dimensions, 0) + vectors[at].astype(">f4").tobytes())
        out.append(struct.pack("!h", 7))
        out += [struct.pack("!i", -1) if part is None else struct.pack("!i", len(part)) + part for part in parts]
    return b"".join(out)


def searched(dimensions: int) -> str:
    """Return what plain SQL has an index of: the embedding, in half precision where hnsw takes it only so."""
    return "embedding" if dimensions <= 2000 else f"embedding::halfvec({dimensions})"


def without(url: str) -> None:
    """Turn a copy of the store into the table that plain SQL has: the same rows, an hnsw index, no copies."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("set maintenance_work_mem = '3GB'")
        conn.execute("drop table memory_plugin.memory_vectors, memory_plugin.memory_sketches")
        conn.execute("drop trigger memory_records_mirror_vector on memory_plugin.memory_records")
        column = "select atttypmod from pg_attribute where attrelid = 'memory_plugin.memory_records'::regclass "
        ((dimensions,),) = conn.execute(f"{column} and attname = 'embedding'".encode()).fetchall()
        indexed = f"({searched(dimensions)}) {'vector' if dimensions <= 2000 else 'halfvec'}_cosine_ops"
        conn.execute(f"create index plain on memory_plugin.memory_records using hnsw ({indexed})".encode())
        conn.execute("vacuum (freeze, analyze)")


@contextmanager
def bare(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Leave the plain table its key and its hnsw index alone, for as long as this lasts."""
    indexes = conn.execute(
        "select format('drop index %s', indexrelid::regclass), pg_get_indexdef(indexrelid) from pg_index "
        "where indrelid = 'memory_plugin.memory_records'::regclass and not indisprimary "
        "and indexrelid <> 'memory_plugin.plain'::regclass"
    ).fetchall()
    triggers = conn.execute(
        "select format('drop trigger %I on %s', tgname, tgrelid::regclass), pg_get_triggerdef(oid) from pg_trigger "
        "where tgrelid = 'memory_plugin.memory_records'::regclass and not tgisinternal"
    ).fetchall()
    for drop, _ in [*triggers, *indexes]:
        conn.execute(drop)
    yield
    for _, make in [*indexes, *triggers]:
        conn.execute(make)
