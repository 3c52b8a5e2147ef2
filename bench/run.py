"""Run the benches one after another, print what they found as one table, and draw it.

python bench/run.py [--server-url URL] [--size tiny|quick|full] [--results DIR] [--only NAME,…] [--yardstick PROGRAM]

`make bench` runs it at the quick size, `make bench BENCH=full` at the full one. Without a URL an embedded server is
started for as long; databases are made on it and dropped. Each bench is a program of its own and can be run by itself;
its figures stand in DIR/NAME.json, the seconds that each took in DIR/run.json, its words go where this program's go.
DIR is results/SIZE of this folder if none is named, so that no run overwrites what the documentation shows. A bench
whose data or package is not there is left out, and the end says which and why. LoCoMo is read from $LOCOMO_DIR.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import minilm_service
import report
import server

HERE = Path(__file__).parent
SIZES = ("tiny", "quick", "full")


@dataclass(frozen=True)
class Bench:
    """A program of this folder and what it is told; {json}, {server}, {size}, {store} and {yardstick} are filled in."""

    name: str
    arguments: tuple[str, ...]
    by_size: Mapping[str, tuple[str, ...]]
    """What is added at each size; a size that is not there leaves the bench out."""
    dimensions: int = 0
    """Of the fresh store whose URL is {store}."""
    prints_json: bool = False
    """Its figures are printed, not written to {json}."""
    needs: str = ""
    """An environment variable without which there is nothing to measure."""
    plpython: bool = False
    """Its server has plpython3u: the given one, or one of this machine's packages for as long."""
    model: bool = False
    """It needs the model of minilm_service.py."""


COMMON = ("--server-url", "{server}", "--json", "{json}")
EVERY_SIZE = {size: ("--size", size) for size in SIZES}
BENCHES = (
    Bench("compare", COMMON, EVERY_SIZE),
    Bench("semantic", COMMON, EVERY_SIZE),
    Bench("shapes", COMMON, {"tiny": ("--size", "tiny", "--shapes", "flat"), "full": ("--size", "full")}),
    Bench("lexical", COMMON, EVERY_SIZE),
    Bench("compare_locomo", COMMON, dict.fromkeys(SIZES, ()), needs="LOCOMO_DIR"),
    Bench(
        "locomo",
        ("--database-url", "{store}", "--json"),
        dict.fromkeys(SIZES, ()),
        dimensions=384,
        prints_json=True,
        needs="LOCOMO_DIR",
    ),
    Bench(
        "sidecar_overhead",
        ("--database-url", "{store}"),
        {
            "tiny": ("--requests", "20", "--seconds", "0.1"),
            "quick": ("--requests", "400", "--seconds", "0.7"),
            "full": ("--requests", "5000"),
        },
        dimensions=1536,
        prints_json=True,
    ),
    Bench(
        "throughput",
        (*COMMON, "--yardstick", "{yardstick}"),
        {
            "tiny": ("--rows", "2000", "--dimensions", "64", "--seconds", "0.2", "--rounds", "1"),
            "quick": ("--rows", "5000", "--seconds", "0.5", "--rounds", "3"),
            "full": ("--rows", "100000", "--seconds", "5", "--rounds", "7"),
        },
    ),
    Bench("sizing", COMMON, {size: EVERY_SIZE[size] for size in ("tiny", "full")}),
    Bench("paraphrase", COMMON, dict.fromkeys(SIZES, ()), plpython=True, model=True),
    Bench(
        "reembed",
        COMMON,
        {"tiny": ("--rows", "3000", "--writes", "10"), "full": ("--rows", "100000")},
        plpython=True,
    ),
    Bench("served_locomo", COMMON, dict.fromkeys(SIZES, ()), needs="LOCOMO_DIR", plpython=True, model=True),
)


def command(bench: Bench, size: str, filled: dict[str, str]) -> list[str]:
    """Return the command of a bench."""
    arguments = [part.format_map(filled) for part in (*bench.arguments, *bench.by_size[size])]
    return [sys.executable, str(HERE / f"{bench.name}.py"), *arguments]


