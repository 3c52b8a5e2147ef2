"""Compare the store with the platform's earlier table: contents as multisets, namespace by namespace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from memory_plugin.installer.transfer import earlier_table, staging, store
from memory_plugin.installer.transfer.backfill import Doors
from memory_plugin.installer.transfer.earlier_table import Earlier, Group
from memory_plugin.installer.transfer.progress import Meter

# sha256 of the content stands for it: 32 bytes a row, whatever the content's length.
_EXPECTED = """
create temporary table memory_plugin_expected (namespace text, id uuid, hash bytea) on commit drop
"""
_EXPECT = """
insert into pg_temp.memory_plugin_expected
select namespace, id, pg_catalog.sha256(pg_catalog.convert_to(content, 'UTF8'))
from pg_temp.memory_plugin_backfill where reason is null
"""
_COMPARE = """
with source as (
    select namespace, hash, pg_catalog.count(*) as n from pg_temp.memory_plugin_expected group by 1, 2
),
wanted as (select distinct namespace from source),
held as (
    select r.namespace, pg_catalog.sha256(pg_catalog.convert_to(r.content, 'UTF8')) as hash, pg_catalog.count(*) as n
    from memory_plugin.memory_records as r
    inner join wanted on r.namespace = wanted.namespace
    inner join memory_plugin.memory_namespaces as s on r.namespace = s.name
    where (r.expires_at is null or r.expires_at > pg_catalog.now())
        and (s.expires_at is null or s.expires_at > pg_catalog.now())
        and (not %(ignore_new)s or exists (
            select from pg_temp.memory_plugin_expected as e where e.namespace = r.namespace and e.id = r.id
        ))
    group by 1, 2
),
compared as (
    select
        coalesce(source.namespace, held.namespace) as namespace,
        coalesce(source.n, 0) as source_n, coalesce(held.n, 0) as held_n
    from source full join held on source.namespace = held.namespace and source.hash = held.hash
)
select namespace, pg_catalog.sum(source_n)::bigint, pg_catalog.sum(held_n)::bigint,
    pg_catalog.sum(greatest(source_n - held_n, 0))::bigint, pg_catalog.sum(greatest(held_n - source_n, 0))::bigint
from compared group by namespace order by namespace
"""


@dataclass(frozen=True)
class Compared:
    """One namespace on both sides."""

    namespace: str
    source: int
    store: int
    missing: int
    """Contents of the source that the store does not have, counted as often as they are missing."""
    extra: int
    """Contents of the store that the source does not have."""

    @property
    def equal(self) -> bool:
        """Tell whether both sides hold the same contents, each as often."""
        return not self.missing and not self.extra


@dataclass(frozen=True)
class Comparison:
    """Every namespace that was compared, and how many rows of the source cannot be placed at all."""

    namespaces: tuple[Compared, ...]
    refused: int


def compare(
    doors: Doors, earlier: Earlier, meter: Meter, *, size: int, sample: int | None = None, ignore_new: bool = False
) -> Comparison:
    """Compare all namespaces that the source's rows go to, or `sample` of them taken at random; writes nothing.

    `ignore_new` leaves out memories of the store whose id the source does not have, as a platform in use adds them.
    """
    only = None if sample is None else _sampled(doors, earlier, sample)
    staging.make_tables(doors.target, store.begin(doors.target, doors.settings))
    doors.target.execute(_EXPECTED)
    after, refused = None, earlier.without_id if only is None else 0
    while True:
        batch = earlier_table.batch(doors.source, doors.source_settings, earlier, after, size, only)
        staged = staging.stage(doors.target, earlier, batch)
        if not staged.rows:
            break
        refused += staged.rows - doors.target.execute(_EXPECT).rowcount
        after = staged.last_id
        meter.advance(staged.rows)
    meter.stage("comparing")
    doors.target.execute("analyze pg_temp.memory_plugin_expected")
    rows = doors.target.execute(_COMPARE, {"ignore_new": ignore_new}).fetchall()
    doors.target.rollback()
    return Comparison(tuple(Compared(*row) for row in rows), refused)  # type: ignore[arg-type]


def _sampled(doors: Doors, earlier: Earlier, sample: int) -> Sequence[Group]:
    """Return the workspaces and scopes whose rows go to the namespaces of a sample."""
    with earlier_table.reading(doors.source, doors.source_settings):
        routed = [(group, earlier.lineage.route(*group).namespace) for group in earlier_table.groups(doors.source)]
    names = sorted({name for _, name in routed if name is not None})
    chosen = set(random.sample(names, min(sample, len(names))))
    return [group for group, name in routed if name in chosen]
