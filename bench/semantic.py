"""Measure search by embedding in namespaces of every size, beside the exact scan and the index without a filter.

python bench/semantic.py [--server-url URL] [--size tiny|quick|full] [--dimensions N] [--json FILE] [--keep NAME]

Rows lie in clusters (topics), and in namespaces that hold a few topics or all of them; half the rows have expired, a
tenth are of the kind asked for, and some were deleted. Questions come from a topic of the namespace or from another
one. With --keep the databases stay, and a later run with the same name measures them again without loading.
FILE gets {"server": {...}, "tables": [{"rows", "dimensions", "commit": {SYSTEM: ms, "ratio": r},
"mean_recall", "worst_recall", "classes": [{"class", "questions",
"systems": {SYSTEM: {"p50_ms", "p95_ms", "recall", "short"}}}]}]}; "short": answers with fewer rows than there are.
Systems: ours (the whole of memory_plugin.search), and plain SQL over a table of the same rows with an hnsw index of its
own, ef_search 40: unfiltered (no filter at all), filtered, and exact (every row of the namespaces compared).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import server
from semantic_rows import TOPICS, Table, load, searched, without

# (how many, of how many rows) of the namespaces of a table; every other one holds 8 topics, the rest hold all.
TABLES: dict[str, list[tuple[int, list[tuple[int, int]]]]] = {
    "tiny": [(64, [(2, 6000), (2, 100), (5, 10)])],
    "quick": [
        (384, [(1, 10_000), (2, 5000), (4, 1000), (20, 100), (50, 10)]),
        (1536, [(2, 5000), (2, 1000), (20, 100), (50, 10)]),
    ],
    "full": [
        (1536, [(1, 50_000), (2, 20_000), (10, 5000), (30, 1000), (300, 100), (500, 10)]),
        (384, [(1, 500_000), (2, 100_000), (4, 20_000), (20, 5000), (80, 1000), (350, 100), (500, 10)]),
        (768, [(1, 20_000), (2, 5000), (10, 1000), (50, 100)]),
        (1024, [(1, 20_000), (2, 5000), (10, 1000), (50, 100)]),
        (3072, [(1, 10_000), (2, 5000), (5, 1000), (50, 100)]),
    ],
}
QUESTIONS = {"tiny": 5, "quick": 25, "full": 50}
LIVE = "(r.expires_at is null or r.expires_at > now())"

Run = Callable[[list[str], str, "str | None"], list[Any]]


def systems(ours: psycopg.Connection[Any], plain: psycopg.Connection[Any], dimensions: int) -> dict[str, Run]:
    """Return what is measured: namespaces, embedding, kind -> ids."""

    def ask(where: str) -> Run:
        query = f"select r.id from memory_plugin.memory_records as r {where} limit 10"  # noqa: S608

        def run(names: list[str], embedding: str, kind: str | None) -> list[Any]:
            return plain.execute(query.encode(), {"n": names, "e": embedding, "k": kind}).fetchall()

        return run

    def search(names: list[str], embedding: str, kind: str | None) -> list[Any]:
        query = "select id from memory_plugin.search(%s, embedding => %s::vector, kinds => %s, max_results => 10)"
        return ours.execute(query, [names, embedding, [kind] if kind else None]).fetchall()

    filters = f"where r.namespace = any(%(n)s) and {LIVE} and (%(k)s::text is null or r.kind = %(k)s)"
    nearest = f"order by (r.{searched(dimensions)}) <=> %(e)s::{'vector' if dimensions <= 2000 else 'halfvec'}"
    return {
        "ours": search,
        "unfiltered": ask(nearest),
        "filtered": ask(f"{filters} {nearest}"),
        "exact": ask(f"{filters} order by (r.embedding <=> %(e)s::vector) + 0"),
    }


def questions(table: Table, each: int) -> Iterator[tuple[str, list[str], int, str | None]]:
    """Yield (class, namespaces, topic, kind) of every question."""
    rng = np.random.default_rng(13)
    of: dict[tuple[int, bool], list[int]] = {}
    for number, name in enumerate(table.names):
        of.setdefault((table.sizes[number], name.endswith("-own")), []).append(number)
    for (size, own), numbers in of.items():
        for kind in (None, "checkpoint") if size >= 1000 else (None,):
            for far in (False, True) if own else (False,):
                topics = "a topic of its own" if own else "all topics"
                label = f"{size:>7,} rows, {'another topic' if far else topics}{', one kind' if kind else ''}"
                for _ in range(each):
                    number = int(rng.choice(numbers))
                    others = np.setdiff1d(np.arange(TOPICS), table.topics[number])
                    yield label, [table.names[number]], int(rng.choice(others if far else table.topics[number])), kind
    sizes = sorted({size for size, _ in of})
    for label, wanted in {
        "one namespace of each size": sizes,
        "ten of the second size": [sizes[1]] * 10,
        "two of the middle and one small": [sizes[len(sizes) // 2]] * 2 + sizes[:1],
    }.items():
        for _ in range(each):
            numbers = [int(rng.choice([n for n, s in enumerate(table.sizes) if s == size])) for size in wanted]
            yield f"mixed: {label}", sorted({table.names[n] for n in numbers}), int(rng.integers(TOPICS)), None


def measure(table: Table, runs: dict[str, Run], each: int) -> dict[str, Any]:
    """Ask every question of every system, in turns; return the figures by class."""
    rng = np.random.default_rng(17)
    asked = list(questions(table, each))
    vectors = table.draw(rng, np.array([topic for _, _, topic, _ in asked]))
    texts = ["[" + ",".join(f"{x:.7g}" for x in vector) + "]" for vector in vectors]
    order = rng.permutation(len(asked))
    found: dict[str, dict[str, list[tuple[float, float, bool]]]] = {}
    # Twice over a part: the first is the warm-up.
    for place in [*order[:: max(1, len(order) // 100)], *order]:
        label, names, _, kind = asked[place]
        answers, seconds = {}, {}
        for name in rng.permutation(list(runs)):
            began = time.perf_counter()
            answers[name] = {row[0] for row in runs[name](names, texts[place], kind)}
            seconds[name] = time.perf_counter() - began
        best = answers["exact"]
        for name, answer in answers.items():
            share = len(answer & best) / len(best) if best else 1.0
            of = found.setdefault(label, {}).setdefault(name, [])
            of.append((seconds[name] * 1000, share, len(answer) < len(best)))
    return {label: _figures(label, by_name) for label, by_name in found.items()}


def _figures(label: str, by_name: dict[str, list[tuple[float, float, bool]]]) -> dict[str, Any]:
    """Return the figures of one class."""
    of = {}
    for name, answers in by_name.items():
        times, shares, shorts = zip(*answers, strict=True)
        of[name] = {
            "p50_ms": round(float(np.median(times)), 3),
            "p95_ms": round(float(np.percentile(times, 95)), 3),
            "recall": round(float(np.mean(shares)), 4),
            "short": sum(shorts),
        }
    del of["unfiltered"]["recall"], of["unfiltered"]["short"]
    return {"class": label, "questions": len(by_name["ours"]), "systems": of}


def commits(
    table: Table, ours: psycopg.Connection[Any], plain: psycopg.Connection[Any], count: int
) -> dict[str, float]:
    """Commit the same memories to both, in turns; return the median milliseconds and their ratio."""
    rng = np.random.default_rng(19)
    vectors = table.draw(rng, rng.integers(0, TOPICS, count))
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    for vector in vectors:
        text = "[" + ",".join(f"{x:.7g}" for x in vector) + "]"
        name = table.names[int(rng.integers(len(table.names)))]
        for system, conn in (
            (("ours", ours), ("plain", plain)) if rng.random() < 0.5 else (("plain", plain), ("ours", ours))
        ):
            began = time.perf_counter()
            conn.execute(
                "select memory_plugin.commit_memory(%s, 'What was said, in a few words', embedding => %s::vector)",
                [name, text],
            )
            taken[system].append((time.perf_counter() - began) * 1000)
    medians = {name: round(float(np.median(times[count // 10 :])), 3) for name, times in taken.items()}
    return {**medians, "ratio": round(medians["ours"] / medians["plain"], 3)}


def one(server_url: str, dimensions: int, spaces: list[tuple[int, int]], size: str, keep: str | None) -> dict[str, Any]:
    """Load and measure one table."""
    table = Table(dimensions, spaces)
    with ExitStack() as stack:
        if keep is None:
            url = stack.enter_context(server.store(server_url, dimensions))
            load(url, table)
            other = stack.enter_context(server.copy(server_url, url))
            without(other)
        else:
            url, other = server.kept(
                server_url, f"{keep}_{dimensions}", dimensions, lambda made: load(made, table), without
            )
        settings = "-c search_path=public -c jit=off -c max_parallel_workers_per_gather=0"
        ours = stack.enter_context(psycopg.connect(url, autocommit=True, prepare_threshold=None, options=settings))
        plain = stack.enter_context(psycopg.connect(other, autocommit=True, prepare_threshold=None, options=settings))
        classes = measure(table, systems(ours, plain, dimensions), QUESTIONS[size])
        shares = [figures["systems"]["ours"]["recall"] for figures in classes.values()]
        return {
            "rows": sum(table.sizes),
            "dimensions": dimensions,
            "commit": commits(table, ours, plain, 20 * QUESTIONS[size]),
            "mean_recall": round(float(np.mean(shares)), 4),
            "worst_recall": min(shares),
            "classes": list(classes.values()),
        }


def told(table: dict[str, Any]) -> str:
    """Return the figures of one table as lines."""
    lines = [f"{table['rows']:,} rows of {table['dimensions']} dimensions: p50 (p95) in ms, recall@10"]
    lines.append(f"{'':<44}{'unfiltered':>15}{'exact':>16}{'filtered':>22}{'ours':>22}{'p50 x':>7}{'p95 x':>7}")
    for row in table["classes"]:
        of = row["systems"]
        cells = [f"{of[n]['p50_ms']:.1f} ({of[n]['p95_ms']:.1f})" for n in ("unfiltered", "exact", "filtered", "ours")]
        cells[2] += f" {of['filtered']['recall']:.3f}"
        cells[3] += f" {of['ours']['recall']:.3f}"
        ratios = [of["ours"][p] / of["unfiltered"][p] for p in ("p50_ms", "p95_ms")]
        short = f"  {of['ours']['short']} SHORT" if of["ours"]["short"] else ""
        lines.append(
            f"{row['class']:<44}{cells[0]:>15}{cells[1]:>16}{cells[2]:>22}{cells[3]:>22}{ratios[0]:>7.2f}{ratios[1]:>7.2f}{short}"
        )
    commit = table["commit"]
    lines.append(f"recall mean {table['mean_recall']:.4f}, worst class {table['worst_recall']:.4f}")
    lines.append(
        f"commit {commit['ours']:.2f} ms, with an hnsw index alone {commit['plain']:.2f} ms: {commit['ratio']:.2f}"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server-url")
    parser.add_argument("--size", choices=sorted(TABLES), default="quick")
    parser.add_argument("--dimensions", type=int, help="only the table of so many dimensions")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", help="name of databases that stay")
    options = parser.parse_args()
    tables = []
    with server.server(options.server_url) as url:
        for dimensions, spaces in TABLES[options.size]:
            if options.dimensions in (None, dimensions):
                tables.append(one(url, dimensions, spaces, options.size, options.keep))
                sys.stdout.write(told(tables[-1]) + "\n\n")
                sys.stdout.flush()
        if options.json:
            figures = {"server": server.described(url), "size": options.size, "tables": tables}
            options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