def left_out(bench: Bench, size: str, server_url: str | None) -> str:
    """Say why a bench cannot run here, on the given server or without one; empty when it can."""
    if size not in bench.by_size:
        return f"it has no {size} size"
    if bench.needs and not os.environ.get(bench.needs):
        return f"{bench.needs} names no data"
    if bench.model and (why := minilm_service.missing()):
        return why
    return server.without_plpython(server_url) if bench.plpython else ""


def run(bench: Bench, size: str, server_url: str, results: Path, yardstick: str) -> str:
    """Run one bench; return what went wrong, empty when nothing did."""
    target = results / f"{bench.name}.json"
    target.unlink(missing_ok=True)
    with ExitStack() as stack:
        filled = {"server": server_url, "json": str(target), "size": size, "yardstick": yardstick}
        if bench.dimensions:
            filled["store"] = stack.enter_context(server.store(server_url, bench.dimensions))
        done = subprocess.run(
            command(bench, size, filled),
            stdout=subprocess.PIPE if bench.prints_json else None,
            text=True,
            check=False,
        )
    if done.returncode:
        return f"it ended with status {done.returncode}"
    if bench.prints_json:
        read = [json.loads(line) for line in done.stdout.splitlines()]
        target.write_text(json.dumps(read[0] if len(read) == 1 else read, indent=1) + "\n")
    return "" if target.is_file() else "it wrote no figures"


def note(results: Path, name: str, size: str, seconds: float) -> None:
    """Say how long a bench took, and write it beside what earlier runs took."""
    sys.stderr.write(f"{name}: {seconds:.0f} s\n")
    target = results / "run.json"
    noted = json.loads(target.read_text()) if target.is_file() else {}
    noted[name] = {"size": size, "seconds": round(seconds, 1)}
    target.write_text(json.dumps(dict(sorted(noted.items())), indent=1) + "\n")


def chosen(only: str) -> Iterator[Bench]:
    """Yield the benches named, all for an empty text; an unknown name is an error."""
    names = [name for name in only.split(",") if name]
    unknown = set(names) - {bench.name for bench in BENCHES}
    if unknown:
        raise SystemExit(f"run: no such bench: {', '.join(sorted(unknown))}")
    yield from (bench for bench in BENCHES if not names or bench.name in names)


def main() -> int:
    """Run, report, draw; status 1 when a bench failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--server-url", help="a server to measure on; without it an embedded one is started")
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--results", type=Path, help="where figures and pictures go; by default bench/results/SIZE")
    parser.add_argument("--only", default="", help="names of benches, with commas")
    parser.add_argument("--yardstick", default=os.environ.get("BENCH_YARDSTICK", ""), help="another sidecar: a program")
    options = parser.parse_args()
    results = options.results or HERE / "results" / options.size
    skipped, failed = {}, {}
    benches = list(chosen(options.only))
    results.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    with server.server(options.server_url) as url:
        for bench in benches:
            if why := left_out(bench, options.size, options.server_url):
                skipped[bench.name] = why
                continue
            start = time.monotonic()
            with server.full(options.server_url) if bench.plpython else nullcontext(url) as its_url:
                if why := run(bench, options.size, its_url, results, options.yardstick):
                    failed[bench.name] = why
            if bench.name == "throughput" and not options.yardstick:
                skipped["the other sidecar of throughput"] = "BENCH_YARDSTICK names no program"
            note(results, bench.name, options.size, time.monotonic() - start)
    # What lies there of a bench that was left out is of an earlier run, perhaps of another machine.
    sys.stdout.write(report.table(results, [bench.name for bench in benches if bench.name not in skipped]))
    sys.stdout.writelines(f"skipped {name}: {why}\n" for name, why in skipped.items())
    sys.stdout.writelines(f"FAILED {name}: {why}\n" for name, why in failed.items())
    try:
        import plots
    except ImportError as error:
        sys.stdout.write(f"skipped pictures: {error}\n")
    else:
        sys.stdout.writelines(f"drawn {path}\n" for path in plots.draw(results))
    sys.stderr.write(f"all: {time.monotonic() - begun:.0f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
