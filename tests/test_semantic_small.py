"""Search by embedding where few memories are asked: the short way, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.server import Server
from semantic_store import DIMENSIONS, Store, filled_store

FEW, SOME, MOST = "workspace:few", "team:some", "org:most"
# A quarter of them have expired: 45, 525 and 1,000 are alive, the most that take the short way.
SIZES = {FEW: 60, SOME: 700, MOST: 1334}
CALLED = "select coalesce(pg_stat_get_xact_function_calls('memory_plugin._semantic_sizes'::regproc), 0)"
PARTS = """
select jsonb_build_array(h.parts -> 'semantic', 1 - (r.embedding operator({vector}.<=>) %(e)s::{vector}.vector))
from memory_plugin.search(
    %(n)s, 'memory', embedding => %(e)s::{vector}.vector, explain => true, max_results => 100, lexical_weight => 0.1
) as h
inner join memory_plugin.memory_records as r on r.namespace = h.namespace and r.id = h.id
"""


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    with filled_store(server, DIMENSIONS, SIZES) as store:
        store.run("set track_functions = 'pl'")
        yield store


def took_the_long_way(store: Store, namespaces: list[str], **filters: Any) -> bool:
    """Ask about a memory of the first namespace; return whether namespaces were told apart by their size."""
    embedding = store.embedding(namespaces[0], 7)
    with store.connection.transaction():
        before = store.run(CALLED)[0]
        found, exact = store.both(namespaces, embedding, **filters)
        assert found == exact
        return bool(store.run(CALLED)[0] > before)


def test_the_short_way_ends_with_the_thousandth_live_memory(store: Store) -> None:
    assert not took_the_long_way(store, [MOST])
    answer = store.answer([MOST], store.embedding(MOST, 8))
    assert (answer["exact"], answer["candidates"]) == (True, 1000)
    with store.connection.transaction(force_rollback=True):
        store.fill(MOST, 1335, first=1335)
        assert took_the_long_way(store, [MOST])
        assert store.answer([MOST], store.embedding(MOST, 8))["candidates"] == 1001
        # Another kind does not count.
        assert not took_the_long_way(store, [MOST], kinds=["fact"])
    assert took_the_long_way(store, [MOST, FEW])


def test_a_wide_store_takes_it_up_to_as_many_as_are_compared_by_their_vectors(server: Server) -> None:
    # 416 of 1,536 dimensions: 640,000 numbers.
    with filled_store(server, 1536, {MOST: 554}) as store:
        store.run("set track_functions = 'pl'")
        store.fill(FEW, 8)
        store.run("delete from memory_plugin.memory_records where namespace = %(n)s and expires_at is not null", n=FEW)
        assert store.answer([MOST], store.embedding(MOST, 8))["candidates"] == 415
        for others, long in [(5, True), (1, False)]:
            store.run(
                "delete from memory_plugin.memory_records where namespace = %(n)s and id not in "
                "(select id from memory_plugin.memory_records where namespace = %(n)s order by created_at limit %(k)s)",
                n=FEW,
                k=others,
            )
            assert took_the_long_way(store, [MOST, FEW]) is long


@pytest.mark.parametrize("limit", [1, 10, 100])
@pytest.mark.parametrize("names", [[FEW], [SOME], [FEW, SOME]], ids=["few", "some", "both"])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"kinds": ["checkpoint"]},
        {"kinds": ["checkpoint", "summary"], "sources": ["user"]},
        {"after": "2024-01-01 00:20Z", "before": "2024-01-01 00:40Z"},
        {"sources": ["runtime"]},
    ],
    ids=["all", "kind", "kinds and source", "time", "nothing"],
)
def test_it_finds_what_comparing_every_row_finds(
    store: Store, names: list[str], limit: int, filters: dict[str, Any]
) -> None:
    for number in (3, 8, 12):
        found, exact = store.both(names, store.embedding(FEW, number), limit, **filters)
        assert found == exact
    assert not took_the_long_way(store, names, limit=limit, **filters)


def test_rows_that_half_precision_confuses_are_told_apart_by_their_vectors(store: Store) -> None:
    with store.connection.transaction(force_rollback=True):
        # The further down the list, the later: by score alone they would come in any order.
        store.run(
            "insert into memory_plugin.memory_records (namespace, id, content, kind, source, created_at, embedding) "
            "select %(n)s, md5('copy' || i)::uuid, 'copy ' || i, 'fact', 'agent', now() + i * interval '1 s', "
            "(select array_agg((1 + case when d = 3 then i * 0.00002 else 0 end)::real order by d) "
            "from generate_series(1, {dimensions}) as d)::{vector}.vector from generate_series(1, 200) as i",
            n=FEW,
        )
        ones = "[" + ",".join(["1"] * DIMENSIONS) + "]"
        for limit in (1, 10, 100):
            found, exact = store.both([FEW], ones, limit)
            assert found == exact


@pytest.mark.parametrize(("name", "stored"), [(FEW, True), (SOME, False)])
def test_beside_words_the_scores_of_many_are_those_of_the_copies(store: Store, name: str, *, stored: bool) -> None:
    rows = store.run(PARTS, n=[name], e=store.embedding(name, 8))
    off = [abs(semantic - measured) for semantic, measured in rows if semantic is not None]
    assert len(off) >= 40
    assert max(off) < 0.001
    assert (max(off) < 1e-9) is stored
