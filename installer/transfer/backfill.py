"""Bring the platform's earlier memories into the store, batch by batch, none of it written twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError
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
    with (
        store.session(source_settings, "backfill, reading the source") as source,
        store.session(settings, "backfill") as target,
        store.session(settings, "backfill, namespaces", autocommit=True) as names,
    ):
        yield Doors(source, target, names, settings, source_settings)


def look(doors: Doors) -> Earlier:
    """Check both databases and return the facts of the source."""
    store.begin(doors.target, doors.settings)
    doors.target.rollback()
    earlier_table.begin(doors.source, doors.source_settings)
    found = earlier_table.look(doors.source)
    doors.source.rollback()
    return found


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
    made: set[str] = set()
    if after is None and earlier.without_id:
        reason = "id is null"
        note(Refused(None, None, None, None, reason + f", in {earlier.without_id} rows"))
        tally.read += earlier.without_id
        tally.refused += earlier.without_id
        tally.reasons[reason] += earlier.without_id
    while True:
        staged, _ = _stage(doors, earlier, tally.last_id, size)
        if not staged.rows:
            doors.target.rollback()
            return
        staging.compare(doors.target)
        totals = staging.totals(doors.target)
        refusals = staging.refused(doors.target)
        if dry_run:
            doors.target.rollback()
        else:
            _make_namespaces(doors, staging.wanted_namespaces(doors.target), made)
            staging.write(doors.target)
            doors.target.commit()
        _count(tally, staged, totals, refusals)
        for refusal in refusals:
            note(refusal)
        meter.advance(staged.rows)


def _stage(doors: Doors, earlier: Earlier, after: str | None, size: int) -> tuple[Staged, sql.Identifier]:
    """Begin a transaction on both sides, and stage the next batch."""
    vector = store.begin(doors.target, doors.settings)
    earlier_table.begin(doors.source, doors.source_settings)
    staged = staging.stage(doors.source, doors.target, vector, earlier, after, size)
    doors.source.rollback()
    return staged, vector


def _make_namespaces(doors: Doors, wanted: list[str], made: set[str]) -> None:
    """Make the namespaces that are not there.

    Outside the batch's transaction: a commit to a namespace that an open transaction has just made waits for its end.
    """
    for name in wanted:
        if name not in made:
            doors.names.execute(
                "select memory_plugin._start_namespace(%s, memory_plugin._kind_of_namespace(%s), null, null)",
                (name, name),
            )
            made.add(name)


def _count(tally: Tally, staged: Staged, totals: list[Total], refusals: list[Refused]) -> None:
    """Add a batch to the tally."""
    tally.read += staged.rows
    tally.last_id = staged.last_id
    for total in totals:
        tally.written += total.written
        tally.unchanged += total.unchanged
        tally.refused += total.refused
        if total.written + total.unchanged:
            tally.places[total.workspace, total.namespace] += total.written + total.unchanged
    tally.reasons.update(_kind(refusal.reason) for refusal in refusals)


def _kind(reason: str) -> str:
    """Return a reason without what differs from row to row."""
    head, colon, _ = reason.partition(": workspace ")
    if colon:
        return head
    return "orphan" if reason.startswith("orphan: ") else reason


class RefusedFile:
    """A file of NDJSON that is made when the first row is refused."""

    def __init__(self, path: Path, *, keep: bool) -> None:
        """Write to `path`; `keep` adds to what an earlier run wrote there."""
        self._path = path
        self._keep = keep
        self._file: TextIO | None = None

    def __enter__(self) -> RefusedFile:
        """Check that the file can be made before an hour's work, not after it."""
        if not self._path.parent.is_dir():
            raise BadSettingError(f"--refused: there is no folder {self._path.parent}")
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()

    @property
    def written(self) -> bool:
        """Tell whether any row was refused."""
        return self._file is not None

    def note(self, refusal: Refused) -> None:
        """Write one row: where it is and why it stays behind, never its content."""
        if self._file is None:
            try:
                self._file = self._path.open("a" if self._keep else "w", encoding="utf-8")
            except OSError as error:
                raise BadSettingError(f"--refused: cannot write {self._path}: {error.strerror}") from None
        print(json.dumps(asdict(refusal), ensure_ascii=False), file=self._file, flush=True)
