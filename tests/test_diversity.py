"""The field `diversity`: near-copies do not fill the places of an answer, and without it nothing changes."""

from __future__ import annotations

import math
import random
from typing import Any

import psycopg
import pytest

from doors import Contract, refused
from fixtures.installing import install, rows
from test_contract_search import towards


def copies_and_others(contract: Contract) -> str:
    """Commit twenty near-copies towards the query and ten others ever farther off; return the namespace."""
    name = contract.name()
    for i in range(20):
        contract.commit(name, f"apple tart {i}", embedding=towards(0.1 + i * 0.0005))
    for i in range(10):
        vector = [0.0] * 1536
        vector[0], vector[2 + i] = math.cos(1.2 + i * 0.01), math.sin(1.2 + i * 0.01)
        contract.commit(name, f"pear {i}", embedding=vector)
    return name


def test_near_copies_do_not_fill_the_places(contract: Contract) -> None:
    name = copies_and_others(contract)
    plain = contract.found([name], embedding=towards(0), limit=10)
    assert all(content.startswith("apple tart") for content in plain)
    diverse = contract.found([name], embedding=towards(0), limit=10, diversity=0.7)
    assert diverse[0] == plain[0]
    assert sum(content.startswith("apple tart") for content in diverse) <= 2
    assert contract.search([name], embedding=towards(0), diversity=0.7).body["search"]["mode"] == "semantic"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"query": "apple tart"},
        {"embedding": towards(0)},
        {"query": "apple pear", "embedding": towards(0), "explain": True},
    ],
)
def test_zero_and_null_are_as_if_absent(contract: Contract, fields: dict[str, Any]) -> None:
    name = copies_and_others(contract)

    def answer(**more: Any) -> dict[str, Any]:
        body: dict[str, Any] = contract.search([name], limit=30, **fields, **more).body
        del body["search"]["took_ms"]
        return body

    assert answer(diversity=0) == answer(diversity=None) == answer()


def test_the_order_is_that_of_maximal_marginal_relevance(contract: Contract) -> None:
    chance = random.Random(7)
    name = contract.name()
    vectors = {}
    for i in range(40):
        vectors[f"m{i}"] = [chance.gauss(0, 1) for _ in range(4)] + [0.0] * 1532
        contract.commit(name, f"m{i}", embedding=vectors[f"m{i}"])
    asked = [1.0, 0.5, 0.2, 0.1] + [0.0] * 1532
    plain = contract.search([name], embedding=asked, limit=100).body["memories"]

    def cosine(one: list[float], other: list[float]) -> float:
        return sum(map(float.__mul__, one, other)) / math.hypot(*one) / math.hypot(*other)

    most, least = plain[0]["score"], plain[-1]["score"]
    left = {memory["content"]: (memory["score"] - least) / (most - least) for memory in plain}
    near = dict.fromkeys(left, 0.0)
    expected = []
    while left:
        best = max(left, key=lambda content: 0.5 * left[content] - 0.5 * near[content])
        expected.append(best)
        del left[best]
        near = {content: max(near[content], cosine(vectors[content], vectors[best])) for content in left}
    assert contract.found([name], embedding=asked, limit=100, diversity=0.5) == expected
    pages = [contract.found([name], embedding=asked, limit=15, offset=at, diversity=0.5) for at in (0, 15, 30, 45)]
    assert [content for page in pages for content in page] == expected
    scores = {memory["content"]: memory["score"] for memory in plain}
    found = contract.search([name], embedding=asked, limit=100, diversity=0.5).body["memories"]
    assert {memory["content"]: memory["score"] for memory in found} == scores


def test_without_embeddings_only_the_same_text_is_a_copy(contract: Contract) -> None:
    name = contract.name()
    for text in ("apple apple pie", "Apple  apple pie ", "apple\tApple PIE", "apple crumble with much cream on it"):
        contract.commit(name, text)
    diverse = contract.found([name], query="apple", diversity=0.9)
    assert len(diverse) == 4
    assert diverse[1] == "apple crumble with much cream on it"
    assert contract.found([name], query="apple")[3] == "apple crumble with much cream on it"


def test_more_than_two_hundred_are_all_reached_once(contract: Contract) -> None:
    name = contract.name()
    for i in range(230):
        contract.commit(name, f"apple number{i}", embedding=towards(0.001 * i))
    pages = [
        contract.found([name], embedding=towards(0), limit=100, offset=at, diversity=1) for at in (0, 100, 200, 300)
    ]
    assert [len(page) for page in pages] == [100, 100, 30, 0]
    assert len({content for page in pages for content in page}) == 230
    assert pages[2] == [f"apple number{i}" for i in range(200, 230)]
    again = contract.found([name], embedding=towards(0), limit=100, diversity=1)
    assert again == pages[0]


def test_in_sql_it_is_an_argument(conn: psycopg.Connection[Any], namespace: str) -> None:
    for text in ("red apple", "red  apple", "green apple on the tree"):
        conn.execute("select memory_plugin.commit_memory(%s, %s)", [namespace, text])
    query = "select content from memory_plugin.search(array[%s], query => 'apple', diversity => %s)"
    assert conn.execute(query, [namespace, 0.9]).fetchall()[1] == ("green apple on the tree",)
    for bad in (-0.01, 1.01, "NaN", "Infinity"):
        with pytest.raises(psycopg.Error, match="diversity must be between 0 and 1") as caught:
            conn.execute(query, [namespace, bad])
        assert caught.value.sqlstate == "MP001"


def test_the_rule_holds_for_a_listing_too(contract: Contract) -> None:
    assert refused(contract.search_body({"namespaces": ["workspace:a"], "diversity": 2}), "diversity")
    name = copies_and_others(contract)
    assert contract.found([name], diversity=1) == contract.found([name])


def test_an_upgrade_leaves_one_search(database: str) -> None:
    place = rows(database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")[0][0]
    arguments = (
        f"text[], text, text[], integer, {place}.vector, text[], timestamptz, timestamptz, double precision, "
        "double precision, double precision, double precision, integer, boolean"
    )
    for name in ("search", "_search"):
        rows(
            database,
            f"create function memory_plugin.{name}({arguments}) returns integer language sql as 'select 1'",
        )
    install(database)
    query = "select count(*) from pg_proc where pronamespace = 'memory_plugin'::regnamespace and proname ~ '^_?search$'"
    assert rows(database, query) == [(2,)]
    assert rows(database, "select count(*) from memory_plugin.search(array['team:a'], 'x')") == [(0,)]
