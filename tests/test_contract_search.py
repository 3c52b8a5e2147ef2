"""POST /v1/search: what is matched, in what order, and what the request may hold."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from doors import Contract, refused

DIMENSIONS = 1536


def towards(angle: float) -> list[float]:
    """Return a unit vector at this angle from the first axis."""
    return [math.cos(angle), math.sin(angle)] + [0.0] * (DIMENSIONS - 2)


def test_a_listing_is_pinned_first_then_newest_and_has_no_score(contract: Contract) -> None:
    name = contract.name()
    for content, pin in [("one", False), ("two", True), ("three", False), ("four", True)]:
        contract.commit(name, content, pin=pin)
    answer = contract.search([name])
    assert [memory["content"] for memory in answer.body["memories"]] == ["four", "two", "three", "one"]
    assert not any("score" in memory for memory in answer.body["memories"])
    assert answer.body["search"]["mode"] == "listing"


def test_a_listing_over_several_namespaces_merges_them_in_the_same_order(contract: Contract) -> None:
    names = [contract.name(label) for label in "abc"]
    for i in range(9):
        contract.commit(names[i % 3], f"m{i}", pin=i == 4)
    assert contract.found(names, limit=4) == ["m4", "m8", "m7", "m6"]
    assert contract.found(names, limit=4, offset=4) == ["m5", "m3", "m2", "m1"]


def test_a_bare_listing_and_one_with_every_field_given_answer_alike(contract: Contract) -> None:
    names = [contract.name(label) for label in ("a", "b.c-d_e:f", "gone", "never")]
    future, past = "2999-01-01T00:00:00Z", "2000-01-01T00:00:00Z"
    contract.commit(names[0], 'quotes " and \\ and \u2028\n\t', propagation={"x": [1, "}]"], "y": None})
    contract.commit(names[1], "kept", expires_at=future, kind="summary", source="user")
    contract.commit(names[0], "expired", expires_at=past)
    contract.commit(names[1], "pinned", pin=True)
    contract.put(names[2], {"kind": "workspace"})
    contract.commit(names[2], "of a namespace that is gone")
    contract.put(names[2], {"kind": "workspace", "expires_at": past})
    for i in range(25):
        contract.commit(names[i % 2], f"m{i}", pin=i == 3)
    for asked in (names, names[:1], names[3:], [names[1], names[1]]):
        for limit in (1, 3, 20, 99, 100):
            bare = contract.search_body(f'{{"namespaces":{json.dumps(asked)},"limit":{limit}}}').body
            long = contract.search(asked, limit=limit, offset=0).body
            assert bare["memories"] == long["memories"]
            assert {**bare["search"], "took_ms": 0} == {**long["search"], "took_ms": 0}
        assert contract.search(asked).body["memories"] == contract.search(asked, limit=0, kinds=[]).body["memories"]


@pytest.mark.parametrize(
    "tail",
    [
        '],"limit":101}',
        '],"limit":-1}',
        '],"limit":1.5}',
        '],"limit":"3"}',
        ',"team:b c"]}',
        ',"team:"]}',
        ",null]}",
        ',{"a":1}]}',
        ',["team:b"]]}',
        "}",
        "]",
        "]}}",
        ",]}",
        ',"team:b\n"]}',
    ],
)
def test_what_is_nearly_a_bare_listing_is_refused(contract: Contract, tail: str) -> None:
    assert refused(contract.search_body('{"namespaces":["team:a"' + tail))


def test_nothing_found_is_an_empty_list_never_null(contract: Contract) -> None:
    for fields in ({}, {"query": "x y"}, {"query": "x"}, {"embedding": towards(0)}):
        answer = contract.search([contract.name()], **fields)
        assert answer.status == 200
        assert answer.body["memories"] == []


def test_no_row_outside_the_namespaces_is_ever_returned(contract: Contract) -> None:
    inside, outside = contract.name("in"), contract.name("in-not")
    contract.commit(inside, "apple pie", embedding=towards(1))
    contract.commit(outside, "apple pie too", embedding=towards(0))
    for fields in (
        {},
        {"query": "apple pie"},
        {"query": "p"},
        {"embedding": towards(0)},
        {"query": "apple", "embedding": towards(0)},
    ):
        assert contract.found([inside, contract.name("unknown")], **fields) == ["apple pie"]
        assert contract.found([inside, inside], **fields) == ["apple pie"]


def test_a_question_finds_memories_that_share_any_of_its_words(contract: Contract) -> None:
    name = contract.name()
    for content in [
        "The deploy runs on Fridays",
        "Ada prefers tabs over spaces",
        "Lunch is at noon",
        "Tabs were discussed",
    ]:
        contract.commit(name, content)
    answer = contract.search([name], query="does Ada like tabs or spaces?")
    assert [memory["content"] for memory in answer.body["memories"]] == [
        "Ada prefers tabs over spaces",
        "Tabs were discussed",
    ]
    scores = [memory["score"] for memory in answer.body["memories"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[1] > 0


def test_a_rare_word_weighs_more_than_a_common_one(contract: Contract) -> None:
    name = contract.name()
    for i in range(30):
        contract.commit(name, f"the build of service number {i} passed")
    contract.commit(name, "the zeppelin of project nine landed")
    assert contract.found([name], query="zeppelin build", limit=1) == ["the zeppelin of project nine landed"]


@pytest.mark.parametrize(
    "query", ["tabs & !spaces | (", "'; drop table x; --", "a:* <-> b", "\\", "%_%", "!!", "' '", "<->"]
)
def test_operators_and_fragments_in_a_query_are_only_text(contract: Contract, query: str) -> None:
    name = contract.name()
    contract.commit(name, "spaces")
    assert contract.search([name], query=query).status == 200
    assert contract.found([name]) == ["spaces"]


def test_of_a_long_query_the_first_4000_characters_are_read_to_their_last_whole_word(contract: Contract) -> None:
    name = contract.name()
    for content in ("zebra", "zebr"):
        contract.commit(name, content)
    query = "b " * 1997 + " zebra"
    assert len(query) == 4000
    assert contract.found([name], query=query) == ["zebra"]
    assert contract.found([name], query=f"b{query}") == []


@pytest.mark.parametrize("query", ["", "   ", None, "\t\n"])
def test_a_blank_query_lists(contract: Contract, query: object) -> None:
    name = contract.name()
    contract.commit(name, "listed")
    assert contract.search([name], query=query).body["search"]["mode"] == "listing"
    assert contract.found([name], query=query) == ["listed"]


def test_a_single_character_matches_as_a_substring_in_listing_order(contract: Contract) -> None:
    name = contract.name()
    for content, pin in [
        ("say cheese", False),
        ("100% sure", False),
        ("old quiz", True),
        ("你好世界", False),
        ("Zebra", False),
    ]:
        contract.commit(name, content, pin=pin)
    assert contract.found([name], query="z") == ["old quiz", "Zebra"]
    assert contract.found([name], query="%") == ["100% sure"]
    assert contract.found([name], query="_") == []
    assert contract.found([name], query="界") == ["你好世界"]
    assert "score" not in contract.search([name], query="z").body["memories"][0]


def test_an_embedding_ranks_by_cosine_similarity_in_exact_order(contract: Contract) -> None:
    name = contract.name()
    seeded = random.Random(7)
    angles = [seeded.uniform(0, math.pi) for _ in range(40)]
    for i, angle in enumerate(angles):
        contract.commit(name, f"m{i}", embedding=towards(angle))
    contract.commit(name, "no embedding")
    answer = contract.search([name], embedding=towards(0), limit=40)
    assert [m["content"] for m in answer.body["memories"]] == [
        f"m{i}" for i in sorted(range(40), key=angles.__getitem__)
    ]
    assert [m["score"] for m in answer.body["memories"]] == pytest.approx(
        sorted(map(math.cos, angles), reverse=True), abs=1e-3
    )
    assert answer.body["search"]["exact"] is True


def test_query_and_embedding_together_fuse_both(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "both words and meaning: parrot", embedding=towards(0.1))
    contract.commit(name, "meaning only", embedding=towards(0.0))
    contract.commit(name, "words only: parrot", embedding=towards(3.0))
    contract.commit(name, "neither", embedding=towards(2.9))
    contract.commit(name, "words without embedding: parrot parrot")
    answer = contract.search([name], query="parrot cage", embedding=towards(0))
    contents = [memory["content"] for memory in answer.body["memories"]]
    assert answer.body["search"]["mode"] == "hybrid"
    assert contents[0] == "both words and meaning: parrot"
    assert len(contents) == 5
    assert contents.index("meaning only") < contents.index("neither")


def test_kinds_restrict_every_way_of_searching(contract: Contract) -> None:
    name = contract.name()
    for i, kind in enumerate(["fact", "summary", "checkpoint"]):
        contract.commit(name, f"apple pie {kind}", kind=kind, embedding=towards(i * 0.5))
    for fields in (
        {},
        {"query": "apple pie"},
        {"query": "e"},
        {"embedding": towards(0)},
        {"query": "apple", "embedding": towards(0)},
    ):
        found = contract.found([name], kinds=["summary", "checkpoint"], **fields)
        assert sorted(found) == ["apple pie checkpoint", "apple pie summary"]
        assert len(contract.found([name], kinds=[], **fields)) == 3


def test_limit_is_20_by_default_and_at_most_100(contract: Contract) -> None:
    name = contract.name()
    for i in range(101):
        contract.commit(name, f"note {i}")
    for fields in ({}, {"query": "note"}):
        assert len(contract.found([name], **fields)) == 20
        assert len(contract.found([name], limit=0, **fields)) == 20
        assert len(contract.found([name], limit=100, **fields)) == 100
        assert len(contract.found([name], limit=3.0, **fields)) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("namespaces", []),
        ("namespaces", None),
        ("namespaces", "workspace:a"),
        ("namespaces", [1]),
        ("namespaces", {}),
        ("namespaces", ["workspace:a", None]),
        ("namespaces", ["workspace:a", "no name"]),
        ("query", 5),
        ("query", ["x"]),
        ("kinds", "fact"),
        ("kinds", ["rumour"]),
        ("kinds", [None]),
        ("kinds", {}),
        ("limit", -1),
        ("limit", 101),
        ("limit", 1.5),
        ("limit", "5"),
        ("limit", True),
        ("limit", []),
        ("limit", 1e300),
        ("embedding", [1, 2, 3]),
        ("embedding", "x"),
        ("embedding", [0] * 1536),
        ("source", "oracle"),
        ("source", 5),
        ("created_after", "yesterday"),
        ("created_before", 5),
        ("min_score", "high"),
        ("recency_half_life", 0),
        ("recency_half_life", -1),
        ("recency_half_life", "1h"),
        ("weights", 1),
        ("weights", {"lexical": -1}),
        ("weights", {"lexical": 0, "semantic": 0}),
        ("weights", {"semantic": "x"}),
        ("weights.neighbour", -0.1),
        ("weights.neighbour", 10.1),
        ("weights.neighbour", "x"),
        ("weights.neighbour", [1]),
        ("offset", -1),
        ("offset", 10001),
        ("offset", 0.5),
        ("explain", "yes"),
        ("diversity", -0.1),
        ("diversity", 1.01),
        ("diversity", "much"),
        ("diversity", True),
        ("diversity", 1e300),
        ("diversity", [0.5]),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused_by_field(contract: Contract, field: str, value: object) -> None:
    outer, _, inner = field.partition(".")
    body = {"namespaces": ["workspace:a"], outer: {inner: value} if inner else value}
    assert refused(contract.search_body(body), field)


def test_a_number_of_absurd_size_is_refused_quickly(contract: Contract) -> None:
    assert refused(contract.search_body('{"namespaces": ["workspace:a"], "limit": 1e999999999}'), "limit")


@pytest.mark.parametrize("value", ["1e301", "-1e301", "1e400", "1e-1000", "9" * 400])
@pytest.mark.parametrize("field", ["min_score", "weights.lexical"])
def test_a_number_beyond_double_precision_is_refused_by_field(contract: Contract, field: str, value: str) -> None:
    outer, _, inner = field.partition(".")
    given = f'{{"{inner}":{value}}}' if inner else value
    answer = contract.search_body(f'{{"namespaces":["workspace:a"],"query":"a b","{outer}":{given}}}')
    assert refused(answer, f"{field} is out of range")


@pytest.mark.parametrize("value", ['"5"', "true", "[5]", "1.5"])
@pytest.mark.parametrize("field", ["limit", "offset"])
def test_a_count_that_is_none_is_asked_to_be_an_integer(contract: Contract, field: str, value: str) -> None:
    answer = contract.search_body(f'{{"namespaces":["workspace:a"],"{field}":{value}}}')
    assert refused(answer, f"{field} must be an integer")


def test_a_null_is_as_if_absent_in_every_field_but_namespaces(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "apple")
    fields = ("query", "kinds", "limit", "embedding", "source", "created_after", "created_before", "min_score")
    more = ("recency_half_life", "weights", "offset", "explain", "diversity")
    assert contract.found([name], **dict.fromkeys((*fields, *more))) == ["apple"]
    weights = {"lexical": None, "semantic": None, "neighbour": None}
    assert contract.found([name], query="apple", weights=weights) == ["apple"]


def test_filters_by_source_and_time_hold_in_every_mode(contract: Contract) -> None:
    name = contract.name()
    for source in ["agent", "runtime", "user"]:
        contract.commit(name, f"apple pie {source}", source=source, embedding=towards(1))
    created = [memory["created_at"] for memory in reversed(contract.search([name]).body["memories"])]
    for fields in ({}, {"query": "apple pie"}, {"embedding": towards(0)}, {"query": "apple", "embedding": towards(0)}):
        assert contract.found([name], source="user", **fields) == ["apple pie user"]
        assert sorted(contract.found([name], source=["user", "agent"], **fields)) == [
            "apple pie agent",
            "apple pie user",
        ]
        assert contract.found([name], created_after=created[1], **fields) == ["apple pie user"]
        assert contract.found([name], created_before=created[1], **fields) == ["apple pie agent"]


def test_min_score_offset_and_explain(contract: Contract) -> None:
    name = contract.name()
    for i in range(6):
        contract.commit(name, f"apple {i}", embedding=towards(i * 0.4))
    whole = contract.search([name], embedding=towards(0)).body["memories"]
    assert contract.found([name], embedding=towards(0), limit=2, offset=2) == [m["content"] for m in whole[2:4]]
    assert contract.found([name], embedding=towards(0), min_score=whole[2]["score"]) == [
        m["content"] for m in whole[:3]
    ]
    explained = contract.search([name], query="apple", embedding=towards(0), explain=True).body["memories"][0][
        "explain"
    ]
    assert {"lexical", "lexical_rank", "semantic", "semantic_rank"} <= set(explained)
    assert "explain" not in whole[0]


def test_a_half_life_halves_the_score_of_a_memory_that_old(contract: Contract) -> None:
    name = contract.name()
    angles = {"near": 0.2, "across": math.pi / 2, "away": 2.5}
    for content, angle in angles.items():
        contract.commit(name, content, embedding=towards(angle))
    asked = {"embedding": towards(0), "explain": True}

    def scores(**more: Any) -> dict[str, tuple[float, float]]:
        memories = contract.search([name], **asked, **more).body["memories"]
        return {m["content"]: (m["score"], m["explain"].get("recency", 1)) for m in memories}

    plain = scores()
    # Without age nothing changes, so that min_score means the same.
    assert {content: score for content, (score, _) in scores(recency_half_life=1e12).items()} == {
        content: pytest.approx(score, abs=1e-6) for content, (score, _) in plain.items()
    }
    aged = scores(recency_half_life=1)
    assert list(aged) == ["near", "across", "away"]
    for content, (score, recency) in aged.items():
        factor = recency if plain[content][0] > 0 else 2 - recency
        assert score == pytest.approx(plain[content][0] * factor, abs=1e-6)


def test_a_half_life_lifts_the_newer_of_two_equals_and_weights_turn_an_arm_off(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "apple", embedding=towards(0.2))
    contract.commit(name, "pear", embedding=towards(0.2))
    assert contract.found([name], embedding=towards(0.2), recency_half_life=0.001)[0] == "pear"
    assert (
        contract.found([name], query="apple", embedding=towards(0.2), weights={"semantic": 0, "lexical": 1})[0]
        == "apple"
    )


def test_what_was_said_around_the_best_counts_where_it_is_asked_to(contract: Contract) -> None:
    name = contract.name()
    said = ["it snowed", "it rained", "where did we eat the apple", "in Lisbon, in May", "and then home", "goodbye"]
    for place, content in enumerate(said):
        contract.commit(name, content, embedding=towards(0.1 if place == 2 else 1.5))
    for fields, mode in (
        ({"query": "apple"}, "lexical"),
        ({"embedding": towards(0)}, "semantic"),
        ({"query": "apple", "embedding": towards(0)}, "hybrid"),
    ):
        answer = contract.search([name], **fields, weights={"neighbour": 0.5}, explain=True).body
        assert answer["search"]["mode"] == mode
        scores = {memory["content"]: memory["score"] for memory in answer["memories"]}
        assert scores.pop(said[2]) == pytest.approx(2 / 3)
        assert scores[said[1]] == scores[said[3]] == pytest.approx(2 / 3 / 3, abs=1e-3)
        assert scores[said[0]] == scores[said[4]] == pytest.approx(1 / 3 / 3, abs=1e-3)
        # Of no word of the question, and three away.
        assert scores.get(said[5], 0) == pytest.approx(0, abs=1e-3)
        alone = contract.search([name], **fields, weights={"neighbour": 0}, explain=True).body["memories"]
        assert all("neighbour" not in memory["explain"] or not memory["explain"]["neighbour"] for memory in alone)
    assert contract.found([name], query="apple") == [said[2]]
    lifted = contract.found([name], query="apple -may", weights={"neighbour": 1})
    assert lifted[:2] == [said[2], said[1]]
    assert sorted(lifted[2:]) == [said[4], said[0]]


def test_what_expired_or_is_pinned_stands_beside_nothing(contract: Contract) -> None:
    name = contract.name()
    for content in ("one before", "the apple", "one after"):
        contract.commit(name, content)
        contract.commit(name, f"gone {content}", expires_at="2020-01-01T00:00:00Z")
        contract.commit(name, f"pinned {content.split()[0]}", pin=True)
    memories = contract.search([name], query="apple", weights={"neighbour": 0.5}).body["memories"]
    assert {memory["content"]: memory["score"] for memory in memories} == {
        "the apple": pytest.approx(2 / 3),
        "one before": pytest.approx(2 / 3 / 3, abs=1e-3),
        "one after": pytest.approx(2 / 3 / 3, abs=1e-3),
    }


@pytest.mark.servers("any")
def test_neighbours_of_copies_that_are_unlike_the_question_are_no_copies(contract: Contract) -> None:
    name = contract.name()
    for place in range(201):
        contract.commit(name, f"the same {place}", embedding=towards(0))
        contract.commit(name, f"the opposite {place}", embedding=towards(math.pi))
    for fields in ({"weights": {"neighbour": 0.45}}, {"query": "nothing"}):
        found = contract.search([name], embedding=towards(0), limit=100, explain=True, **fields).body["memories"]
        assert all(memory["content"].startswith("the same") for memory in found)
        assert all("lexical_rank" not in memory["explain"] for memory in found)


def test_equal_scores_come_in_a_stable_order(contract: Contract) -> None:
    name = contract.name()
    for _ in range(8):
        contract.commit(name, "same words", embedding=towards(0.3))
    for fields in ({"query": "same words"}, {"embedding": towards(0)}, {"query": "words", "embedding": towards(0)}):
        orders = {tuple(m["id"] for m in contract.search([name], **fields).body["memories"]) for _ in range(5)}
        assert len(orders) == 1


@pytest.mark.servers("any")
def test_an_answer_that_would_be_too_large_asks_for_a_smaller_limit(contract: Contract) -> None:
    name = contract.name()
    for number in range(30):
        assert contract.commit(name, f"{number} lorem{' ' * 900_000}ipsum").status == 201
    for asked in ({}, {"query": "lorem"}, {"kinds": ["fact"]}):
        assert refused(contract.search([name], limit=100, **asked), "limit must be smaller", "25 MiB")
        assert len(contract.found([name], limit=20, **asked)) == 20
    # What is not listed does not count: a name that is given twice, a namespace that has expired.
    assert contract.patch(name, {"expires_at": "2020-01-01T00:00:00Z"}).status == 200
    other = contract.name("b")
    for number in range(15):
        assert contract.commit(other, f"{number} lorem{' ' * 900_000}ipsum").status == 201
    assert len(contract.found([name, other, other], limit=100)) == 15
