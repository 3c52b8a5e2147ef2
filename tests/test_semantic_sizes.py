"""Which namespaces are compared and which are walked: counted as far as it matters, or known to the planner."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.server import Server
from semantic_store import Store, filled_store, recall

HUGE, FEW = "org:huge", [f"team:few-{number}" for number in range(12)]
WRITTEN, LIVE = 12_000, 9_000
SIZES = "select (s.small, s.large, s.total)::text from memory_plugin._semantic_sizes(%(n)s, %(k)s, %(e)s, %(a)s) as s"
MANY = "select memory_plugin._semantic_many(%(n)s, %(k)s, %(m)s)"


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Store]:
    """Return a store of a namespace that the planner knows to be large, and of a dozen small ones."""
    with filled_store(server, 32, {HUGE: WRITTEN, **dict.fromkeys(FEW, 40)}) as store:
        store.run("vacuum memory_plugin.memory_vectors")
        yield store


@pytest.fixture
def store(filled: Store) -> Iterator[Store]:
    """Return the store in a transaction that is undone."""
    with filled.connection.transaction(force_rollback=True):
        yield filled


def counted(store: Store) -> int:
    """Return how many entries of the indexes over the copies were read in this transaction."""
    return int(
        store.run(
            "select sum(pg_stat_get_xact_tuples_returned(indexrelid)) from pg_index "
            "where indrelid = 'memory_plugin.memory_vectors'::regclass"
        )[0]
    )


def test_what_the_planner_knows_to_be_large_is_not_counted_so_far(store: Store) -> None:
    before = counted(store)
    assert store.run(SIZES, n=[HUGE], k=None, e=6000, a=300_000) == ["({},{" + HUGE + "},0)"]
    assert counted(store) - before < 1500
    assert store.run(MANY, n=[HUGE], k=None, m=5000) == [True]
    assert store.run(MANY, n=[HUGE], k=None, m=20_000) == [False]
    assert counted(store) - before < 1500


def test_the_planner_knows_what_is_live_and_of_a_kind(store: Store) -> None:
    planned = "select memory_plugin._semantic_planned(%(n)s, %(k)s)"
    for kinds in (None, ["fact"], ["checkpoint", "summary"]):
        live = store.run(
            "select count(*) from memory_plugin.memory_vectors where namespace = %(n)s "
            "and (expires_at is null or expires_at > now()) and (%(k)s::text[] is null or kind = any (%(k)s))",
            n=HUGE,
            k=kinds,
        )[0]
        assert store.run(planned, n=[HUGE], k=kinds)[0] == pytest.approx(live, rel=0.25)
    assert store.run(planned, n=[HUGE], k=None)[0] == pytest.approx(LIVE, rel=0.1)


def test_what_is_not_far_larger_is_counted_once_more(store: Store) -> None:
    before = counted(store)
    assert store.run(SIZES, n=[HUGE], k=None, e=8990, a=300_000) == ["({},{" + HUGE + "},0)"]
    assert store.run(SIZES, n=[HUGE], k=None, e=LIVE, a=300_000) == ["({" + HUGE + "},{}," + f"{LIVE})"]
    # Each time up to 1,000 first, and then all.
    assert counted(store) - before <= 2 * (1001 + LIVE)


def test_what_small_ones_leave_of_the_sum_is_there_for_others(store: Store) -> None:
    few = ",".join(FEW)
    # Of 5,200 each of thirteen has 400 at first; twelve of 30 leave 4,840.
    asked = {"n": [*FEW, HUGE], "k": ["checkpoint"]}
    checkpoints = WRITTEN // 10
    assert store.run(SIZES, e=2000, a=5200, **asked) == [f'("{{{few},{HUGE}}}",{{}},{12 * 4 + checkpoints})']
    assert store.run(SIZES, e=1100, a=5200, **asked) == [f'("{{{few}}}",{{{HUGE}}},{12 * 4})']
    assert store.run(SIZES, e=2000, a=1200, **asked) == [f'("{{{few}}}",{{{HUGE}}},{12 * 4})']


def test_names_without_memories_are_in_neither(store: Store) -> None:
    assert store.run(SIZES, n=["team:none", FEW[0]], k=None, e=100, a=1000) == ["({" + FEW[0] + "},{},30)"]
    assert store.run(SIZES, n=["team:none"], k=None, e=100, a=1000) == ["({},{},0)"]


def test_a_namespace_that_shrank_since_the_last_analyze_is_searched_all_the_same(store: Store) -> None:
    embeddings = [store.embedding(HUGE, number) for number in (2003, 2010, 2024, 2040, 2052, 2060)]
    store.run(
        "delete from memory_plugin.memory_records where namespace = %(n)s "
        "and not id = any (array(select md5(%(n)s || i)::uuid from generate_series(1, 3000) as i))",
        n=HUGE,
    )
    shares = [recall(*store.both([HUGE], embedding)) for embedding in embeddings]
    assert sum(shares) / len(shares) >= 0.97, shares
    store.run("analyze memory_plugin.memory_vectors")
    for embedding in embeddings:
        found, exact = store.both([HUGE], embedding)
        assert found == exact
        assert store.answer([HUGE], embedding)["exact"] is True


def test_a_namespace_that_grew_since_the_last_analyze_is_counted(store: Store) -> None:
    store.fill("team:new", 800)
    assert store.run(MANY, n=["team:new"], k=None, m=599) == [True]
    assert store.run(MANY, n=["team:new"], k=None, m=600) == [False]
    assert store.run(SIZES, n=["team:new"], k=None, e=6000, a=300_000) == ["({team:new},{},600)"]
