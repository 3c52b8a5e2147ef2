"""The order of what the graph found, and the scores of many: by the copies where that is certain, else as stored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from semantic_store import Connection, Store

DIMENSIONS = 1536
NAME = "team:a"
MEASURED = """
select r.content, 1 - (r.embedding operator({vector}.<=>) %s::{vector}.vector)
from memory_plugin.memory_records as r where r.namespace = 'team:a' order by 2 desc, r.id
"""
ORDERED = """
select r.content, c.score
from unnest(memory_plugin._semantic_ordered(
    array(
        select row('team:a', m.id, s.score)::memory_plugin._candidate
        from unnest(%s::text[], %s::double precision[]) as s (content, score)
        inner join memory_plugin.memory_records as m on m.namespace = 'team:a' and m.content = s.content
    ),
    %s::{vector}.vector, %s, %s
)) with ordinality as c (namespace, id, score, place)
inner join memory_plugin.memory_records as r on c.namespace = r.namespace and c.id = r.id
order by c.place
"""
COPIED = """
select r.content, -(v.embedding operator({vector}.<#>) memory_plugin._steered(%s::{vector}.vector, '', null, '{{0,0}}'))
from memory_plugin.memory_records as r
inner join memory_plugin.memory_vectors as v on r.namespace = v.namespace and r.id = v.id
where r.namespace = 'team:a'
"""


class Ordering:
    """A namespace of memories with given embeddings, and the order that candidates of it are brought in."""

    def __init__(self, conn: Connection) -> None:
        """Look where pgvector is."""
        self.conn = conn
        self.vector = Store(conn, DIMENSIONS).vector

    def ask(self, query: str, values: Sequence[Any]) -> list[Any]:
        """Run a query with pgvector's schema filled in."""
        return self.conn.execute(query.format(vector=self.vector).encode(), values).fetchall()

    def commit(self, embeddings: dict[str, list[float]], content: str = "") -> None:
        """Commit a memory of each name."""
        call = f"select memory_plugin.commit_memory(%s, %s, embedding => %s::{self.vector}.vector)"
        for name, embedding in embeddings.items():
            self.conn.execute(call.encode(), [NAME, f"{name}{content}", text(embedding)])

    def ordered(
        self, scores: dict[str, float], question: list[float], limit: int, closely: bool
    ) -> list[tuple[str, float]]:
        """Return what of the candidates comes out, in its order, with its score."""
        return self.ask(ORDERED, [list(scores), list(scores.values()), text(question), limit, closely])

    def measured(self, question: list[float]) -> list[tuple[str, float]]:
        """Return every memory by its stored vector, nearest first."""
        return self.ask(MEASURED, [text(question)])

    def copied(self, question: list[float]) -> dict[str, float]:
        """Return the score of every memory by its copy."""
        return dict(self.ask(COPIED, [text(question)]))


def text(vector: list[float]) -> str:
    return "[" + ",".join(f"{x:.8g}" for x in vector) + "]"


def chance(seed: int) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(0, 1) for _ in range(DIMENSIONS)]


def beside(vector: list[float], far: float, seed: int) -> list[float]:
    return [x + far * y for x, y in zip(vector, chance(seed), strict=True)]


@pytest.fixture
def ordering(conn: Connection) -> Ordering:
    """Return an empty namespace to bring into an order."""
    return Ordering(conn)


def test_what_half_precision_confuses_is_in_the_order_of_the_stored_vectors(ordering: Ordering) -> None:
    question = chance(1)
    # From one to the next they are so little farther off that half precision loses the order.
    ordering.commit({f"{n:02}": beside(question, 0.3 + n * 0.000004, 100 + n) for n in range(30)})
    copied, true = ordering.copied(question), ordering.measured(question)
    assert sorted(copied, key=lambda name: -copied[name]) != [name for name, _ in true]
    found = ordering.ordered(copied, question, 10, True)
    assert [name for name, _ in found] == [name for name, _ in true[:10]]
    assert [score for _, score in found] == pytest.approx([score for _, score in true[:10]], abs=0.0001)


def test_only_what_is_in_doubt_is_measured(ordering: Ordering) -> None:
    question = chance(1)
    ordering.commit({name: beside(question, 1, number) for number, name in enumerate("abcdef", 100)})
    true = dict(ordering.measured(question))
    # Other scores than the true ones tell which were measured.
    scores = {"a": 0.97, "b": 0.9, "c": 0.8999, "d": 0.85, "e": 0.1, "f": 0.09999}
    found = dict(ordering.ordered(scores, question, 4, True))
    assert found["a"] == 0.97
    assert found["d"] == 0.85
    assert {name: found[name] for name in "bc"} == pytest.approx({name: true[name] for name in "bc"}, abs=1e-12)
    assert found.keys() == set("abcd")


def test_a_vector_of_few_numbers_is_measured_and_its_score_is_no_other(ordering: Ordering) -> None:
    def few(*numbers: float) -> list[float]:
        return [*numbers, *[0.0] * (DIMENSIONS - len(numbers))]

    question = few(0.6, 0.8)
    ordering.commit({"a": few(0.6, 0.8), "b": few(0.8, 0.6), "c": few(0.9, 0.1)})
    copied, true = ordering.copied(question), ordering.measured(question)
    assert copied["b"] != pytest.approx(0.96, abs=1e-6)
    assert ordering.ordered(copied, question, 10, True) == true
    assert dict(true)["b"] == pytest.approx(0.96, abs=1e-6)


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_where_others_weigh_the_scores_anew_none_is_measured(ordering: Ordering, limit: int) -> None:
    question = chance(1)
    ordering.commit({name: beside(question, 1, number) for number, name in enumerate("abcd", 100)})
    scores = {"a": 0.3, "b": 0.9, "c": 0.90000001, "d": 0.5}
    assert (
        ordering.ordered(scores, question, limit, False)
        == [("c", 0.90000001), ("b", 0.9), ("d", 0.5), ("a", 0.3)][:limit]
    )


@pytest.mark.parametrize("tiny", [1e-6, 1e-20, 1e-23, 1e-30, 1e-38, 1e-45])
def test_an_embedding_with_a_tiny_number_is_as_good_as_any(ordering: Ordering, tiny: float) -> None:
    few = {name: [x, 1.0, tiny, *[0.0] * (DIMENSIONS - 3)] for name, x in (("a", 0.9), ("b", 0.5), ("c", 0.1))}
    many = {name: [*chance(seed)[:-1], tiny] for seed, name in enumerate("def", 7)}
    ordering.commit(few | many)
    for question in (few["a"], many["d"]):
        for asked in ("max_results => 10", "query => 'zebra'", "query => 'zebra', diversity => 0.5"):
            call = f"memory_plugin.search(array['{NAME}'], {asked}, embedding => %s::{{vector}}.vector)"
            rows = ordering.ask(f"select content from {call}", [text(question)])
            assert len(rows) == 6
            assert rows[0] == ("a" if question is few["a"] else "d",)
    scores = dict.fromkeys("abcdef", 0.5)
    assert len(ordering.ordered(scores, few["a"], 4, True)) == 4


def test_of_the_same_nearness_the_newest_come_first_wherever_they_are_weighed_anew(ordering: Ordering) -> None:
    ordering.commit({f"{place:03}": chance(1) for place in range(300)}, " of apples")
    newest = [f"{place:03} of apples" for place in range(299, 289, -1)]
    for asked in ("query => 'zebra', neighbour_weight => 0", "query => 'zebra'", "recency_half_life => 1e9"):
        query = (
            f"select content from memory_plugin.search(array['{NAME}'], {asked}, "
            f"embedding => %s::{ordering.vector}.vector, max_results => 10)"
        )
        assert [content for (content,) in ordering.ask(query, [text(chance(1))])] == newest


@pytest.mark.parametrize(("near", "far", "off"), [(20, 25, 1e-12), (90, 270, 0.0001)])
def test_both_arms_know_how_near_every_memory_is(ordering: Ordering, near: int, far: int, off: float) -> None:
    question = chance(1)
    ordering.commit({f"{n:03}": beside(question, 1 + n / 50, 100 + n) for n in range(near)}, " of apples")
    # Of many some are too far off for the arm that looks for embeddings: only words find them.
    ordering.commit({f"{n:03}": chance(1000 + n) for n in range(200, 200 + far)}, " of pears")
    true = dict(ordering.measured(question))
    query = (
        "select content, (parts ->> 'semantic')::double precision, parts ? 'semantic_rank' "
        f"from memory_plugin.search(array['{NAME}'], 'pears', embedding => %s::{ordering.vector}.vector, "
        "max_results => 100, lexical_weight => 3, explain => true)"
    )
    rows = ordering.ask(query, [text(question)])
    assert {listed for _, _, listed in rows} == ({True} if near + far < 200 else {True, False})
    assert {name: near for name, near, _ in rows} == pytest.approx({name: true[name] for name, _, _ in rows}, abs=off)
