"""What commands tell is shown as it is, whatever it holds."""

from __future__ import annotations

import io
import re
import sys

import pytest

from memory_plugin.installer import report

ODD = ("scope is [/bold], and not one of: LOCAL", "postgresql://app@[fe80::1]/app", "team:key:x", "[red]red[/red]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_table_takes_no_value_for_markup(monkeypatch: pytest.MonkeyPatch, odd: str, stream: str) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, stream, terminal)
    report.print_rows(f"title {odd}", [(f"name {odd}", f"value {odd}")], warnings=[odd], err=stream == "stderr")
    shown = re.sub("\x1b[^m]*m", "", terminal.getvalue())
    for text in (f"title {odd}", f"│ name {odd}", f"│ value {odd}", f"warning: {odd}"):
        assert text in shown
