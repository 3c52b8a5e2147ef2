"""The rows of the comparisons: clustered embeddings and words by Zipf's law, in namespaces of several sizes.

The same numbers each time, from fixed seeds. Every namespace speaks of a few topics of its own and, in a third of its
rows, of any: so a nearest memory of the whole table often lies in another namespace, as between teams of one company.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

TOPICS = 100
WORDS = 20_000
# How far a row lies from the middle of its topic, and a question from a row's topic: cosines of about 0.8.
SPREAD = 0.75


@dataclass(frozen=True)
class Rows:
    """Every memory of the bench: row i has the id UUID(int=i + 1)."""

    names: list[str]
    """The namespaces."""
    space: Integers
    """Of each row, the place of its namespace in `names`."""
    vectors: Floats
    """(rows, dimensions), unit length."""
    contents: list[str]

    def of(self, namespace: int) -> Integers:
        """Return the rows of a namespace."""
        return np.flatnonzero(self.space == namespace)


@dataclass(frozen=True)
class Question:
    """One thing to look for in one namespace."""

    namespace: str
    vector: Floats
    words: str
    nearest: frozenset[int]
    """The rows that belong among the first ten: the ten nearest, and whatever is as near as the tenth."""
    wanted: int
    """How many rows an answer should have: ten, or all where the namespace holds fewer."""


def make(sizes: dict[int, int], dimensions: int, *, seed: int = 20261) -> Rows:
    """Make `sizes[n]` namespaces of n rows each, their rows in mixed order as they would be committed."""
    rng = np.random.default_rng(seed)
    names = [f"team:s{size}-{number}" for size, count in sizes.items() for number in range(count)]
    lengths = [size for size, count in sizes.items() for _ in range(count)]
    space = rng.permutation(np.repeat(np.arange(len(names)), lengths))
    own = rng.integers(0, TOPICS, (len(names), 3))
    topic = np.where(
        rng.random(len(space)) < 1 / 3,
        rng.integers(0, TOPICS, len(space)),
        own[space, rng.integers(0, 3, len(space))],
    )
    centres = _unit(rng.standard_normal((TOPICS, dimensions), dtype=np.float32))
    vectors = _near(centres[topic], rng)
    vocabulary = np.array([word(number) for number in range(WORDS)])
    weights = 1 / np.arange(1, WORDS + 1)
    lengths_in_words = rng.integers(8, 40, len(space))
    drawn = rng.choice(WORDS, int(lengths_in_words.sum()), p=weights / weights.sum())
    pieces = np.split(vocabulary[drawn], np.cumsum(lengths_in_words)[:-1])
    return Rows(names, space, vectors, [" ".join(piece) for piece in pieces])


def ask(rows: Rows, size: int, count: int, *, seed: int) -> list[Question]:
    """Make questions to the namespaces of a size in turn: near one of their rows, three words of it and two others."""
    rng = np.random.default_rng(seed)
    chosen = [place for place, name in enumerate(rows.names) if name.startswith(f"team:s{size}-")]
    members = {place: rows.of(place) for place in chosen}
    asked = []
    for number in range(count):
        place = chosen[number % len(chosen)]
        inside = members[place]
        row = int(rng.choice(inside))
        vector = _near(rows.vectors[row][None, :], rng)[0]
        near = rows.vectors[inside] @ vector
        tenth = np.partition(near, -10)[-10] if len(inside) >= 10 else near.min()
        words = [*rng.choice(rows.contents[row].split(), 3), *(word(int(rng.integers(50, 2000))) for _ in range(2))]
        asked.append(
            Question(
                namespace=rows.names[place],
                vector=vector,
                words=" ".join(words),
                # Single precision: what differs less than this is as near.
                nearest=frozenset(int(found) for found in inside[near >= tenth - 1e-6]),
                wanted=min(10, len(inside)),
            )
        )
    return asked


def copy(conn: psycopg.Connection[Any], rows: Rows) -> None:
    """Put the rows into the table bench_rows (id, namespace, content, embedding)."""
    dimensions = rows.vectors.shape[1]
    conn.execute("create table bench_rows (id uuid, namespace text, content text, embedding vector)")
    head = dimensions.to_bytes(2, "big") + b"\0\0"
    with conn.cursor() as cursor, cursor.copy("copy bench_rows from stdin with (format binary)") as into:
        into.set_types(["bytea", "text", "text", "bytea"])
        for number, (place, vector, content) in enumerate(zip(rows.space, rows.vectors, rows.contents, strict=True), 1):
            into.write_row(
                (number.to_bytes(16, "big"), rows.names[place], content, head + vector.astype(">f4").tobytes())
            )


def literal(vector: Floats) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(map(str, vector.tolist())) + "]"


def _near(centres: Floats, rng: np.random.Generator) -> Floats:
    noise = rng.standard_normal(centres.shape, dtype=np.float32) / np.sqrt(np.float32(centres.shape[1]))
    return _unit(centres + np.float32(SPREAD) * noise)


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    return vectors / lengths


def word(number: int) -> str:
    """Return a pronounceable word of its own for a number."""
    consonants, vowels = "bdfgklmnprstvz", "aeiou"
    word = ""
    number += len(consonants) * len(vowels)
    while number:
        number, place = divmod(number, len(consonants) * len(vowels))
        word += consonants[place // len(vowels)] + vowels[place % len(vowels)]
    return word
