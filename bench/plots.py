"""Draw the pictures of the documentation from the figures of the benches.

python bench/plots.py [--results DIR]

Reads DIR/*.json, bench/results if none is named, and writes a PNG beside each figure that is there: latency against
the size of the namespace, by embedding and by words, recall against latency, latency by class of namespace and
question, what is found of LoCoMo, throughput.
Measures nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

RESULTS = Path(__file__).parent / "results"
OURS = "memory-plugin"
# Ours in one strong colour, the rest told apart without shouting; legible without colour by their markers.
STYLES: dict[str, dict[str, Any]] = {
    OURS: {"color": "#c0392b", "marker": "o", "linewidth": 2.4, "zorder": 5},
    "plain SQL": {"color": "#2c6fbb", "marker": "s"},
    "plain SQL, iterative scan": {"color": "#7fb2e5", "marker": "D"},
    "plain SQL, exact scan": {"color": "#555555", "marker": "v", "linestyle": ":"},
    "HNSW, no filter": {"color": "#aaaaaa", "marker": ".", "linestyle": "--"},
    "LangGraph PostgresStore": {"color": "#2e8b57", "marker": "^"},
    "mem0 pgvector": {"color": "#9b6bb3", "marker": "x"},
    "pg_textsearch": {"color": "#d98e04", "marker": "P"},
}


def latency(result: dict[str, Any]) -> Figure:
    """Draw latency and recall against the size of the namespace."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
    sizes = sorted(map(int, result["embedding"]))
    for name in _order(result["systems"]):
        of = [result["embedding"][str(size)][name] for size in sizes]
        left.plot(sizes, [figures["p50_ms"] for figures in of], label=name, **_style(name))
        if "recall" in of[0]:
            right.plot(sizes, [figures["recall"] for figures in of], **_style(name))
    for axes, label in ((left, "median latency, ms"), (right, "recall@10")):
        axes.set_xscale("log")
        axes.set_xlabel(f"memories in the namespace searched (of {result['rows']:,} in the table)")
        axes.set_ylabel(label)
        _bare(axes)
    _logarithmic(left)
    right.set_ylim(0, 1.04)
    figure.legend(loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(f"Search by embedding, {result['dimensions']} dimensions, 10 results", fontsize=11)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    return figure


def lexical(result: dict[str, Any]) -> Figure:
    """Draw the latency of questions of five words, and what of BM25 is found, against the size of the namespace."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.4))
    # The first class of question; namespaces of which every system was told.
    asked = {of["rows"]: of["classes"][0]["systems"] for of in result["namespaces"]}
    for name in _order(result["systems"]):
        of = {rows: systems[name] for rows, systems in sorted(asked.items()) if name in systems}
        for place, key in zip(axes, ("p50_ms", "p95_ms", "overlap"), strict=True):
            found = {rows: figures[key] for rows, figures in of.items() if key in figures}
            place.plot(list(found), list(found.values()), label=name if place is axes[0] else None, **_style(name))
    for place, label in zip(
        axes, ("median latency, ms", "95th percentile, ms", "share of the ten best by BM25"), strict=True
    ):
        place.set_xscale("log")
        place.set_xlabel("memories in the namespace searched")
        place.set_ylabel(label)
        _bare(place)
    _logarithmic(axes[0])
    _logarithmic(axes[1])
    axes[2].set_ylim(0, 1.04)
    figure.legend(loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.suptitle(
        f"Search by five words of a memory, vocabulary of {result['vocabulary']:,} words by Zipf's law, 10 results",
        fontsize=11,
    )
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


def recall(result: dict[str, Any]) -> Figure:
    """Draw what recall costs."""
    figure, axes = plt.subplots(figsize=(7, 4.4))
    size = result["swept"]["rows"]
    for name in _order(result["swept"]["points"]):
        points = result["swept"]["points"][name]
        axes.plot([p["recall"] for p in points], [p["p50_ms"] for p in points], label=name, **_style(name))
        for point in points:
            axes.annotate(
                str(point["setting"]),
                (point["recall"], point["p50_ms"]),
                textcoords="offset points",
                xytext=(0, -12 if name == "plain SQL, iterative scan" else 6),
                ha="center",
                fontsize=7,
                color="#555555",
            )
    for name in ("LangGraph PostgresStore", "mem0 pgvector", "plain SQL, exact scan"):
        if name in result["embedding"][str(size)]:
            of = result["embedding"][str(size)][name]
            axes.plot([of["recall"]], [of["p50_ms"]], label=name, **{**_style(name), "linestyle": ""})
    _logarithmic(axes)
    axes.set_xlabel("recall@10")
    axes.set_ylabel("median latency, ms")
    axes.set_title(
        f"A namespace of {size:,} of {result['rows']:,} memories; small figures: ef_search, of ours semantic_reach",
        fontsize=10,
    )
    _bare(axes)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def semantic(result: dict[str, Any]) -> Figure:
    """Draw the latency of each class of question as a multiple of the index without a filter; the first two tables."""
    tables = result["tables"][:2]
    height = 1.6 + 0.2 * max(len(table["classes"]) for table in tables)
    figure, axes = plt.subplots(1, len(tables), figsize=(7 * len(tables), height), squeeze=False)
    names = {"exact": "plain SQL, exact scan", "filtered": "plain SQL", "ours": OURS}
    for place, table in zip(axes[0], tables, strict=True):
        classes = table["classes"][::-1]
        for name, styled in names.items():
            of = [(row["systems"][name], row["systems"]["unfiltered"]) for row in classes]
            times = [own["p50_ms"] / index["p50_ms"] for own, index in of]
            label = f"{styled}, filtered (its recall at the right)" if name == "filtered" else styled
            first = label if place is axes[0][0] else None
            place.plot(times, range(len(times)), label=first, **{**_style(styled), "linestyle": ""})
            if name == "filtered":
                for height_of, (own, _) in enumerate(of):
                    place.annotate(
                        f"{own['recall']:.2f}",
                        (1.01, height_of),
                        xycoords=place.get_yaxis_transform(),
                        va="center",
                        fontsize=7,
                        color=_style(styled)["color"],
                    )
        place.axvline(1, color="#aaaaaa", linestyle="--", linewidth=1)
        _logarithmic(place, "x")
        place.set_yticks(range(len(classes)), [row["class"].strip() for row in classes], fontsize=7)
        place.set_ylim(-0.8, len(classes) - 0.2)
        place.set_xlabel("median latency, as a multiple of the HNSW index without a filter")
        place.set_title(
            f"{table['rows']:,} rows of {table['dimensions']} dimensions\nrecall@10 of {OURS}: mean "
            f"{table['mean_recall']:.3f}, worst class {table['worst_recall']:.3f}",
            fontsize=10,
        )
        _bare(place)
    figure.legend(loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.04, 1, 1), w_pad=4)
    return figure


def locomo(result: dict[str, Any]) -> Figure:
    """Draw what each system finds of a long conversation."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    ways = {"embedding": "by embedding", "words": "by words", "both": "by both"}
    names = list(result["found"])
    for place, name in enumerate(names):
        for group, way in enumerate(ways):
            value = result["found"][name].get(way, {}).get("recall@10")
            x = group + (place - (len(names) - 1) / 2) * 0.2
            if value is not None:
                axes.bar(x, value, 0.18, color=_style(name)["color"], label=name if group == 0 else None)
            axes.text(x, (value or 0) + 0.01, f"{value:.2f}" if value is not None else "-", ha="center", fontsize=7)
    axes.set_xticks(range(len(ways)), list(ways.values()))
    axes.set_ylabel("recall@10")
    axes.set_title(f"LoCoMo: {result['questions']} questions over {result['memories']:,} turns", fontsize=10)
    _bare(axes)
    _legend_above(axes)
    figure.tight_layout()
    return figure


def throughput(result: dict[str, Any]) -> Figure:
    """Draw requests a second of each operation."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    operations = result["operations"]
    systems = [name for name in (OURS, "yardstick") if name in next(iter(operations.values()))]
    for place, name in enumerate(systems):
        for group, of in enumerate(operations.values()):
            x = group + (place - (len(systems) - 1) / 2) * 0.36
            value = of[name]["requests_s"]
            label = {"yardstick": "a compiled sidecar, plain SQL"}.get(name, name) if group == 0 else None
            axes.bar(x, value, 0.34, color=STYLES[OURS if name == OURS else "plain SQL"]["color"], label=label)
            found = f"\nrecall {of[name]['recall']:.2f}" if "recall" in of[name] else ""
            axes.text(x, value, f"{value:,.0f}{found}", ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(operations)), [name.replace(" with ", "\nwith ") for name in operations])
    axes.set_ylabel("requests a second")
    axes.set_title(
        f"{result['clients']} connections, {result['rows']:,} memories of {result['dimensions']} dimensions",
        fontsize=10,
    )
    _bare(axes)
    _legend_above(axes)
    figure.tight_layout()
    return figure


def _legend_above(axes: Axes) -> None:
    """Put the legend between the title and the picture, where no bar can reach it."""
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 0.98))
    axes.set_title(axes.get_title(), fontsize=10, pad=26)


def _style(name: str) -> dict[str, Any]:
    return {"linewidth": 1.4, "markersize": 5, **STYLES.get(name, {"color": "#333333", "marker": "+"})}


def _order(names: Iterable[str]) -> list[str]:
    """Return the names as their styles stand, those without one last."""
    places = list(STYLES)
    return sorted(names, key=lambda name: places.index(name) if name in places else len(places))


def _logarithmic(axes: Axes, which: str = "y") -> None:
    axes.set(**{f"{which}scale": "log"})
    axis = {"x": axes.xaxis, "y": axes.yaxis}[which]
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _bare(axes: Axes) -> None:
    axes.grid(visible=True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


PICTURES: dict[str, tuple[str, Callable[[dict[str, Any]], Figure]]] = {
    "latency.png": ("compare", latency),
    "recall.png": ("compare", recall),
    "semantic.png": ("semantic", semantic),
    "lexical.png": ("lexical", lexical),
    "locomo.png": ("compare_locomo", locomo),
    "throughput.png": ("throughput", throughput),
}


def draw(results: Path) -> list[Path]:
    """Draw what there are figures for; return the pictures."""
    drawn = []
    for picture, (bench, how) in PICTURES.items():
        source = results / f"{bench}.json"
        if not source.is_file():
            continue
        figure = how(json.loads(source.read_text()))
        path = results / picture
        # No date and no version: the same figures give the same file.
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)
        drawn.append(path)
    return drawn


def main() -> int:
    """Draw, and say what."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    for path in draw(parser.parse_args().results):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
