"""The same questions to the same rows on one server: ours, plain SQL, LangGraph's PostgresStore, mem0's pgvector store.

python bench/compare.py [--server-url URL] [--size tiny|quick|full] [--json FILE]

URL names a database of a server where another may be made, which is dropped at the end; without it an embedded server
is started for as long. Measured for namespaces of several sizes: recall@10 against the exact answer, rows returned, and
the median and 95th percentile of at least 200 searches after a warm-up, the systems taking turns in an order that
changes; then writes of one memory with its embedding; then what recall costs: plain SQL by hnsw.ef_search, ours by
memory_plugin.semantic_reach. A system whose package is not installed is left out by name.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rows as made
import server
import systems
from systems import Plain, System, connect


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    dimensions: int
    namespaces: dict[int, int]
    """How many namespaces there are of each size."""
    swept: int
    """The size of the namespace for which recall is set against latency."""
    searches: int = 200
    warm_up: int = 30
    commits: int = 200


SIZES = {
    "tiny": Size(16, {10: 3, 200: 2}, 200, searches=10, warm_up=2, commits=5),
    "quick": Size(384, {10: 20, 100: 28, 1_000: 4, 8_000: 1}, 8_000, warm_up=15),
    "full": Size(384, {10: 50, 100: 195, 1_000: 40, 10_000: 4, 100_000: 1}, 10_000, commits=1000),
}
WAYS = ("embedding", "words", "both")
EF_SEARCH = (10, 20, 40, 80, 160, 400)
REACH = (40, 60, 100, 200, 400, 1000)


@dataclass
class Taken:
    """What one system did with the questions of one class."""

    ms: list[float] = field(default_factory=list)
    recall: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Return the figures of the class."""
        figures = {"p50_ms": round(statistics.median(self.ms), 3), "p95_ms": round(percentile(self.ms, 0.95), 3)}
        if self.recall:
            figures["recall"] = round(statistics.fmean(self.recall), 4)
            figures["worst_recall"] = round(min(self.recall), 4)
        if self.rows:
            figures["rows"] = round(statistics.fmean(self.rows), 2)
        return figures


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, in ms, and what it returns."""
    start = time.perf_counter()
    result = call()
    return (time.perf_counter() - start) * 1000, result


def in_turn(
    asked: Sequence[System], times: int, warm_up: int, one: Callable[[System, int], tuple[float, Taken | None]]
) -> dict[str, Taken]:
    """Let the systems take turns, in an order that changes each round; what slows the machine slows all."""
    order = random.Random(7)  # noqa: S311 - the same order each time
    taken = {system.name: Taken() for system in asked}
    gc.disable()
    for number in range(warm_up + times):
        for system in order.sample(list(asked), len(asked)):
            took, found = one(system, number)
            if number >= warm_up:
                own = taken[system.name]
                own.ms.append(took)
                own.recall += found.recall if found else []
                own.rows += found.rows if found else []
    gc.enable()
    return taken


def prepared(system: System, way: str, question: made.Question) -> Callable[[], list[int]] | None:
    """Prepare a search by `embedding`, `words` or `both`; None: the system has none of the kind."""
    if way == "embedding":
        return system.nearest(question.namespace, question.vector)
    if way == "words":
        return system.words(question.namespace, question.words)
    return system.both(question.namespace, question.words, question.vector)


def searched(
    asked: Sequence[System], questions: list[made.Question], size: Size, way: str = "embedding"
) -> dict[str, dict[str, float]]:
    """Ask every system that can be asked so every question; return its figures."""
    able = [system for system in asked if prepared(system, way, questions[0])]

    def one(system: System, number: int) -> tuple[float, Taken | None]:
        question = questions[number % len(questions)]
        took, found = timed(prepared(system, way, question) or list)
        if way != "embedding" or isinstance(system, systems.Unfiltered):
            return took, Taken(rows=[len(found)])
        hits = min(len(question.nearest.intersection(number - 1 for number in found)), question.wanted)
        return took, Taken(recall=[hits / question.wanted], rows=[len(found)])

    return {name: taken.summary() for name, taken in in_turn(able, size.searches, size.warm_up, one).items()}


def swept(url: str, questions: list[made.Question], size: Size) -> dict[str, list[dict[str, float]]]:
    """Measure what recall costs: plain SQL at each ef_search, once over and iterating, and ours at each reach."""
    points: dict[str, list[dict[str, float]]] = {}
    for ef_search, reach in zip(EF_SEARCH, REACH, strict=True):
        asked: list[tuple[Plain | systems.Ours, int]] = [
            (Plain(url, "plain SQL", {"hnsw.ef_search": str(ef_search)}), ef_search),
            (systems.Ours(url, {"memory_plugin.semantic_reach": str(reach)}), reach),
        ]
        if systems.iterates(asked[0][0].conn):
            iterating = {"hnsw.ef_search": str(ef_search), "hnsw.iterative_scan": "relaxed_order"}
            asked.append((Plain(url, "plain SQL, iterative scan", iterating), ef_search))
        figures = searched([system for system, _ in asked], questions, size)
        for system, setting in asked:
            points.setdefault(system.name, []).append({"setting": setting, **figures[system.name]})
            system.conn.close()
    return points


def measure(server_url: str, size: Size, say: Callable[[str], object]) -> dict[str, Any]:
    """Make the rows, load every system, ask and write; return the figures."""
    rows = made.make(size.namespaces, size.dimensions)
    with ExitStack() as stack:
        url = stack.enter_context(server.store(server_url, size.dimensions))
        source = stack.enter_context(connect(url))
        made.copy(source, rows)
        loaded, skipped = systems.opened(url, size.dimensions, stack)
        result: dict[str, Any] = {
            "bench": "compare",
            "machine": server.described(url),
            "rows": len(rows.space),
            "dimensions": size.dimensions,
            "searches": size.searches,
            "skipped": skipped,
            "systems": {},
            **{way: {} for way in WAYS},
        }
        for system in loaded:
            took, _ = timed(system.load)
            say(f"loaded {system.name}: {len(rows.space)} rows in {took / 1000:.0f} s")
        source.execute("drop table bench_rows")
        source.execute("vacuum (analyze)")
        source.execute("checkpoint")
        others = [*systems.variants(url), systems.Unfiltered(url, "HNSW, no filter", by="the whole table")]
        result["systems"] = {system.name: system.about for system in [*loaded, *others]}
        questions = {length: made.ask(rows, length, size.searches, seed=length) for length in size.namespaces}
        for length, asked in questions.items():
            say(f"searching namespaces of {length:,} rows")
            for way in WAYS:
                result[way][str(length)] = searched(
                    [*loaded, *others] if way == "embedding" else loaded, asked, size, way
                )
        say("recall against latency")
        result["swept"] = {"rows": size.swept, "points": swept(url, questions[size.swept], size)}
        say("commits")
        written = made.make({size.commits + size.warm_up: 1}, size.dimensions, seed=3)

        def one(system: System, number: int) -> tuple[float, None]:
            took, _ = timed(system.commit("team:written", written.contents[number], written.vectors[number]))
            return took, None

        result["commit"] = {
            name: taken.summary() for name, taken in in_turn(loaded, size.commits, size.warm_up, one).items()
        }
    return result


def table(result: dict[str, Any]) -> str:
    """Return the figures as text, ratios against ours."""
    lines = [f"{result['rows']:,} rows of {result['dimensions']} dimensions, {result['searches']} searches each"]
    for way in WAYS:
        for length, figures in result[way].items():
            lines.append(f"by {way}, namespace of {int(length):,} rows")
            lines += _lines(figures)
    lines.append("commit with an embedding")
    lines += _lines(result["commit"])
    lines += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines) + "\n"


def _lines(figures: dict[str, dict[str, float]]) -> list[str]:
    ours = figures[systems.Ours.name]["p50_ms"]
    lines = []
    for name, of in figures.items():
        found = "".join(f"  {key} {of[key]:.3f}" for key in ("recall", "rows") if key in of)
        lines.append(
            f"  {name:28s} p50 {of['p50_ms']:9.2f} ms  p95 {of['p95_ms']:9.2f} ms  {of['p50_ms'] / ours:7.2f} x{found}"
        )
    return lines


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server to measure on; without it an embedded one is started")
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with server.server(options.server_url) as url:
        result = measure(url, SIZES[options.size], lambda text: sys.stderr.write(f"compare: {text}\n"))
    result["size"] = options.size
    if options.json:
        options.json.write_text(systems.as_json(result))
    sys.stdout.write(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
