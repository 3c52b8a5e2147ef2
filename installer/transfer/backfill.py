"""Bring the platform's earlier memories into the store, batch by batch, none of it written twice."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from memory_plugin.installer import waiting
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError, LoginRefusedError, ServerUnreachableError
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.transfer import earlier_table, staging, store
from memory_plugin.installer.transfer.earlier_table import Earlier
from memory_plugin.installer.transfer.progress import Meter
from memory_plugin.installer.transfer.staging import Refused, Staged, Total


@dataclass
class Tally:
    """What a run has done so far."""

    read: int = 0
    written: int = 0
    updated: int = 0
    """Memories of an earlier run whose embedding the source has got since; it was brought."""
    unchanged: int = 0
    refused: int = 0
    last_id: str | None = None
    """The last id that is done for good: a later run may begin after it."""
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(workspace, namespace) -> rows that are or would be there."""
    reasons: Counter[str] = field(default_factory=Counter)
    warnings: tuple[str, ...] = ()
    refused_file: str | None = None


@dataclass(frozen=True)
class Doors:
    """The two databases: `source` is only read; `names` makes namespaces, each in a transaction of its own."""

    source: Connection
    target: Connection
    names: Connection
    settings: Settings
    source_settings: Settings


@contextmanager
def opened(settings: Settings, source_settings: Settings) -> Iterator[Doors]:
    """Open the connections that a backfill needs."""
    with ExitStack() as stack:
        try:
            source = stack.enter_context(store.session(source_settings, "backfill, reading the source"))
        except (ServerUnreachableError, LoginRefusedError) as error:
            if source_settings.url_source != "--source-url":
                raise
            hint = error.hint.replace("DATABASE_URL", "--source-url")
            raise type(error)(error.detail, hint=hint, stem=error.stem) from None
        names = stack.enter_context(store.session(settings, "backfill, namespaces", autocommit=True))
        target = stack.enter_context(store.session(settings, "backfill"))
        yield Doors(source, target, names, settings, source_settings)


def look(doors: Doors) -> Earlier:
    """Check both databases and return the facts of the source."""
    store.begin(doors.target, doors.settings)
    doors.target.rollback()
    with earlier_table.reading(doors.source, doors.source_settings):
        return earlier_table.look(doors.source)


def run(
    doors: Doors,
    earlier: Earlier,
    meter: Meter,
    note: Callable[[Refused], None],
    *,
    tally: Tally,
    size: int,
    after: str | None = None,
    dry_run: bool = False,
) -> None:
    """Read every row once, in order of id; count into `tally`, true after each batch, and note what is refused.

    With `dry_run` every batch is judged and rolled back.
    """
    tally.warnings = earlier.warnings
    tally.last_id = after
    if after is None and earlier.without_id:
        reason = "id is null"
        note(Refused(None, None, None, None, reason + f", in {earlier.without_id} rows"))
        tally.read += earlier.without_id
        tally.refused += earlier.without_id
        tally.reasons[reason] += earlier.without_id
    while True:
        staging.make_tables(doors.target, store.begin(doors.target, doors.settings))
        batch = earlier_table.batch(doors.source, doors.source_settings, earlier, tally.last_id, size)
        staged = staging.stage(doors.target, earlier, batch)
        if not staged.rows:
            doors.target.rollback()
            return
        staging.compare(doors.target)
        if not dry_run:
            _make_namespaces(doors, staging.wanted_namespaces(doors.target))
            staging.write(doors.target)
        totals = staging.totals(doors.target)
        refusals = staging.refused(doors.target)
        # Before the commit: a later run that begins after this batch does not see its refused rows again.
        for refusal in refusals:
            note(refusal)
        if dry_run:
            doors.target.rollback()
        else:
            doors.target.commit()
        _count(tally, staged, totals, refusals)
        meter.advance(staged.rows)


def _make_namespaces(doors: Doors, wanted: list[str]) -> None:
    """Make the namespaces that are not there.

    Outside the batch's transaction: a commit to a namespace that an open transaction has just made waits for its end.
    """
    with waiting.naming(doors.names, doors.settings, "backfill, making a namespace"):
        for name in wanted:
            with doors.names.transaction():
                waiting.prepare_transaction(doors.names, doors.settings)
                doors.names.execute(
                    "select memory_plugin._start_namespace(%s, memory_plugin._kind_of_namespace(%s), null, null)",
                    (name, name),
                )


def _count(tally: Tally, staged: Staged, totals: list[Total], refusals: list[Refused]) -> None:
    """Add a batch to the tally."""
    tally.read += staged.rows
    tally.last_id = staged.last_id
    for total in totals:
        tally.written += total.written
        tally.updated += total.updated
        tally.unchanged += total.unchanged
        tally.refused += total.refused
        kept = total.written + total.updated + total.unchanged
        if kept:
            tally.places[total.workspace, total.namespace] += kept
    tally.reasons.update(_kind(refusal.reason) for refusal in refusals)


def _kind(reason: str) -> str:
    """Return a reason without what differs from row to row."""
    head, colon, _ = reason.partition(": workspace ")
    if colon:
        return head
    return "orphan" if reason.startswith("orphan: ") else reason


class RefusedFile:
    """A file of NDJSON, a line for each refused row; there is none when no row was refused."""

    def __init__(self, path: Path | None, *, keep: bool) -> None:
        """Write to `path`, None for nowhere; `keep` adds to what an earlier run wrote there."""
        self._path = path
        self._keep = keep
        self._file: TextIO | None = None

    def __enter__(self) -> RefusedFile:
        """Open the file before an hour's work, not after it."""
        if self._path is not None:
            with self._written():
                self._file = self._path.open("a" if self._keep else "w", encoding="utf-8")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close the file, and leave no empty one."""
        if self._file is None or self._path is None:
            return
        held = os.fstat(self._file.fileno())
        # Closing writes anew what could not be written, which is told already.
        with contextlib.suppress(OSError) if kind else self._written():
            self._file.close()
        if stat.S_ISREG(held.st_mode) and not held.st_size:
            self._path.unlink(missing_ok=True)

    def note(self, refusal: Refused) -> None:
        """Write one row: where it is and why it stays behind, never its content."""
        if self._file is not None:
            with self._written():
                print(json.dumps(asdict(refusal), ensure_ascii=False), file=self._file, flush=True)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """Say which file cannot be written."""
        try:
            yield
        except OSError as error:
            told = f"--refused: cannot write {self._path}: {error.strerror}"
            raise BadSettingError(told, hint="name a file that can be written with --refused") from None
