"""A long command shows how far it is: a bar with rate and time left at a terminal, plain lines elsewhere."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fixtures.installing import rows
from fixtures.sidecars import PROGRAM, at_a_terminal, clean_env
from memory_plugin.installer.transfer import progress

ROWS = """
    insert into memory_plugin.memory_records (namespace, content, kind, source)
    select 'team:a', 'memory ' || i, 'fact', 'agent' from generate_series(1, 2000) as i
"""


@pytest.mark.servers("any")
def test_a_terminal_gets_a_bar_with_rate_and_time_left(database: str, tmp_path: Path) -> None:
    rows(database, "select memory_plugin.upsert_namespace('team:a', 'team')")
    rows(database, ROWS)
    text = at_a_terminal("export", tmp_path / "all.ndjson", "--database-url", database, columns=160)
    assert "2,001 of 2,001 rows (100%)" in text
    assert "/s" in text
    assert "left" in text
    assert "━" in text


def test_elsewhere_a_plain_line_comes_now_and_then_with_rate_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter((0.0, 1.0, 6.0, 7.0, 12.0, 20.0, 26.0))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.meter("export", 1000) as shown:
        for _ in range(3):
            shown.advance(100)
        shown.stage("comparing")
        shown.advance(300)
        shown.rows("writing 50 memories", 50)
        shown.advance(30)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "export: 200 of 1,000 rows (20%), 33/s, 24 s left",
        "export: comparing",
        "export: 600 of 1,000 rows (60%), 50/s, 8 s left",
        "export: writing 50 memories",
        "export: 30 of 50 rows (60%), 5/s, 4 s left",
    ]
    assert "\x1b" not in printed.err
    assert "\r" not in printed.err


@pytest.mark.servers("any")
def test_a_command_in_a_pipe_prints_no_control_characters(database: str) -> None:
    done = subprocess.run(
        [PROGRAM, "export", "-", "--database-url", database], env=clean_env(), capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert b"\x1b" not in done.stderr
    assert b"\r" not in done.stderr
