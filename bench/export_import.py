"""Export and import of memories without embeddings against `psql \\copy` of the same rows, taken in turn.

python bench/export_import.py [--memories N] [--rounds N] [--quick] [--output FILE]

Runs on a server of its own, made for the run and removed after it. Each round takes, one after the other: \\copy of the
rows out, `memory-plugin export`, \\copy of that file into an emptied store with all its indexes, `memory-plugin import`
into another. The ratio is of the medians. Peak memory is that of the client process, for the whole and for a tenth of
the rows: constant memory shows as the same figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fixtures.cluster import cluster
from fixtures.server import Server, embedded_bin_dir
from memory_plugin.installer import api, settings

COLUMNS = "namespace, id, content, kind, source, expires_at, propagation, pin, created_at"
FILL = """
insert into memory_plugin.memory_namespaces (name, kind)
select 'workspace:' || n, 'workspace' from generate_series(0, 999) as n
"""
# Words enough for a vocabulary of some thousands, about 120 characters a memory.
ROWS = """
insert into memory_plugin.memory_records (namespace, content, kind, source, pin, created_at)
select 'workspace:' || i %% 1000,
    'Memory ' || i || ': ' || (
        select string_agg('w' || substr(md5((i * 31 + w)::text), 1, 3), ' ') from generate_series(1, 20) as w
    ),
    (array['fact', 'summary', 'checkpoint'])[1 + i %% 3], 'agent', i %% 50 = 0,
    '2026-01-01'::timestamptz + i * interval '1 second'
from generate_series(1, %s) as i
"""
PROGRAM = Path(sys.executable).with_name("memory-plugin")


def timed(command: list[str], **environ: str) -> tuple[float, float]:
    """Run a command to its end; return seconds on the clock and its peak memory in MB."""
    began = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:3]} ended with {process.returncode}")
    return time.monotonic() - began, usage.ru_maxrss / 1024


def store(server: Server, name: str) -> str:
    """Make a database with an empty store and return its URL."""
    server.execute(f'create database "{name}"')
    url: str = server.url(name)
    api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": url}))
    return url


def emptied(server: Server, name: str) -> str:
    """Drop and make a store anew."""
    server.execute(f'drop database if exists "{name}" with (force)')
    return store(server, name)


def measure(server: Server, memories: int, rounds: int, folder: Path) -> dict[str, object]:
    """Return the figures for so many memories."""
    source = emptied(server, "source")
    with psycopg.connect(source, autocommit=True) as connection:
        connection.execute(FILL)
        connection.execute(ROWS, [memories])
        connection.execute("vacuum analyze")
    psql = [str(server.tool("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    lines, copied, spaces = folder / "store.ndjson", folder / "store.copy", folder / "spaces.copy"
    times: dict[str, list[float]] = {"copy out": [], "export": [], "copy in": [], "import": []}
    peaks: dict[str, float] = {}
    for _ in range(rounds):
        out = f"\\copy (select {COLUMNS} from memory_plugin.memory_records) to '{copied}'"  # noqa: S608
        times["copy out"].append(timed([*psql, source, "-c", out])[0])
        took, peaks["export"] = timed([str(PROGRAM), "export", str(lines)], MEMORY_PLUGIN_DATABASE_URL=source)
        times["export"].append(took)
        timed([*psql, source, "-c", f"\\copy memory_plugin.memory_namespaces to '{spaces}'"])
        target = emptied(server, "target")
        timed([*psql, target, "-c", f"\\copy memory_plugin.memory_namespaces from '{spaces}'"])
        server.execute("checkpoint")
        into = f"\\copy memory_plugin.memory_records ({COLUMNS}) from '{copied}'"
        times["copy in"].append(timed([*psql, target, "-c", into])[0])
        target = emptied(server, "target")
        server.execute("checkpoint")
        took, peaks["import"] = timed([str(PROGRAM), "import", str(lines)], MEMORY_PLUGIN_DATABASE_URL=target)
        times["import"].append(took)
        with psycopg.connect(target) as connection:
            row = connection.execute("select count(*) from memory_plugin.memory_records").fetchone()
            if row != (memories,):
                raise SystemExit(f"{row} memories came back, not {memories}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "memories": memories,
        "rounds": rounds,
        "seconds": {name: round(value, 2) for name, value in medians.items()},
        "export_over_copy": round(medians["export"] / medians["copy out"], 2),
        "import_over_copy": round(medians["import"] / medians["copy in"], 2),
        "peak_mb": {name: round(value, 1) for name, value in peaks.items()},
    }


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memories", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="20,000 memories, one round: does it run at all")
    parser.add_argument("--output", type=Path, help="default: bench/results/export_import.json; none with --quick")
    given = parser.parse_args()
    memories, rounds = (20_000, 1) if given.quick else (given.memories, given.rounds)
    with (
        tempfile.TemporaryDirectory(prefix="mp-bench-") as folder,
        cluster("bench", embedded_bin_dir(18), {"shared_buffers": "1GB", "max_wal_size": "8GB"}) as server,
    ):
        small = measure(server, max(1000, memories // 10), 1, Path(folder))
        whole = measure(server, memories, rounds, Path(folder))
        figures = {"server": server.version, "whole": whole, "tenth": small}
    text = json.dumps(figures, indent=2)
    print(text)  # noqa: T201
    output = given.output or (None if given.quick else Path(__file__).parent / "results" / "export_import.json")
    if output is not None:
        output.parent.mkdir(exist_ok=True)
        output.write_text(text + "\n")


if __name__ == "__main__":
    main()
