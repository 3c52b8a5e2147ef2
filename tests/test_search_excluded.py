"""What a query demands and excludes holds for what embeddings find too, however many are excluded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from test_contract_search import towards
from test_search_bounds import answer, fill

Connection = psycopg.Connection[Any]
NAME = "custom:excluded"


@pytest.fixture(scope="module")
def fruit(module_database: str) -> Iterator[Connection]:
    """Store 1,250 memories of plums near to a question, and farther from it fifty of other fruit."""
    with psycopg.connect(module_database, autocommit=True) as conn:
        fill(conn, NAME, 1300, "case when i <= 1250 then 'plum jam ' else 'pear cake ' end || i")
        conn.execute(
            "update memory_plugin.memory_records as r set embedding = ("
            "    select array[cos(a.angle), sin(a.angle)] || array_fill(0::double precision, array[1534])"
            "    from (select 0.001 * split_part(r.content, ' ', 3)::integer as angle) as a"
            ")::real[]",
        )
        yield conn


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "zebra -plum"},
        {"query": "-plum"},
        {"query": "cake -plum"},
        {"query": 'zebra -"plum jam"'},
        {"query": "zebra -plum", "weights": {"lexical": 0}},
        {"query": '"pear cake"', "weights": {"lexical": 0}},
        {"query": '"pear cake"'},
        {"query": "zebra -plum", "recency_half_life": 1e9},
        {"query": "zebra -plum", "weights": {"lexical": 0, "neighbour": 0.5}},
    ],
)
def test_as_many_come_back_as_nothing_excludes(fruit: Connection, asked: dict[str, Any]) -> None:
    found, told = answer(fruit, NAME, embedding=towards(0), limit=30, **asked)
    assert len(found) == 30
    assert all(content.startswith("pear") for content in found)
    if (
        "recency_half_life" not in asked
        and "neighbour" not in asked.get("weights", {})
        and "cake" not in asked["query"]
    ):
        assert found == [f"pear cake {1251 + place}" for place in range(30)]
    assert told["mode"] == ("semantic" if "lexical" in asked.get("weights", {}) else "hybrid")


def test_what_is_excluded_with_everything_else_leaves_nothing(fruit: Connection) -> None:
    found, told = answer(fruit, NAME, query="zebra -plum -pear", embedding=towards(0))
    assert (found, told["exact"]) == ([], True)


@pytest.mark.servers("any")
def test_what_is_demanded_is_found_by_meaning_where_more_hold_it_than_words_can_list(conn: Connection) -> None:
    texts = [("the error code that matters", 0.2)]
    texts += [(f"error code seen at step {place}", 1.5) for place in range(450)]
    texts += [(f"chat line {place}", 0.01) for place in range(250)]
    for text, angle in texts:
        conn.execute("select memory_plugin.commit_memory(%s, %s, embedding => %s)", [NAME, text, str(towards(angle))])
    for weights in ({}, {"lexical": 0.01, "semantic": 0.99}, {"lexical": 0}):
        found, _ = answer(conn, NAME, query='"error code"', embedding=towards(0), weights=weights, limit=100)
        assert len(found) == 100
        assert texts[0][0] in found
        assert all("error code" in content for content in found)


def test_where_nothing_is_left_the_answer_is_exact(conn: Connection) -> None:
    for text in ("fox one", "fox two bar"):
        conn.execute("select memory_plugin.commit_memory(%s, %s)", [NAME, text])
    for asked in ({"query": "fox -bar"}, {"query": "fox"}, {"query": "fox", "kinds": ["summary"]}):
        for weights in ({}, {"lexical": 0}):
            assert answer(conn, NAME, embedding=towards(0), **asked, weights=weights)[1]["exact"] is True


def test_what_is_behind_the_part_that_is_read_is_not_called_exact(conn: Connection) -> None:
    conn.execute("select memory_plugin.commit_memory(%s, 'a fox', embedding => %s)", [NAME, str(towards(0))])
    query = "zap " + " ".join(f"-w{place}" for place in range(800)) + " -fox"
    for weights in ({}, {"lexical": 0}):
        assert answer(conn, NAME, query=query, embedding=towards(0), weights=weights)[1]["exact"] is False


@pytest.mark.parametrize("ways", [{}, {"embedding": towards(0)}])
def test_a_phrase_of_stop_words_takes_no_letters_from_other_words(conn: Connection, ways: dict[str, Any]) -> None:
    texts = ["walk into bed slowly", "walk and be, or not", "walk (to be) or not", "walk\nand two lines"]
    for text in texts:
        conn.execute(
            "select memory_plugin.commit_memory(%s, %s, embedding => %s)",
            [NAME, text, str(towards(0.1)) if ways else None],
        )
    found = {
        query: set(answer(conn, NAME, query=query, **ways)[0]) for query in ('walk -"to be"', '"to be"', 'walk -" "')
    }
    assert found == {
        'walk -"to be"': set(texts) - {texts[2]},
        '"to be"': {texts[2]},
        'walk -" "': set(texts),
    }


@pytest.mark.parametrize("ways", [{}, {"embedding": towards(0)}])
def test_whatever_is_excluded_excludes_what_it_says_and_no_more(conn: Connection, ways: dict[str, Any]) -> None:
    texts = [
        "alpha 東京 (a+b)",
        "alpha 大阪 [x]",
        "alpha 京都 100%",
        "alpha a.b",
        "alpha aXb",
        "alpha ÄPFEL",
        "alpha ^$|",
    ]
    for text in texts:
        conn.execute(
            "select memory_plugin.commit_memory(%s, %s, embedding => %s)",
            [NAME, text, str(towards(0.1))] if ways else [NAME, text, None],
        )

    def left(query: str) -> set[str]:
        return set(texts) - set(answer(conn, NAME, query=query, **ways)[0])

    assert left("alpha -東京 -京都") == {texts[0], texts[2]}
    assert left('alpha -"(+"') == set()
    assert left('alpha -"^$|"') == {texts[6]}
    assert left('alpha -"[."') == set()
    assert left("alpha -東") == {texts[0]}
    assert left("alpha -äpfel") == {texts[5]}
    assert left('alpha -"**"') == set()


def test_a_page_of_exclusions_is_one_look_through_each_text(conn: Connection) -> None:
    query = "alpha " + " ".join(f"-東{chr(0x4E00 + place)}" for place in range(900))
    rows = conn.execute(
        "select cardinality(absent), length(absent[1]) from memory_plugin._lexical_parse(%s, true, false)", [query]
    )
    assert rows.fetchone() == (1, 900 * 3 - 1)
    fill(conn, NAME, 900, "'alpha note ' || i || ' 東' || chr(x'4e00'::integer + i + 449)")
    found, told = answer(conn, NAME, query=query, limit=100)
    assert len(found) == 100
    assert min(int(content.split()[2]) for content in found) > 900 - 450
    assert told["exact"] is True
