"""Show the progress of a long command on standard error: a bar at a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_PLAIN_INTERVAL = 5.0


@dataclass(frozen=True)
class Meter:
    """What a long task calls: `advance` by rows or bytes that are done, `stage` when the kind of work changes.

    `rows` begins a part of so many rows, which `advance` counts from then on.
    """

    advance: Callable[[int], None]
    stage: Callable[[str], None]
    rows: Callable[[str, int], None]


@contextmanager
def meter(label: str, total: int | None, unit: str = "rows") -> Iterator[Meter]:
    """Yield a meter of a task; `unit` is rows or bytes, `total` is None where nobody knows it."""
    if sys.stderr.isatty():
        with _bar(label, total, unit) as shown:
            yield shown
    else:
        plain = _Plain(label, total, unit)
        yield Meter(advance=plain.advance, stage=plain.stage, rows=plain.rows)


@contextmanager
def _bar(label: str, total: int | None, unit: str) -> Iterator[Meter]:
    """Yield a meter that draws a bar with rate and time left."""
    shown = _Amount(unit)
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        shown,
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total)

        def stage(text: str) -> None:
            """Begin a part whose end cannot be foreseen."""
            progress.update(task, description=f"{label}: {text}")

        def rows(text: str, count: int) -> None:
            """Begin a part of so many rows."""
            shown.unit = "rows"
            progress.reset(task, total=count, description=f"{label}: {text}")

        yield Meter(advance=lambda count: progress.update(task, advance=count), stage=stage, rows=rows)


class _Amount(ProgressColumn):
    """How much is done, of how much, and how fast."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        return Text(
            amount(int(task.completed), None if task.total is None else int(task.total), task.speed or 0, self.unit)
        )


class _Plain:
    """A meter that prints a line now and then."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._begun = self._told = time.monotonic()

    def advance(self, count: int) -> None:
        """Count, and print when the last line is some seconds old."""
        self._done += count
        now = time.monotonic()
        if now - self._told < _PLAIN_INTERVAL:
            return
        self._told = now
        rate = self._done / (now - self._begun)
        # More may come than was foreseen.
        known = rate and self._total and self._done <= self._total
        left = f", {((self._total or 0) - self._done) / rate:.0f} s left" if known else ""
        self._say(amount(self._done, self._total, rate, self._unit) + left)

    def stage(self, text: str) -> None:
        """Print what begins now."""
        self._say(text)

    def rows(self, text: str, count: int) -> None:
        """Print what begins now, and count anew."""
        self._say(text)
        self._total, self._unit, self._done = count, "rows", 0
        self._begun = self._told = time.monotonic()

    def _say(self, text: str) -> None:
        click.echo(f"{self._label}: {text}", err=True)


def amount(done: int, total: int | None, rate: float, unit: str) -> str:
    """Return how much is done in words: `1,000 of 5,000 rows (20 %), 340/s`."""
    if unit == "bytes":
        whole = "" if total is None else f" of {total / 1e6:,.1f}"
        share = f" ({done / total:.0%})" if total else ""
        return f"{done / 1e6:,.1f}{whole} MB{share}, {rate / 1e6:,.1f} MB/s"
    whole = "" if total is None else f" of {total:,}"
    share = f" ({done / total:.0%})" if total else ""
    return f"{done:,}{whole} {unit}{share}, {rate:,.0f}/s"
