"""Embeddings that all resemble each other: where the kind sets rows further apart, and where a walk ends too early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fixtures.server import Server
from semantic_store import Store, filled_store, recall

DIMENSIONS = 32
# Beyond what is compared rather than walked towards a second time, and below it.
LARGE, MIDDLING, COPIES, SPREAD = "org:large", "team:middling", "org:copies", "org:spread"
# Twelve topics around one middle, in eight directions: as of a model all of whose embeddings resemble each other.
DENSE = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding)
select
    %(n)s, md5(%(n)s || i)::uuid, 'memory ' || i, case when i / 12 %% 10 = 0 then %(tenth)s else 'fact' end, 'agent',
(
    select array_agg(
        (2 * cos(d * 1.3) + (select sum(z.z * sin(d * z.k * 0.37 + z.k)) from unnest(l.z) with ordinality as z (z, k)))
            ::real order by d
    )
    from generate_series(1, {dimensions}) as d
)::{vector}.vector
from generate_series(1, %(last)s) as i
cross join lateral (
    select array_agg(0.25 * sin((i %% 12 + 1) * k * 1.7) + %(width)s * (random() + random() + random() - 1.5)) as z
    from generate_series(1, 8) as k
) as l
"""
WALK = """
select g.namespace || ' ' || g.id
from memory_plugin._semantic_graph(
    array[%(n)s], memory_plugin._steered(%(e)s::{vector}.vector, '', null, '{{0,0}}'),
    memory_plugin._steered(%(e)s::{vector}.vector, %(n)s, null, '{{10,4}}'), null, %(limit)s
) as w
cross join unnest(w) as g
"""
QUESTIONS = range(15, 6000, 85)


pytestmark = pytest.mark.servers("any")


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Store]:
    """Return a store of two dense namespaces and one of near-copies, that tests only read."""
    dense = {"width": 0.15, "tenth": "summary"}
    with filled_store(server, DIMENSIONS, {}) as store:
        for name in (LARGE, MIDDLING, COPIES):
            store.run("select memory_plugin.upsert_namespace(%(n)s, 'custom')", n=name)
        with store.bulk():
            store.run("select setseed(0.5)")
            store.run(DENSE, n=LARGE, last=16_000, **dense)
            store.run(DENSE, n=MIDDLING, last=7000, **dense)
            store.run(DENSE, n=COPIES, last=16_000, width=0.05, tenth="fact")
        yield store


@pytest.fixture
def store(filled: Store) -> Iterator[Store]:
    """Return the store in a transaction that is undone."""
    with filled.connection.transaction(force_rollback=True):
        yield filled


def found(store: Store, names: list[str], **filters: Any) -> tuple[float, float]:
    """Return how much of the exact answers search finds, and how much of the summaries in them."""
    summaries = set(store.run("select namespace || ' ' || id from memory_plugin.memory_records where kind = 'summary'"))
    shares, met, near = [], 0, 0
    for number in QUESTIONS:
        listed, exact = store.both(names, store.embedding(names[0], number), **filters)
        shares.append(recall(listed, exact))
        met += len(summaries.intersection(exact, listed))
        near += len(summaries.intersection(exact))
    return sum(shares) / len(shares), met / near if near else 1.0


@pytest.mark.parametrize("kinds", [None, ["fact", "summary"], ["summary", "summary"], ["fact"]])
def test_a_kind_of_which_there_are_few_is_found_among_many_of_another(store: Store, kinds: list[str] | None) -> None:
    share, of_summaries = found(store, [LARGE], kinds=kinds)
    assert share >= 0.98
    assert of_summaries >= 0.95


def test_one_walk_by_itself_misses_many_of_a_kind_of_which_there_are_few(store: Store) -> None:
    """Else there would be nothing to mend, and the test before this one would tell nothing."""
    store.run("set local hnsw.ef_search = 100")
    met, near = 0, 0
    for number in QUESTIONS:
        embedding = store.embedding(LARGE, number)
        exact = set(store.both([LARGE], embedding)[1])
        summaries = exact - set(store.both([LARGE], embedding, 100, kinds=["fact"])[1])
        met += len(summaries & set(store.run(WALK, n=LARGE, e=embedding, limit=14)))
        near += len(summaries)
    assert near >= 40
    assert met <= 0.7 * near


