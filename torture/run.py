"""Break the service on purpose, for as long as it takes to be believed, on loopback alone; write what came of it.

python torture/run.py [--only NAME,…] [--minutes N] [--memories N] [--cases N] [--examples N] [--every N]
    [--no-document]

`make torture` runs all parts: generated requests, sequences beside a model, load, a herd of connections, faults beneath
writing clients, installs and upgrades killed at their statements. Each runs a server of its own on loopback and removes
it, and ends by itself. A table goes to standard output, figures to torture/results.json and to docs/reliability.md;
those of parts that were not run stay there.
Status 1 when a promise was not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tests"), str(ROOT / "bench")]

import psycopg
import pytest

import clients
import killed_install
import load
from fixtures.cluster import cluster
from fixtures.full_server import choose
from fixtures.installing import dump, install
from fixtures.server import embedded_bin_dir
from fixtures.sidecars import clean_env, running_sidecar
from generated import DIMENSIONS, run_generated
from http_load import http
from http_sidecar import address

# Of a part, in seconds; the longest takes about half an hour.
LIMIT = 2 * 3600
HERD, SERVED = 1000, 200
BEGIN, END = "<!-- figures: make torture -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Result:
    """One promise: what was tried, what came of it, and whether it holds; None: that was not tried in full."""

    tried: str
    found: str
    kept: bool | None


def requests(options: argparse.Namespace) -> list[Result]:
    """Send generated requests, in all four phases, until there are as many as asked; half of them beside PL/Python."""
    places = [("embedded18", embedded_bin_dir(18))]
    if choose().way == "packages":
        places.append(("full", Path(choose().where)))
    cases, failures, said, turn = 0, 0, "", 0
    for number, (name, bin_dir) in enumerate(places, 1):
        with cluster(name, bin_dir) as server, tempfile.TemporaryDirectory() as folder:
            install(server.url(), dimensions=str(DIMENSIONS))
            with running_sidecar(server.url(), Path(folder) / "log") as sidecar:
                while cases < options.cases * number / len(places) and not said:
                    turn += 1
                    examples = max(10, min(1000, (options.cases - cases) // 16))
                    done = run_generated(
                        sidecar.base_url,
                        Path(folder),
                        clean_env(),
                        examples,
                        seed=turn,
                        dimensions=DIMENSIONS,
                        timeout=1800,
                    )
                    cases += done.cases
                    said = "" if done.status == 0 and done.cases else done.said[-3000:]
                failures += sidecar.log().count("status=5")
    if said:
        sys.stderr.write(said + "\n")
    found = (
        f"{cases:,} requests on {' and '.join(name for name, _ in places)}, {failures} answers of 5xx, "
        f"{'every' if not said else 'NOT every'} answer as documented"
    )
    return [Result("requests generated from the OpenAPI document", found, not said and not failures)]


def model(options: argparse.Namespace) -> list[Result]:
    """Drive the service and its model through sequences that no other run has tried."""
    environ = {"TORTURE_MODEL_EXAMPLES": str(options.examples)}
    status, said = tests(["tests/test_model.py"], environ)
    found = f"{options.examples:,} sequences of 30 steps; {said}"
    return [Result("the service beside a plain model of it, by chance", found, status)]


def under_load(options: argparse.Namespace) -> list[Result]:
    """Load for minutes, then the herd."""
    with load.filled(options.memories) as (server, sidecar):
        loaded = load.run(server, sidecar, options.minutes * 60)
        one = http("POST", "/v1/search", {"namespaces": ["workspace:1"], "limit": 5})
        outcomes, slowest = clients.herd(address(sidecar), one, HERD)
        after = sidecar.client.get("/v1/health").status_code
    seen = loaded.seen
    if seen.wrong:
        sys.stderr.write("\n".join(f"{count} x {what}" for what, count in seen.wrong.most_common(20)) + "\n")
    wrong = sum(seen.wrong.values())
    mixed = (
        f"{sum(seen.outcomes.values()):,} requests, {len(seen.latencies) / seen.seconds:,.0f}/s, {wrong or 'no'} "
        f"error{'s' if wrong > 1 else ''}; p50 {loaded.p50_ms} ms, p99 {loaded.p99_ms} ms, "
        f"slowest {loaded.slowest_ms} ms"
    )
    answers = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items()))
    clean = set(outcomes) <= {"200", "503", "refused"} and outcomes.get("200", 0) >= SERVED and slowest < 2
    drifted = (
        "too short to tell of drift" if loaded.drift is None else f"drift {loaded.drift:+.1%} after the first minute"
    )
    return [
        Result(
            f"64 keep-alive clients for {options.minutes:g} minutes on {options.memories:,} memories: 70 % search, "
            "25 % commit",
            mixed,
            not wrong and bool(seen.latencies) and loaded.p99_ms < 2000,
        ),
        Result(
            "resident memory of the sidecar meanwhile",
            f"{loaded.resident_mb} MB, {drifted}",
            None if loaded.drift is None else abs(loaded.drift) < 0.05,
        ),
        Result("connections to the database meanwhile", f"{loaded.connections} at most", loaded.connections <= 9),
        Result(
            f"{HERD:,} connections at once",
            f"{answers}; the slowest after {slowest:.1f} s",
            clean and after == 200,
        ),
    ]


def faults(options: argparse.Namespace) -> list[Result]:
    """Run the fault tests with the long settings."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*faults*.py"))
    status, said = tests(files, {"TORTURE_LOCK_SECONDS": "10", "TORTURE_RESTARTS": "10"})
    return [Result("faults beneath clients that write (10 s lock, 10 restarts)", said, status)]


