"""One table of what the benches found, ours beside the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = "memory-plugin"


@dataclass(frozen=True)
class Line:
    """One figure, ours and another's; the ratio is theirs to ours where less is better, else ours to theirs."""

    measured: str
    unit: str
    ours: float
    other: str = ""
    theirs: float | None = None
    less_is_better: bool = True
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Return how many times better ours is."""
        if self.theirs is None or not self.theirs or not self.ours:
            return None
        return self.theirs / self.ours if self.less_is_better else self.ours / self.theirs


def compare(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/compare.py."""
    for way in ("embedding", "words", "both"):
        for size, figures in result[way].items():
            yield from _beside(f"by {way}, {int(size):,} rows: p50", figures)
    yield from _beside("commit with embedding: p50", result["commit"])
    for name, why in result["skipped"].items():
        yield Line(f"skipped {name}: {why}", "", 0)


def _beside(measured: str, figures: dict[str, Any]) -> Iterator[Line]:
    ours = figures[OURS]
    for name, of in figures.items():
        if name == OURS:
            continue
        remark = ""
        if "recall" in of:
            remark = f"recall {ours['recall']:.3f} : {of['recall']:.3f}, rows {ours['rows']:.1f} : {of['rows']:.1f}"
        elif "rows" in of and "rows" in ours:
            remark = f"rows {ours['rows']:.1f} : {of['rows']:.1f}"
        yield Line(measured, "ms", ours["p50_ms"], name, of["p50_ms"], remark=remark)


