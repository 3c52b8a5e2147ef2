"""What semantic.py asks: questions by class of namespace, topic and kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from semantic_rows import FOREIGN, TOPICS, Table

# Comparing every row of more takes so long that it is done for a part of the questions only.
COMPARED = 2000


@dataclass(frozen=True)
class Question:
    """One search: the class it counts for, where, about which topic and kind, and whether every row is compared."""

    label: str
    names: tuple[str, ...]
    topic: int
    kind: str | None
    compared: bool


def questions(table: Table, each: int) -> Iterator[Question]:
    """Yield the questions, `each` of every class."""
    rng = np.random.default_rng(13)
    yield from _single(table, each, rng)
    yield from _mixed(table, each, rng)


def _single(table: Table, each: int, rng: np.random.Generator) -> Iterator[Question]:
    """Yield those to one namespace: about a topic of it, about another, and about one that no row is about."""
    of: dict[tuple[int, bool], list[int]] = {}
    for number, name in enumerate(table.names):
        of.setdefault((table.sizes[number], name.endswith("-own")), []).append(number)
    for (size, own), numbers in of.items():
        # A namespace of all topics has no other; what no row is about is like another topic to it.
        abouts = ["a topic of its own", "another topic"] if own else ["all topics"]
        abouts += ["an unknown topic"] if size >= 5000 and not own else []
        for kind in (None, "checkpoint") if size >= 1000 else (None,):
            for about in abouts:
                label = f"{size:>7,} rows, {about}{', one kind' if kind else ''}"
                for turn in range(each):
                    number = int(rng.choice(numbers))
                    topics = np.array([FOREIGN])
                    if about == "another topic":
                        topics = np.setdiff1d(np.arange(TOPICS), table.topics[number])
                    elif about != "an unknown topic":
                        topics = table.topics[number]
                    compared = size <= COMPARED or turn % 4 == 0
                    yield Question(label, (table.names[number],), int(rng.choice(topics)), kind, compared)


def _mixed(table: Table, each: int, rng: np.random.Generator) -> Iterator[Question]:
    """Yield those to several namespaces."""
    sizes = sorted(set(table.sizes))
    for label, wanted in {
        "one namespace of each size": sizes,
        "ten of the second size": [sizes[1]] * 10,
        "two of the middle and one small": [sizes[len(sizes) // 2]] * 2 + sizes[:1],
        "every namespace": [],
    }.items():
        for turn in range(each):
            numbers = [int(rng.choice([n for n, s in enumerate(table.sizes) if s == size])) for size in wanted]
            names = sorted({table.names[number] for number in numbers}) if wanted else table.names
            rows = sum(wanted) if wanted else sum(table.sizes)
            compared = rows <= COMPARED or turn % 4 == 0
            yield Question(f"mixed: {label}", tuple(names), int(rng.integers(TOPICS)), None, compared)