def test_what_is_not_much_is_compared(store: Store) -> None:
    for number in (20, 31, 700):
        embedding = store.embedding(MIDDLING, number)
        said = store.answer([MIDDLING], embedding)
        assert said["exact"] is True
        assert said["candidates"] >= 7000
        both = store.both([MIDDLING], embedding)
        assert both[0] == both[1]


def test_each_kind_is_looked_for_in_several_namespaces_at_once(store: Store) -> None:
    share, of_summaries = found(store, [LARGE, MIDDLING])
    if share < 0.98:
        # One graph in some forty leaves that many rows where no walk comes by, which is pgvector's doing; not two.
        store.run("reindex index memory_plugin.memory_vectors_embedding")
        share, of_summaries = found(store, [LARGE, MIDDLING])
    assert share >= 0.98
    assert of_summaries >= 0.95
    # The answer comes in the order of a search over one.
    for number in (40, 51):
        listed, exact = store.both([MIDDLING, LARGE], store.embedding(LARGE, number), 40)
        assert [row for row in listed if row in exact] == [row for row in exact if row in listed]


def test_copies_that_half_precision_confuses_are_told_apart(store: Store) -> None:
    store.run("set local hnsw.ef_search = 100")
    confused, missed = 0, 0
    for number in QUESTIONS:
        embedding = store.embedding(COPIES, number)
        listed, exact = store.both([COPIES], embedding)
        met = set(store.run(WALK, n=COPIES, e=embedding, limit=100)).intersection(exact)
        confused += len(met.difference(store.run(WALK, n=COPIES, e=embedding, limit=14)))
        missed += len(met.difference(listed))
    assert confused >= 40
    assert missed <= confused / 20


# Candidates as a walk brings them, in the order of their copies: half precision may put a row behind the next one.
CONVINCES = """
select memory_plugin._semantic_convinces(
    array(
        select row(v.namespace, v.id, s.score)::memory_plugin._candidate
        from memory_plugin.memory_vectors as v
        cross join lateral (
            select -(
                v.embedding operator({vector}.<#>)
                memory_plugin._steered(%(e)s::{vector}.vector, '', null, '{{0,0}}')
            )
        ) as s (score)
        where v.namespace = %(n)s and (v.expires_at is null or v.expires_at > now())
        order by s.score desc
        limit 10 offset %(skip)s
    ),
    array[%(n)s], memory_plugin._steered(%(e)s::{vector}.vector, '', null, '{{0,0}}'), null, 10, %(few)s, %(reach)s
)
"""
# Half of what a memory says, and half of what another does.
BETWEEN = """
select ({vector}.l2_normalize(a.embedding) operator({vector}.+) {vector}.l2_normalize(b.embedding))::text
from memory_plugin.memory_records as a, memory_plugin.memory_records as b
where a.namespace = %(n)s and a.id = md5(%(n)s || %(a)s)::uuid
    and b.namespace = %(n)s and b.id = md5(%(n)s || %(b)s)::uuid
"""


def convinces(store: Store, embedding: str, *, skip: int, few: int, reach: int | None) -> bool:
    return bool(store.run(CONVINCES, n=SPREAD, e=embedding, skip=skip, few=few, reach=reach)[0])


@pytest.fixture
def apart(server: Server) -> Iterator[Store]:
    """Return a store of one namespace whose topics are apart, and nothing beside it where a walk could end."""
    with filled_store(server, DIMENSIONS, {SPREAD: 4000}) as store:
        yield store


def test_in_between_a_walk_that_reaches_farther_must_meet_nothing_nearer(apart: Store) -> None:
    doubtful = 0
    for a, b in ((2, 3), (4, 7), (6, 11), (8, 10), (14, 23), (15, 20), (18, 31), (22, 28)):
        embedding = str(apart.run(BETWEEN, n=SPREAD, a=str(a), b=str(b))[0])
        # Whatever is asked, where it is far from clear it stays so, and the other way round.
        if not convinces(apart, embedding, skip=3, few=0, reach=None) or convinces(
            apart, embedding, skip=3, few=1_000_000, reach=400
        ):
            continue
        doubtful += 1
        assert not convinces(apart, embedding, skip=3, few=0, reach=400)
        assert convinces(apart, embedding, skip=0, few=0, reach=400)
    assert doubtful >= 2
    assert apart.run("show hnsw.ef_search") == ["40"]
