"""How much each system finds of a long conversation (LoCoMo), asked by words, by embedding, and by both.

python bench/compare_locomo.py [--server-url URL] [--data DIR] [--json FILE]

The same data and the same figures as bench/locomo.py, for the systems of bench/compare.py: recall@10 (mean share of a
question's evidence among the first ten), MRR of the first evidence and hit@10, both among the first ten too, for that
is what a system returns here. Asked of a system is what its own interface offers; "-" means that it offers nothing of
the kind. Without data (--data, LOCOMO_DIR) or without its embeddings the bench says so and ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import compare
import locomo
import numpy as np
import rows as made
import server
import systems

WARM_UP = 15


def arrays(folder: Path) -> tuple[made.Rows, list[made.Question], int]:
    """Return the turns, the questions with their evidence as rows, and how many questions had none."""
    turns, questions, dimensions = locomo.load(folder)
    if not dimensions:
        raise LookupError("the data has no embeddings")
    names = sorted({turn.conversation for turn in turns})
    rows = made.Rows(
        names=[f"custom:locomo-{name}" for name in names],
        space=np.array([names.index(turn.conversation) for turn in turns]),
        vectors=np.array([_parsed(turn.embedding) for turn in turns], dtype=np.float32),
        contents=[turn.content for turn in turns],
    )
    place = {(turn.conversation, turn.turn): number for number, turn in enumerate(turns)}
    asked = [
        made.Question(
            namespace=f"custom:locomo-{question.conversation}",
            vector=np.array(_parsed(question.embedding), dtype=np.float32),
            words=question.text,
            nearest=frozenset(place[question.conversation, turn] for turn in question.evidence),
            wanted=len(question.evidence),
        )
        for question in questions
    ]
    return rows, asked, dimensions


def _parsed(vector: str | None) -> list[float]:
    return [float(number) for number in (vector or "[]").strip("[]").split(",")]


def found(question: made.Question, answer: Sequence[int]) -> tuple[float, float, float]:
    """Return the recall, the reciprocal rank and the hit of one answer."""
    turns = [number - 1 for number in answer]
    share = len(question.nearest.intersection(turns)) / question.wanted
    first = next((place for place, turn in enumerate(turns, 1) if turn in question.nearest), None)
    return share, 1 / first if first else 0.0, float(share > 0)


def measure(server_url: str, folder: Path) -> dict[str, Any]:
    """Load every system and ask it every question in every way that it offers."""
    rows, questions, dimensions = arrays(folder)
    with ExitStack() as stack:
        url = stack.enter_context(server.store(server_url, dimensions))
        source = stack.enter_context(systems.connect(url))
        made.copy(source, rows)
        loaded, skipped = systems.opened(url, dimensions, stack)
        for system in loaded:
            system.load()
        # The order said is what tells neighbours apart: a second a turn.
        source.execute(
            "update memory_plugin.memory_records set created_at = "
            "'2026-01-01'::timestamptz + make_interval(secs => ('x' || right(id::text, 8))::bit(32)::integer)"
        )
        source.execute("vacuum (analyze)")
        by_way = {way: asked(loaded, questions, way) for way in compare.WAYS}
        return {
            "bench": "compare_locomo",
            "machine": server.described(url),
            "memories": len(rows.contents),
            "questions": len(questions),
            "skipped": skipped,
            "found": {
                system.name: {way: of[system.name] for way, of in by_way.items() if system.name in of}
                for system in loaded
            },
        }


def asked(loaded: Sequence[systems.System], questions: list[made.Question], way: str) -> dict[str, dict[str, float]]:
    """Ask every system that can be asked so every question, in turns; return its figures."""
    able = [system for system in loaded if compare.prepared(system, way, questions[0])]
    judged: dict[str, list[tuple[float, float, float]]] = {system.name: [] for system in able}

    def one(system: systems.System, number: int) -> tuple[float, None]:
        question = questions[number % len(questions)]
        took, answer = compare.timed(compare.prepared(system, way, question) or list)
        if number >= WARM_UP:
            judged[system.name].append(found(question, answer))
        return took, None

    figures = {}
    for name, taken in compare.in_turn(able, len(questions), WARM_UP, one).items():
        recall, rank, hit = (statistics.fmean(column) for column in zip(*judged[name], strict=True))
        figures[name] = {
            "recall@10": round(recall, 4),
            "mrr@10": round(rank, 4),
            "hit@10": round(hit, 4),
            "p50_ms": round(statistics.median(taken.ms), 3),
        }
    return figures


def table(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = [f"LoCoMo: {result['memories']} memories, {result['questions']} questions"]
    for name, modes in result["found"].items():
        for mode in compare.WAYS:
            figures = "  ".join(f"{key} {value:.3f}" for key, value in modes.get(mode, {}).items())
            lines.append(f"  {name:28s} {mode:10s} {figures or '-'}")
    lines += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server to measure on; without it an embedded one is started")
    parser.add_argument("--data", default=os.environ.get("LOCOMO_DIR"), help="the folder with LoCoMo ($LOCOMO_DIR)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not options.data or not (Path(options.data) / "memories.jsonl").is_file():
        sys.stderr.write("compare_locomo: skipped: no data (--data DIR or LOCOMO_DIR)\n")
        return 0
    try:
        with server.server(options.server_url) as url:
            result = measure(url, Path(options.data))
    except LookupError as error:
        sys.stderr.write(f"compare_locomo: skipped: {error}\n")
        return 0
    if options.json:
        options.json.write_text(systems.as_json(result))
    sys.stdout.write(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
