"""Requests generated from the served OpenAPI document, with schemathesis, against a running sidecar."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROGRAM = Path(sys.executable).with_name("schemathesis")
# Of a store for generated requests: 1,536 generated numbers a request would say little.
DIMENSIONS = 3
PHASES = "examples,coverage,fuzzing,stateful"


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its exit status, how many requests it made, what it printed."""

    status: int
    cases: int
    said: str


def of_this_store(spec: dict[str, Any], dimensions: int) -> dict[str, Any]:
    """Return the document as it is true of a store of so many dimensions, which one for every store cannot say.

    0: no embeddings.
    """
    # An embedding is in single precision, in which the first of these is infinite and the second the last that is zero.
    infinite, nothing = 3.402823567797337e38, 2.0**-150
    number = {"type": "number", "exclusiveMinimum": -infinite, "exclusiveMaximum": infinite}
    zeros = {"items": {"minimum": -nothing, "maximum": nothing}}
    vector = {"type": "array", "items": number, "minItems": dimensions, "maxItems": dimensions, "not": zeros}
    empty = {"type": "array", "items": {"type": "number"}, "maxItems": 0}
    for schema in ("MemoryWrite", "SearchRequest"):
        spec["components"]["schemas"][schema]["properties"]["embedding"] = {
            "anyOf": [*([vector] if dimensions else []), empty, {"type": "null"}]
        }
    return spec


def run_generated(
    base_url: str,
    folder: Path,
    environ: dict[str, str],
    examples: int,
    *,
    seed: int | None = None,
    dimensions: int = 0,
    token: str = "",
    timeout: float = 240,
) -> Outcome:
    """Run all four phases with so many examples an operation; without a seed the same cases in every run."""
    document = folder / "openapi.json"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    served = httpx.get(f"{base_url}/v1/openapi.json", headers=headers, trust_env=False)
    document.write_text(json.dumps(of_this_store(served.json(), dimensions)))
    chance = ["--generation-deterministic"] if seed is None else ["--seed", str(seed), "--generation-database", "none"]
    done = subprocess.run(
        [
            *(str(PROGRAM), "run", str(document), "--url", base_url, "--checks", "all", "--no-color", *chance),
            # A NUL, which no text here may hold, is tried by hand elsewhere.
            *("--generation-allow-x00", "false", "--max-examples", str(examples)),
            *("--phases", PHASES, "--warnings", "off", "--continue-on-failure"),
            *(part for name, value in headers.items() for part in ("--header", f"{name}: {value}")),
            # The client's patience.
            *("--max-response-time", "2"),
        ],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    count = int(cases[1].replace(",", "")) if cases else 0
    return Outcome(done.returncode, count, done.stdout + done.stderr)