def semantic(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/semantic.py."""
    for table in result["tables"]:
        label = f"{table['rows']:,} x {table['dimensions']}"
        for row in table["classes"]:
            ours, other = row["systems"]["ours"], row["systems"]["unfiltered"]
            remark = f"recall {ours['recall']:.3f}, p95 {ours['p95_ms']:.1f} : {other['p95_ms']:.1f}"
            remark += f", exact scan {row['systems']['exact']['p50_ms']:.1f} ms"
            measured = f"{label}, {row['class'].strip()}: p50"
            yield Line(measured, "ms", ours["p50_ms"], "hnsw without filters", other["p50_ms"], remark=remark)
        commit = table["commit"]
        yield Line(f"{label}, commit: p50", "ms", commit["ours"], "without the copy", commit["plain"])
        yield Line(f"{label}, commit: p50", "ms", commit["ours_again"], "key and hnsw index alone", commit["alone"])
        remark = f"worst class {table['worst_recall']:.4f}"
        yield Line(f"{label}, recall@10 of all classes", "", table["mean_recall"], remark=remark)


def shapes(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/shapes.py."""
    for shape, classes in result["shapes"].items():
        worst = min(classes, key=lambda of: of["recall"])
        remark = f"worst class {worst['recall']:.3f}: {worst['class']}"
        mean = sum(of["recall"] for of in classes) / len(classes)
        yield Line(f"data of the shape {shape}: recall", "", mean, remark=remark)


def lexical(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/lexical.py."""
    for namespace in result["namespaces"]:
        label = namespace["name"].partition(":")[2].replace("of-", "").replace("-", " ")
        for of_class in namespace["classes"]:
            systems = of_class["systems"]
            ours = systems[OURS]
            remark = f"max {ours['max_ms']:.0f} ms"
            if "equal" in ours:
                remark += f", exact BM25 {ours['equal']:.3f}, short {ours['short']}"
            if "exact" in ours:
                remark += f", says exact {ours['exact']:.2f}"
            measured = f"{label} rows, {of_class['class']}: p95"
            others = [name for name in systems if name != OURS] or [""]
            for name in others:
                of = systems.get(name, {})
                beside = f"; max {of['max_ms']:.0f}, exact BM25 {of.get('equal', 0):.3f}" if of else ""
                yield Line(measured, "ms", ours["p95_ms"], name, of.get("p95_ms"), remark=remark + beside)
    for name, why in result["skipped"].items():
        yield Line(f"skipped {name}: {why}", "", 0)


def compare_locomo(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/compare_locomo.py."""
    for way, ours in result["found"][OURS].items():
        for name, of in result["found"].items():
            if name != OURS and way in of:
                for key in ("recall@10", "mrr@10"):
                    yield Line(f"LoCoMo by {way}: {key}", "", ours[key], name, of[way][key], less_is_better=False)


def locomo(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/locomo.py."""
    for mode, of in result.items():
        for key in ("recall@10", "mrr", "hit@10") if isinstance(of, dict) else ():
            yield Line(f"LoCoMo by {mode}: {key}", "", of[key])


def sidecar_overhead(result: list[dict[str, Any]]) -> Iterator[Line]:
    """Yield the lines of bench/sidecar_overhead.py."""
    for of in result:
        yield Line(
            f"{of['call']} over HTTP: p50", "ms", of["http_p50_ms"], "the same call by psycopg", of["direct_p50_ms"]
        )


def throughput(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/throughput.py."""
    for name, of in result["operations"].items():
        other = of.get("yardstick", {})
        remark = f"p99 {of[OURS]['p99_ms']:.1f}" + (f" : {other['p99_ms']:.1f} ms" if other else " ms")
        if "rows" in of[OURS]:
            remark += f", rows {of[OURS]['rows']:.1f}" + (f" : {other['rows']:.1f}" if "rows" in other else "")
        if "recall" in of[OURS]:
            remark += f", recall {of[OURS]['recall']:.3f}" + (f" : {other['recall']:.3f}" if other else "")
        beside = "a compiled sidecar, plain SQL" if other else ""
        yield Line(f"{name} over HTTP", "/s", of[OURS]["requests_s"], beside, other.get("requests_s"), False, remark)


def sizing(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/sizing.py."""
    for part, size in result["bytes"].items():
        yield Line(f"on disk, {result['dimensions']} dimensions: {part}", "kB", size / 1000)
    yield Line("building the index, a memory", "ms", result["index_ms"])


def paraphrase(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/paraphrase.py."""
    for name, door in result["doors"].items():
        measured = f"paraphrases found first by {name}, of {door['asked']}"
        remark = f"{door['chance_first']} of {door['chance_asked']} despite a chance word"
        yield Line(measured, "", door["first"], "by words alone", door["words_alone"], False, remark)


def served_locomo(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/served_locomo.py."""
    served, client = result["served"], result["client"]
    for key in ("recall@10", "mrr", "hit@10"):
        yield Line(f"LoCoMo by text alone: {key}", "", served[key], "clients send vectors", client[key], False)
    remark = f"embedded {result['embedded_per_second']:.0f}/s, {result['degraded']} degraded"
    yield Line("by text alone: p50", "ms", served["p50_ms"], "clients send vectors", client["p50_ms"], remark=remark)


def reembed(result: dict[str, Any]) -> Iterator[Line]:
    """Yield the lines of bench/reembed.py."""
    label = f"{result['rows']:,} memories, new model"
    for kind in ("write", "search"):
        of = result[kind]
        remark = f"{of['per_second']:.1f}/s, p99 {of['p99_ms']:.1f} ms, slowest {of['slowest_ms']:.0f} ms"
        yield Line(f"{label}: {kind} p50", "ms", of["p50_ms"], remark=remark)
    remark = f"{result['failed_requests']} requests failed, {result['without_new_vector']} memories without a vector"
    yield Line(f"{label}: whole change", "s", sum(result["runs_seconds"]), remark=remark)


BENCHES: dict[str, Callable[[Any], Iterator[Line]]] = {
    "compare": compare,
    "compare_locomo": compare_locomo,
    "lexical": lexical,
    "locomo": locomo,
    "paraphrase": paraphrase,
    "reembed": reembed,
    "semantic": semantic,
    "shapes": shapes,
    "served_locomo": served_locomo,
    "sidecar_overhead": sidecar_overhead,
    "sizing": sizing,
    "throughput": throughput,
}


def table(results: Path, names: list[str]) -> str:
    """Return the figures of the benches named as text."""
    lines = [f"{'':44s} {'ours':>10s}  {'beside':28s} {'theirs':>10s} {'better':>8s}"]
    for name in names:
        source = results / f"{name}.json"
        if name not in BENCHES or not source.is_file():
            continue
        lines.append(f"{name} ({source})")
        lines += [_text(line) for line in BENCHES[name](json.loads(source.read_text()))]
    return "\n".join(lines) + "\n"


def _text(line: Line) -> str:
    if not line.ours and line.theirs is None:
        return f"  {line.measured}"
    digits = 1 if line.unit == "/s" else 3
    theirs = "" if line.theirs is None else f"{line.theirs:.{digits}f}"
    ratio = "" if line.ratio is None else f"{line.ratio:.2f} x"
    measured = f"{line.measured}{', ' + line.unit if line.unit else ''}"
    return (
        f"  {measured:42s} {line.ours:10.{digits}f}  {line.other:28s} {theirs:>10s} {ratio:>8s}  {line.remark}".rstrip()
    )
