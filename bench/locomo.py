"""How well search finds the turns that answer a question about a long conversation (LoCoMo).

python bench/locomo.py --database-url URL | --url http://127.0.0.1:9100 [--data DIR] [--keep] [--json]

DIR (or $LOCOMO_DIR) holds memories.jsonl {conversation, turn, content}, one turn a line in the order said,
questions.jsonl {conversation, question, evidence: [turn, ...], category}, and optionally an .npz file with the arrays
`memories` and `questions`, one embedding a row in file order. The data is not part of the project: LoCoMo comes from
snap-research/locomo under CC BY-NC 4.0. Without it the bench says so and ends; embeddings of another size than the
store's are left out in the same way.

Each conversation is committed, turn by turn, to a namespace of its own, through SQL or through /v1, and removed at the
end unless --keep. Printed for query, embedding, both, and either alone with weights.neighbour: recall@10 (mean share of
a question's evidence among the first ten), MRR (of the first evidence among the first hundred), hit@10, and recall@10
of each category of question.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg

TOP = 10
DEPTH = 100
# Whether the text is asked, whether the embedding is, and weights.neighbour, where it is said.
MODES: dict[str, tuple[bool, bool, float | None]] = {
    "query": (True, False, None),
    "embedding": (False, True, None),
    "both": (True, True, None),
    "query, neighbours": (True, False, 0.45),
    "embedding, neighbours": (False, True, 0.45),
}


@dataclass(frozen=True)
class Turn:
    """One memory: a turn of a conversation."""

    conversation: str
    turn: str
    content: str
    embedding: str | None


@dataclass(frozen=True)
class Question:
    """One question and the turns that answer it."""

    conversation: str
    text: str
    evidence: frozenset[str]
    category: int
    embedding: str | None


@dataclass
class Figures:
    """What one mode found, question by question."""

    recall: list[float] = field(default_factory=list)
    reciprocal: list[float] = field(default_factory=list)
    hit: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    by_category: dict[int, list[float]] = field(default_factory=lambda: collections.defaultdict(list))

    def add(self, question: Question, found: list[str], took_ms: float) -> None:
        """Count one answer: the turns found, best first."""
        share = len(question.evidence & set(found[:TOP])) / len(question.evidence)
        first = next((place for place, turn in enumerate(found, 1) if turn in question.evidence), None)
        self.recall.append(share)
        self.hit.append(float(share > 0))
        self.reciprocal.append(1 / first if first else 0.0)
        self.took_ms.append(took_ms)
        self.by_category[question.category].append(share)

    def summary(self) -> dict[str, float]:
        """Return the means, and the median time of one search."""
        return {
            "recall@10": statistics.fmean(self.recall),
            "mrr": statistics.fmean(self.reciprocal),
            "hit@10": statistics.fmean(self.hit),
            "p50_ms": statistics.median(self.took_ms),
            **{f"category {name}": statistics.fmean(of) for name, of in sorted(self.by_category.items())},
        }


class Sql:
    """The SQL functions, through psycopg."""

    def __init__(self, url: str) -> None:
        self.conn = psycopg.connect(url, autocommit=True, prepare_threshold=None)
        row = self.conn.execute(
            "select atttypmod from pg_attribute "
            "where attrelid = to_regclass('memory_plugin.memory_records') and attname = 'embedding'"
        ).fetchone()
        if row is None:
            raise SystemExit("locomo: no store in this database: install it first")
        self.dimensions: int = row[0]

    def commit(self, namespace: str, turn: Turn, embedding: str | None) -> str:
        """Commit a turn; return its id."""
        statement = "select memory_plugin.commit_memory(%s, %s, embedding => %s)"
        row = self.conn.execute(statement, [namespace, turn.content, embedding]).fetchone()
        return str(row[0]) if row else ""

    def search(
        self, namespace: str, query: str | None, embedding: str | None, neighbour: float | None = None
    ) -> list[str]:
        """Return the ids found, best first."""
        statement = (
            "select id from memory_plugin.search("
            "array[%s], query => %s, embedding => %s, max_results => %s, neighbour_weight => %s)"
        )
        return [str(row[0]) for row in self.conn.execute(statement, [namespace, query, embedding, DEPTH, neighbour])]

    def drop(self, namespace: str) -> None:
        """Remove a namespace, if it is there, with its memories."""
        self.conn.execute(
            "select memory_plugin.delete_namespace(name) from memory_plugin.memory_namespaces where name = %s",
            [namespace],
        )


class Http:
    """The /v1 service."""

    dimensions: int | None = None

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=10)
        self.degraded = 0
        """How many searches had to do without an arm."""

    def commit(self, namespace: str, turn: Turn, embedding: str | None) -> str:
        """Commit a turn; return its id."""
        body: dict[str, Any] = {"content": turn.content, "kind": "fact", "source": "user"}
        if embedding:
            body["embedding"] = json.loads(embedding)
        return str(self._asked("POST", f"/v1/namespaces/{namespace}/memories", body)["id"])

    def search(
        self, namespace: str, query: str | None, embedding: str | None, neighbour: float | None = None
    ) -> list[str]:
        """Return the ids found, best first."""
        body: dict[str, Any] = {"namespaces": [namespace], "query": query, "limit": DEPTH}
        body["weights"] = {"neighbour": neighbour}
        if embedding:
            body["embedding"] = json.loads(embedding)
        told = self._asked("POST", "/v1/search", body)
        self.degraded += "degraded" in told.get("search", {})
        return [memory["id"] for memory in told["memories"]]

    def drop(self, namespace: str) -> None:
        """Remove a namespace, if it is there, with its memories."""
        self.client.delete(f"/v1/namespaces/{namespace}")

    def _asked(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.client.request(method, path, json=body)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(folder: Path) -> tuple[list[Turn], list[Question], int]:
    """Return the turns, the questions that have evidence among them, and the embeddings' dimensions (0: none)."""
    memories, questions = lines(folder / "memories.jsonl"), lines(folder / "questions.jsonl")
    vectors: dict[str, list[str | None]] = {"memories": [None] * len(memories), "questions": [None] * len(questions)}
    dimensions = 0
    archive = next(iter(sorted(folder.glob("*.npz"))), None)
    if archive is not None:
        import numpy as np

        with np.load(archive) as arrays:
            for name in vectors:
                rows = arrays[name].astype("float32")
                vectors[name] = [json.dumps([round(float(value), 6) for value in row]) for row in rows]
                dimensions = rows.shape[1]
    turns = [
        Turn(row["conversation"], row["turn"], row["content"], vector)
        for row, vector in zip(memories, vectors["memories"], strict=True)
    ]
    there = {(turn.conversation, turn.turn) for turn in turns}
    asked = []
    for row, vector in zip(questions, vectors["questions"], strict=True):
        evidence = frozenset(turn for turn in row["evidence"] if (row["conversation"], turn) in there)
        if evidence:
            asked.append(Question(row["conversation"], row["question"], evidence, row["category"], vector))
    return turns, asked, dimensions


