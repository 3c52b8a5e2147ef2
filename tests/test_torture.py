"""The long run, at its smallest: it measures, judges, and writes its table where the document has a place for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "torture" / "run.py"
pytestmark = pytest.mark.servers("any")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, "--no-document", *arguments], capture_output=True, text=True, timeout=200, check=False
    )


def test_load_and_herd_at_their_smallest() -> None:
    done = run("--only", "load", "--minutes", "0.05", "--memories", "2000")
    lines = done.stdout.splitlines()
    assert lines[0] == "| tried | found | kept |", done.stderr
    tried = [line.split(" | ")[0] for line in lines[2:]]
    assert [line.strip("| ").split(" ")[0] for line in tried] == ["64", "resident", "connections", "1,000"]
    # Three seconds say nothing of drift; the other promises hold at any size.
    assert [line for line in lines[2:] if not line.endswith("| yes |") and "drift" not in line] == []


def test_a_part_that_is_not_there_is_named() -> None:
    done = run("--only", "earthquake")
    assert done.returncode == 2
    assert "earthquake" in done.stderr


def test_the_document_has_a_place_for_the_figures() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert text.count("<!-- figures: make torture -->") == text.count("<!-- end of figures -->") == 1
