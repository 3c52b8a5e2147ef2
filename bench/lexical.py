"""Search by words beside plain SQL's ts_rank and pg_textsearch, in namespaces of up to a million memories.

python bench/lexical.py [--server-url URL] [--size tiny|quick|full] [--json FILE] [--keep NAME]

Measured for each namespace and class of question (lexical_rows.CLASSES): latency, and how many answers are the ten best
by BM25 over every memory of the namespace, computed apart from any database with the same k1, b and lexemes; what ours
says of itself (exact, candidates). The systems take turns in an order that changes. A class ends for a system that has
taken its share of time, so `asked` may be fewer; ours is asked every question of the first class. What does not answer
within the patience has given up, and counts as that long. With --keep the database stays, and a later run with the same
name does not load it again.
FILE gets {"machine", "namespaces": [{"name", "rows", "classes": [{"class", "systems": {SYSTEM: {"asked", "p50_ms",
"p95_ms", "max_ms", "cpu_p50_ms", "cpu_p95_ms", "rows", "short", "equal", "overlap", "gave_up", "exact", "exact_wrong",
"candidates"}}}]}]}.
cpu: what the server's process computed, which other work on the machine stretches less; on Linux over a socket, and
without the helpers of a parallel plan. short: answers with fewer rows than ten, or all that match. overlap: the share
of the ten best that is in an answer. exact_wrong: how many answers say that they are exact and are not.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lexical_rows as made
import numpy as np
import psycopg
import server
import textsearch
from lexical_rows import CLASSES, FIVE_WORDS, Corpus, Exact, Question
from lexical_systems import Answer, Ours, Plain, System, TextSearch, Vocabulary, lexemes
from psycopg import sql

from memory_plugin.installer import api, settings

# Of the store; no memory has an embedding.
DIMENSIONS = 384


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    namespaces: tuple[int, ...]
    in_order: int
    """The size of one more namespace, the ids of which rise with time; 0: none."""
    words: int
    five: int
    """Questions of five words to each namespace."""
    others: int
    """Questions of each other class."""
    share_s: float
    """How long a system may take for a class."""
    patience_s: float
    """How long an answer is waited for."""


SIZES = {
    "tiny": Size((300, 3000), 0, 2000, 8, 3, 1, 10),
    "quick": Size((1_000, 10_000, 50_000), 0, 200_000, 200, 10, 0.2, 2),
    "full": Size((1_000, 10_000, 100_000, 1_000_000), 200_000, 200_000, 300, 30, 8, 20),
}


@dataclass
class Taken:
    """What one system did with the questions of one class."""

    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    answers: list[tuple[Question, Answer]] = field(default_factory=list)
    gave_up: int = 0

    def summary(self, exact: Exact) -> dict[str, float]:
        """Return the figures of the class."""
        figures: dict[str, float] = {
            "asked": len(self.ms),
            "p50_ms": round(statistics.median(self.ms), 3),
            "p95_ms": round(float(np.percentile(self.ms, 95)), 3),
            "max_ms": round(max(self.ms), 3),
            "gave_up": self.gave_up,
        }
        if self.cpu_ms:
            figures["cpu_p50_ms"] = round(statistics.median(self.cpu_ms), 3)
            figures["cpu_p95_ms"] = round(float(np.percentile(self.cpu_ms, 95)), 3)
        if not self.answers:
            return figures
        figures["rows"] = round(statistics.fmean(len(answer.memories) for _, answer in self.answers), 2)
        said = [answer for _, answer in self.answers if answer.exact is not None]
        if said:
            figures["exact"] = round(statistics.fmean(bool(answer.exact) for answer in said), 4)
            figures["candidates"] = round(statistics.fmean(answer.candidates or 0 for answer in said), 1)
        if self.answers[0][0].text:
            return figures
        judged = [exact.judge(question, answer.memories) for question, answer in self.answers]
        figures["equal"] = round(statistics.fmean(equal for equal, _, _ in judged), 4)
        figures["overlap"] = round(statistics.fmean(overlap for _, overlap, _ in judged), 4)
        figures["short"] = sum(short for _, _, short in judged)
        if said:
            figures["exact_wrong"] = sum(
                bool(answer.exact) and not equal
                for (_, answer), (equal, _, _) in zip(self.answers, judged, strict=True)
            )
        return figures


def computed_ms(system: System) -> float | None:
    """Return how long the server's process has computed so far; None where nothing tells."""
    if not system.conn.info.host.startswith("/"):
        return None
    try:
        return int(Path(f"/proc/{system.conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6
    except (OSError, ValueError, IndexError):
        return None


def ask(
    systems: Sequence[System],
    corpus: Corpus,
    questions: list[Question],
    vocabulary: Vocabulary,
    share_s: float,
    to_the_end: str = "",
) -> dict[str, Taken]:
    """Ask every system that can be asked so, in turns; all but one only until their share of time is taken."""
    order = random.Random(7)  # noqa: S311 - the same order each time
    able = [system for system in systems if system.prepared(corpus, questions[0], vocabulary)]
    taken = {system.name: Taken() for system in able}
    gc.disable()
    for question in questions:
        for system in order.sample(able, len(able)):
            own = taken[system.name]
            search = system.prepared(corpus, question, vocabulary)
            if search is None or (system.name != to_the_end and sum(own.ms) > share_s * 1000):
                continue
            computed = computed_ms(system)
            began = time.perf_counter()
            try:
                found = search()
            except psycopg.errors.QueryCanceled:
                own.gave_up += 1
                found = None
            own.ms.append((time.perf_counter() - began) * 1000)
            if computed is not None:
                own.cpu_ms.append((computed_ms(system) or computed) - computed)
            if found is not None:
                own.answers.append((question, system.read(found)))
    gc.enable()
    return taken


def measured(
    systems: Sequence[System], corpus: Corpus, vocabulary: Vocabulary, numbers: made.Integers, size: Size
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each class of question to a namespace."""
    exact = Exact(corpus, numbers)
    for of_class in CLASSES:
        count = size.five if of_class == FIVE_WORDS else size.others
        questions = made.questions(corpus, of_class, count + count // 10 + 1, numbers >= 0)
        ask(systems, corpus, questions[count:], vocabulary, size.share_s / 4)
        to_the_end = Ours.name if of_class == FIVE_WORDS else ""
        taken = ask(systems, corpus, questions[:count], vocabulary, size.share_s, to_the_end)
        yield {"class": of_class, "systems": {name: of.summary(exact) for name, of in taken.items()}}


@contextmanager
def store(server_url: str, keep: str | None, fill: Callable[[str], None]) -> Iterator[str]:
    """Yield the URL of a filled store: a fresh one, dropped at the end, or the one of a name, which stays."""
    if keep is None:
        with server.store(server_url, DIMENSIONS) as url:
            fill(url)
            yield url
        return
    with psycopg.connect(server_url, autocommit=True) as conn:
        if conn.execute("select from pg_database where datname = %s", [keep]).fetchone() is None:
            with server.store(server_url, DIMENSIONS, keep=True) as url:
                fill(url)
            fresh = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(url)["dbname"]))
            conn.execute(sql.SQL("alter database {} rename to {}").format(fresh, sql.Identifier(keep)))
    url = server.with_dbname(server_url, keep)
    api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": url}))
    yield url


def measure(server_url: str, size: Size, keep: str | None, say: Callable[[str], object]) -> dict[str, Any]:
    """Make the memories, load every system, ask; return the figures."""
    vocabulary = made.vocabulary(size.words)
    corpora = [made.make(f"team:of-{count}", count, size.words) for count in size.namespaces]
    if size.in_order:
        corpora.append(made.make(f"team:in-order-{size.in_order}", size.in_order, size.words, in_order=True))
    result: dict[str, Any] = {"bench": "lexical", "skipped": {}, "vocabulary": size.words, "k1": made.K1, "b": made.B}

    def load(system: System, of: Sequence[Corpus]) -> None:
        began = time.monotonic()
        system.load(of, vocabulary)
        say(f"loaded {system.name} in {time.monotonic() - began:.0f} s")

    def fill(url: str) -> None:
        for system in (Ours(url, size.patience_s), Plain(url, size.patience_s)):
            load(system, corpora)
            system.conn.close()

    with ExitStack() as stack:
        url = stack.enter_context(store(server_url, keep, fill))
        systems: list[System] = [Ours(url, size.patience_s), Plain(url, size.patience_s)]
        try:
            beside = stack.enter_context(textsearch.server(server.TUNING))
        except LookupError as error:
            result["skipped"][str(error.args[0])] = "not installed (bench/README.md says how)"
        else:
            systems.append(TextSearch(beside, size.patience_s))
            load(systems[-1], corpora[: len(size.namespaces)])
        for system in systems:
            stack.callback(system.conn.close)
        result["machine"] = server.described(url)
        result["systems"] = {system.name: system.about for system in systems}
        result["namespaces"] = []
        numbers = lexemes(systems[0].conn, vocabulary)
        for corpus in corpora:
            say(f"asking {corpus.name}")
            classes = list(measured(systems, corpus, vocabulary, numbers, size))
            result["namespaces"].append({"name": corpus.name, "rows": len(corpus), "classes": classes})
    return result


def table(result: dict[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for namespace in result["namespaces"]:
        lines.append(f"{namespace['name']}: {namespace['rows']:,} memories")
        for of_class in namespace["classes"]:
            lines.append(f"  {of_class['class']}")
            lines += [f"    {name:16s}{_told(of)}" for name, of in of_class["systems"].items()]
    lines += [f"skipped {name}: {why}" for name, why in result["skipped"].items()]
    return "\n".join(lines) + "\n"


def _told(of: dict[str, float]) -> str:
    """Return the figures of one system as a line."""
    line = f"{of['asked']:4d} asked, p50 {of['p50_ms']:8.1f}  p95 {of['p95_ms']:8.1f}  max {of['max_ms']:8.1f} ms"
    line += f" (cpu {of['cpu_p50_ms']:.1f}, {of['cpu_p95_ms']:.1f})" if "cpu_p50_ms" in of else ""
    line += f"  {of['gave_up']} GAVE UP" if of["gave_up"] else ""
    line += f"  equal {of['equal']:.3f}  overlap {of['overlap']:.3f}" if "equal" in of else ""
    line += f"  {of['short']} SHORT" if of.get("short") else ""
    line += f"  exact {of['exact']:.2f}, candidates {of['candidates']:.0f}" if "exact" in of else ""
    return line + (f"  {of['exact_wrong']} WRONGLY EXACT" if of.get("exact_wrong") else "")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server to measure on; without it an embedded one is started")
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--keep", help="name of a database that stays")
    options = parser.parse_args()
    with server.server(options.server_url) as url:
        result = measure(url, SIZES[options.size], options.keep, lambda text: sys.stderr.write(f"lexical: {text}\n"))
    result["size"] = options.size
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