def commit(door: Http | Sql, turns: list[Turn], *, embedded: bool) -> dict[str, str]:
    """Commit the turns in the order said; return which turn each memory is."""
    return {
        door.commit(namespace_of(turn.conversation), turn, turn.embedding if embedded else None): turn.turn
        for turn in turns
    }


def measure(door: Http | Sql, turns: list[Turn], questions: list[Question], modes: list[str]) -> dict[str, Figures]:
    """Commit the turns, ask the questions, the modes taking turns so that what slows one slows all."""
    turn_of = commit(door, turns, embedded=any(MODES[mode][1] for mode in modes))
    figures = {mode: Figures() for mode in modes}
    for question in questions:
        for mode in modes:
            text, embedding, neighbour = MODES[mode]
            start = time.perf_counter()
            found = door.search(
                namespace_of(question.conversation),
                question.text if text else None,
                question.embedding if embedding else None,
                neighbour,
            )
            took = (time.perf_counter() - start) * 1000
            figures[mode].add(question, [turn_of[memory] for memory in found], took)
    return figures


def namespace_of(conversation: str) -> str:
    """Return the namespace that holds a conversation."""
    return f"custom:locomo-{conversation}"


def main() -> int:
    """Measure and print one line a mode."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", default=os.environ.get("MEMORY_PLUGIN_DATABASE_URL"))
    parser.add_argument("--url", help="of a /v1 service, instead of a database")
    parser.add_argument("--data", default=os.environ.get("LOCOMO_DIR"), help="the folder with LoCoMo ($LOCOMO_DIR)")
    parser.add_argument("--keep", action="store_true", help="leave the conversations in the store")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "memories.jsonl").is_file():
        sys.stderr.write("locomo: skipped: no data (--data DIR or LOCOMO_DIR)\n")
        return 0
    if not options.url and not options.database_url:
        parser.error("--url, --database-url or MEMORY_PLUGIN_DATABASE_URL is needed")
    turns, questions, dimensions = load(Path(options.data))
    door: Http | Sql = Http(options.url) if options.url else Sql(options.database_url)
    modes = list(MODES)
    if dimensions == 0 or door.dimensions not in (None, dimensions):
        sys.stderr.write(
            "locomo: what needs embeddings: skipped: "
            f"the data has {dimensions or 'no'} dimensions, the store {door.dimensions}\n"
        )
        modes = [mode for mode, (_, embedding, _) in MODES.items() if not embedding]
    namespaces = sorted({namespace_of(turn.conversation) for turn in turns})
    for namespace in namespaces:
        door.drop(namespace)
    try:
        summary = {mode: found.summary() for mode, found in measure(door, turns, questions, modes).items()}
    finally:
        for namespace in [] if options.keep else namespaces:
            door.drop(namespace)
    if options.json:
        sys.stdout.write(json.dumps({"questions": len(questions), "memories": len(turns), **summary}) + "\n")
        return 0
    sys.stdout.write(f"LoCoMo: {len(turns)} memories, {len(questions)} questions\n")
    for mode, figures in summary.items():
        sys.stdout.write(f"{mode:22s}" + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
