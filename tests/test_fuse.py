"""Fusion: lists that are known to be whole save fetches, and change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from fixtures.databases import fresh_database
from fixtures.installing import install
from fixtures.server import Server
from semantic_store import Store

NAMESPACE = "team:fuse"
DIMENSIONS = 16
# Every seventh has no embedding.
FILL = """
select memory_plugin.commit_memory(
    %(n)s, words.list[i %% 5 + 1] || ' ' || words.list[i / 20 + 1] || ' number ' || i,
    -- Of those alike, the same are the first each time.
    id => md5('basket' || i)::uuid,
    kind => case when i %% 3 = 0 then 'summary' else 'fact' end,
    embedding => case when i %% 7 > 0 then (
        select array_agg((i * d) %% 17 - 8 order by d) from generate_series(1, {dimensions}) as d
    )::{vector}.vector end
)
from generate_series(0, 99) as i, (select array['apple', 'pear', 'plum', 'cherry', 'quince'] as list) as words
"""
FUSED = """
with arms as (
    select
        memory_plugin._lexical_candidates(array[%(n)s], %(q)s, %(f)s::memory_plugin._filter, 200, false, false) as l,
        memory_plugin._semantic_candidates(
            array[%(n)s], %(e)s::{vector}.vector, %(f)s::memory_plugin._filter, 200, false
        ) as s
)

select to_jsonb(f)
from arms as a
cross join unnest(
    memory_plugin._fuse(
        (a.l).candidates[:%(most)s],
        memory_plugin._lexical_allowed((a.s).candidates[:%(most)s], (a.l).plan),
        (a.l).plan, %(e)s::{vector}.vector, %(f)s::memory_plugin._filter, 0.5, 0.5, %(w)s, %(whole)s, %(whole)s
    )
) as f
order by f.namespace, f.id
"""


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with fresh_database(server) as url:
        install(url, dimensions=DIMENSIONS)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            store = Store(connection, DIMENSIONS)
            store.run(FILL, n=NAMESPACE)
            yield store


def fused(store: Store, *, whole: bool, most: int = 200, **asked: Any) -> list[Any]:
    """Return what is fused of the first of both lists."""
    values = {"n": NAMESPACE, "e": str([(3 * place) % 17 - 8 for place in range(1, DIMENSIONS + 1)]), "f": None, "w": 0}
    return store.run(FUSED, **values | asked, whole=whole, most=most)


@pytest.mark.parametrize("weight", [0, 0.45])
@pytest.mark.parametrize("kinds", [None, "summary"])
@pytest.mark.parametrize("query", ["apple pear", '"apple pear" quince', "cherry -apple", "nothing"])
def test_whole_lists_are_fused_as_others_are(store: Store, query: str, kinds: str | None, weight: float) -> None:
    chosen = f'("{{{kinds}}}",,,)' if kinds else None
    known = fused(store, whole=True, q=query, f=chosen, w=weight)
    assert known == fused(store, whole=False, q=query, f=chosen, w=weight)
    assert len(known) >= 15


def test_what_is_not_in_a_list_has_its_score_unless_that_list_is_whole(store: Store) -> None:
    known = fused(store, whole=True, q="apple pear", most=10)
    found = fused(store, whole=False, q="apple pear", most=10)
    assert [row["id"] for row in known] == [row["id"] for row in found]
    assert sum(row["semantic"] is not None for row in known) == sum(row["lexical"] > 0 for row in known) == 10
    # Of those found by words every seventh has no embedding.
    assert sum(row["semantic"] is not None for row in found) > 15
    assert sum(row["lexical"] > 0 for row in found) > 12