def tests(files: list[str], environ: dict[str, str]) -> tuple[bool | None, str]:
    """Run test files; return whether all passed (None: some were left out) and pytest's own last line."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *files]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=3600, check=False
    )
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "nothing ran"
    left_out = " skipped" in last
    if done.returncode or left_out:
        sys.stderr.write(done.stdout[-5000:])
    return (None if left_out else True) if done.returncode == 0 else False, last


def installs(options: argparse.Namespace) -> list[Result]:
    """Kill an install, and an upgrade with data, at every statement or every so-manieth, and run each again."""
    install, upgrade = killed_install.FRESH, killed_install.UPGRADE
    return [
        _killed("an install, its server process killed at a statement", install, "backend", options.every),
        _killed("an install, the installer killed at a statement", install, "installer", options.every),
        _killed("an upgrade beneath a writer, the installer killed", upgrade, "installer", options.every),
    ]


def _killed(tried: str, start: killed_install.Start, killed: str, every: int) -> Result:
    times, failed = 0, []
    with cluster("installs", embedded_bin_dir(18)) as server:
        server.execute("create database undisturbed")
        count = killed_install.statements_of_an_install(server, server.url("undisturbed"), start)
        fresh = dump(server, server.url("undisturbed"))
        for at in range(1, count + 1, every):
            server.execute("create database tried")
            try:
                killed_install.kill_and_install_again(server, server.url("tried"), at, fresh, start, killed)
            except (AssertionError, psycopg.Error, pytest.fail.Exception) as error:
                failed.append(f"{at}: {error}")
            server.execute("drop database tried with (force)")
            times += 1
    if failed:
        sys.stderr.write("\n".join(failed) + "\n")
    found = f"killed at {times} of {count} statements, {len(failed)} did not end as a fresh install"
    return Result(tried, found, not failed)


PARTS: dict[str, Callable[[argparse.Namespace], list[Result]]] = {
    "requests": requests,
    "model": model,
    "load": under_load,
    "faults": faults,
    "installs": installs,
}


def run(name: str, options: argparse.Namespace) -> list[Result]:
    """Run a part; one that breaks, or has no end, is a promise not kept, and the next one runs all the same."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no end after {LIMIT // 60} minutes")

    began = time.monotonic()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        return PARTS[name](options)
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
        traceback.print_exc()
        said = (str(error).splitlines() or [""])[0][:200].replace("|", "/")
        return [Result(name, f"did not come to its end: {type(error).__name__}: {said}", False)]
    finally:
        signal.alarm(0)
        sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| tried | found | kept |", "|---|---|---|"]
    kept = {True: "yes", False: "**no**", None: "not tried in full"}
    lines += [f"| {one.tried} | {one.found} | {kept[one.kept]} |" for one in results]
    return "\n".join(lines) + "\n"


def keep(found: dict[str, list[Result]], command: str) -> dict[str, Any]:
    """Put what came of these parts into results.json, in the place of what came of them before; return all of it."""
    path = HERE / "results.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept = kept if isinstance(kept, dict) else {}
    on = time.strftime("%Y-%m-%d", time.gmtime())
    for name, results in found.items():
        kept[name] = {"command": command, "on": on, "results": [asdict(one) for one in results]}
    kept = {name: kept[name] for name in PARTS if name in kept}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def document(kept: dict[str, Any]) -> None:
    """Put the last figures of each part into docs/reliability.md, between its marks."""
    path = ROOT / "docs" / "reliability.md"
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    runs: dict[tuple[str, str], list[str]] = {}
    for name, part in kept.items():
        runs.setdefault((part["command"], part["on"]), []).append(name)
    said = [f"`{command}`, {on}: {', '.join(names)}." for (command, on), names in runs.items()]
    rows = [Result(**one) for part in kept.values() for one in part["results"]]
    lines = f"On a machine of {os.cpu_count()} cores. {' '.join(said)}"
    path.write_text(f"{before}{BEGIN}\n{lines}\n\n{table(rows)}{END}{after}")


def main() -> int:
    """Run the parts asked for; status 1 when one of their promises was not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas")
    parser.add_argument("--minutes", type=float, default=10, help="of load")
    parser.add_argument("--memories", type=int, default=200_000, help="in the store under load")
    parser.add_argument("--cases", type=int, default=20_000, help="generated requests")
    parser.add_argument("--examples", type=int, default=2_000, help="sequences of the model")
    parser.add_argument("--every", type=int, default=1, help="kill an install at every so-manieth statement")
    parser.add_argument("--no-document", action="store_true", help="leave results.json and docs/reliability.md alone")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    found = {name: run(name, options) for name in names}
    results = [result for part in found.values() for result in part]
    sys.stdout.write(table(results))
    if not options.no_document:
        document(keep(found, " ".join(["python", "torture/run.py", *sys.argv[1:]])))
    return 1 if any(one.kept is False for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
