"""`backfill --verify` finds every difference, in any number of batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fixtures.backfilling import W, make_source
from fixtures.installing import rows, settings_for
from memory_plugin.installer.transfer import comparing
from memory_plugin.installer.transfer.backfill import look, opened
from memory_plugin.installer.transfer.progress import Meter


@pytest.mark.servers("any")
def test_verify_holds_no_more_locks_the_more_batches_it_reads(database: str) -> None:
    make_source(database, 60)
    settings = settings_for(database)
    held: list[Any] = []
    locks = (
        "select count(*) from pg_locks as l inner join pg_stat_activity as a using (pid)"
        " where a.application_name = 'memory-plugin backfill' and a.datname = current_database()"
    )
    meter = Meter(advance=lambda _: held.extend(rows(database, locks)), stage=lambda _: None, rows=lambda *_: None)
    with opened(settings, settings) as doors:
        compared = comparing.compare(doors, look(doors), meter, size=1)
    assert compared.refused == 0
    assert len(held) == 60
    assert held[-1] == held[1]


@pytest.mark.parametrize(
    ("statement", "missing", "extra"),
    [
        ("delete from memory_plugin.memory_records where content = 'memory 1'", 1, 0),
        ("update memory_plugin.memory_records set content = 'memory 2' where content = 'memory 1'", 1, 1),
        ("insert into memory_plugin.memory_records (namespace, content, kind, source)"
         " select namespace, content, kind, source from memory_plugin.memory_records where content = 'memory 1'", 0, 1),
        ("update memory_plugin.memory_records set expires_at = '2020-01-01' where content = 'memory 1'", 1, 0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("sample", [(), ("--sample", "5")])
def test_verify_finds_what_is_missing_changed_or_doubled(
    database: str, backfill: Callable[..., Any], statement: str, missing: int, extra: int, sample: tuple[str, ...]
) -> None:
    make_source(database, 4)
    assert backfill()[0] == 0
    assert backfill("--verify", *sample)[0] == 0
    rows(database, statement)
    code, facts = backfill("--verify", *sample)
    assert code == 27
    (different,) = facts["different"]
    assert (different["namespace"], different["missing"], different["extra"]) == (f"workspace:{W(2)}", missing, extra)


def test_verify_can_leave_out_what_the_platform_has_added_since(database: str, backfill: Callable[..., Any]) -> None:
    make_source(database, 2)
    assert backfill()[0] == 0
    rows(database, f"select memory_plugin.commit_memory('workspace:{W(2)}', 'since then')")
    assert backfill("--verify")[0] == 27
    assert backfill("--verify", "--ignore-new")[0] == 0
