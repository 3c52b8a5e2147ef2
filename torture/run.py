"""Break the service on purpose, for as long as it takes to be believed, on loopback alone; write what came of it.

python torture/run.py [--only NAME,…] [--minutes N] [--memories N] [--cases N] [--every N] [--no-document]

`make torture` runs all parts: generated requests, load, a herd of connections, faults beneath writing clients, installs
killed at their statements. Each runs a server of its own on loopback and removes it. A table goes to standard output,
figures to torture/results.json and to docs/reliability.md. Status 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import psycopg
import pytest

import killed_install
import load
from fixtures.cluster import cluster
from fixtures.installing import dump
from fixtures.server import embedded_bin_dir
from fixtures.sidecars import clean_env, running_sidecar
from generated import run_generated
from memory_plugin.installer import api, settings

BEGIN, END = "<!-- figures: make torture -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Result:
    """One promise: what was tried, what came of it, and whether it holds."""

    tried: str
    found: str
    kept: bool


def requests(options: argparse.Namespace) -> list[Result]:
    """Send generated requests, in all four phases, until there are as many as asked."""
    cases, turn, said = 0, 0, ""
    with cluster("requests", embedded_bin_dir(18)) as server, tempfile.TemporaryDirectory() as folder:
        api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": server.url()}))
        with running_sidecar(server.url(), Path(folder) / "log") as sidecar:
            while cases < options.cases and not said:
                turn += 1
                examples = max(10, min(1000, (options.cases - cases) // 12))
                done = run_generated(sidecar.base_url, Path(folder), clean_env(), examples, seed=turn, timeout=3600)
                cases += done.cases
                said = "" if done.status == 0 and done.cases else done.said[-3000:]
            failures = len(re.findall(r"status=5(?!03)", sidecar.log()))
    if said:
        sys.stderr.write(said + "\n")
    found = (
        f"{cases:,} requests, {failures} answers of 5xx, {'every' if not said else 'NOT every'} answer as documented"
    )
    return [Result("requests generated from the OpenAPI document", found, not said and not failures)]


def under_load(options: argparse.Namespace) -> list[Result]:
    """Load for minutes, then the herd."""
    seconds = options.minutes * 60
    with load.filled(options.memories) as (server, sidecar):
        loaded = load.run(server, sidecar, seconds)
        outcomes, slowest = load.herd(sidecar, 1000)
        after = sidecar.client.get("/v1/health").status_code
    mixed = (
        f"{loaded.requests:,} requests, {loaded.requests_s:,.0f}/s, no error; p50 {loaded.p50_ms} ms, p99 "
        f"{loaded.p99_ms} ms, slowest {loaded.slowest_ms} ms"
    )
    clean = set(outcomes) <= {"200", "503", "refused"} and after == 200
    served = outcomes.get("200", 0) > 500 and slowest < 2
    answers = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
    return [
        Result(
            f"64 keep-alive clients for {options.minutes:g} minutes on {options.memories:,} memories: 70 % search, "
            "25 % commit",
            mixed,
            loaded.p99_ms < 2000,
        ),
        Result(
            "resident memory of the sidecar meanwhile",
            f"{loaded.resident_mb} MB, drift {loaded.drift:+.1%}",
            loaded.drift < 0.05,
        ),
        Result("connections to the database meanwhile", f"{loaded.connections} at most", loaded.connections <= 9),
        Result("1,000 connections at once", f"{answers}; the slowest after {slowest:.1f} s", clean and served),
    ]


def faults(options: argparse.Namespace) -> list[Result]:
    """Run the fault tests with the long settings."""
    environ = {**os.environ, "TORTURE_LOCK_SECONDS": "10", "TORTURE_RESTARTS": "10"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/test_faults.py",
            "tests/test_http_faults.py",
        ],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stdout[-5000:])
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "nothing ran"
    return [Result("faults beneath clients that write (10 s lock, 10 restarts)", summary, done.returncode == 0)]


def installs(options: argparse.Namespace) -> list[Result]:
    """Kill an install at every statement, or at every so-manieth, and run it again."""
    tried, failed = 0, []
    with cluster("installs", embedded_bin_dir(18)) as server:
        server.execute("create database undisturbed")
        count = killed_install.statements_of_an_install(server, server.url("undisturbed"))
        fresh = dump(server, server.url("undisturbed"))
        for at in range(1, count + 1, options.every):
            server.execute("create database tried")
            try:
                killed_install.kill_and_install_again(server, server.url("tried"), at, fresh)
            except (AssertionError, psycopg.Error, pytest.fail.Exception) as error:
                failed.append(f"{at}: {error}")
            server.execute("drop database tried with (force)")
            tried += 1
    if failed:
        sys.stderr.write("\n".join(failed) + "\n")
    found = f"killed at {tried} of {count} statements, {len(failed)} did not end as a fresh install"
    return [Result("an install killed at a statement, then run again", found, not failed)]


PARTS: dict[str, Callable[[argparse.Namespace], list[Result]]] = {
    "requests": requests,
    "load": under_load,
    "faults": faults,
    "installs": installs,
}


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| tried | found | kept |", "|---|---|---|"]
    lines += [f"| {one.tried} | {one.found} | {'yes' if one.kept else '**no**'} |" for one in results]
    return "\n".join(lines) + "\n"


def document(results: list[Result], command: str) -> None:
    """Put the table into docs/reliability.md, between its marks."""
    path = ROOT / "docs" / "reliability.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    said = f"`{command}`, on a machine of {os.cpu_count()} cores, {time.strftime('%Y-%m-%d', time.gmtime())}:"
    path.write_text(f"{before}{BEGIN}\n{said}\n\n{table(results)}{END}{after}")


def main() -> int:
    """Run the parts asked for; status 1 when one of their promises was not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--minutes", type=float, default=10, help="of load")
    parser.add_argument("--memories", type=int, default=200_000, help="in the store under load")
    parser.add_argument("--cases", type=int, default=20_000, help="generated requests")
    parser.add_argument("--every", type=int, default=1, help="kill an install at every so-manieth statement")
    parser.add_argument("--no-document", action="store_true", help="leave results.json and docs/reliability.md alone")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    results = []
    for name in names:
        began = time.monotonic()
        results += PARTS[name](options)
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    sys.stdout.write(table(results))
    if not options.no_document:
        (HERE / "results.json").write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")
        document(results, " ".join(["python", "torture/run.py", *sys.argv[1:]]))
    return 0 if all(one.kept for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
