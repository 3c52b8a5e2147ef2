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
PHASES = "examples,coverage,fuzzing,stateful"


@dataclass(frozen=True)
class Outcome:
    """What a run came to: its exit status, how many requests it made, what it printed."""

    status: int
    cases: int
    said: str


def of_this_store(spec: dict[str, Any]) -> dict[str, Any]:
    """Return the document as it is true of one store.

    An embedding has exactly the store's dimensions, which a document for every store cannot say; 1,536 generated
    numbers a request would say little, and the contract's tests send them.
    """
    for schema in ("MemoryWrite", "SearchRequest"):
        choices = spec["components"]["schemas"][schema]["properties"]["embedding"]["anyOf"]
        (array,) = (choice for choice in choices if "items" in choice)
        array["maxItems"] = 0
    return spec


def run_generated(
    base_url: str,
    folder: Path,
    environ: dict[str, str],
    examples: int,
    *,
    seed: int | None = None,
    token: str = "",
    timeout: float = 240,
) -> Outcome:
    """Run all four phases with so many examples an operation; without a seed the same cases in every run."""
    document = folder / "openapi.json"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    served = httpx.get(f"{base_url}/v1/openapi.json", headers=headers, trust_env=False)
    document.write_text(json.dumps(of_this_store(served.json())))
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
