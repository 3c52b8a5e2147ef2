"""Search by words: BM25 as the formula says, at every size, and what quotes, minus signs and scripts do to a query."""

from __future__ import annotations

import collections
import itertools
import math
import random
import unicodedata
from typing import Any

import psycopg
import pytest

K1, B = 1.2, 0.3
# Letters only and no English endings, so that the english configuration leaves the words as they are.
WORDS = [
    first + second
    for first in ("bo", "da", "fu", "gi", "ko", "lu", "mo", "pu", "ro", "tu")
    for second in ("bak", "dok", "fum", "gav", "kob", "lom", "mup", "pox", "rak", "tob", "vum", "zok")
]


def write(conn: psycopg.Connection[Any], namespace: str, contents: list[str], **columns: str) -> None:
    """Store memories straight in the table, a second apart, in their order."""
    conn.execute(
        "insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'custom') on conflict do nothing",
        [namespace],
    )
    conn.execute(
        "insert into memory_plugin.memory_records (namespace, content, kind, source, created_at, expires_at) "
        "select %s, c.content, 'fact', 'user', timestamptz '2026-01-01' + c.place * interval '1 s', %s::timestamptz "
        "from unnest(%s::text[]) with ordinality as c (content, place)",
        [namespace, columns.get("expires_at"), contents],
    )


def found(conn: psycopg.Connection[Any], namespace: str, query: str, limit: int = 20) -> list[str]:
    """Return the contents that a query finds, best first."""
    rows = conn.execute(
        "select content from memory_plugin.search(array[%s], query => %s, max_results => %s)", [namespace, query, limit]
    )
    return [row[0] for row in rows]


def zipf(count: int, longest: int, seed: int) -> list[str]:
    """Return texts of words that are as unequal as those of a language."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    return [" ".join(rng.choices(WORDS, weights, k=rng.randint(3, longest))) for _ in range(count)]


def bm25(contents: list[str], query: str) -> list[float]:
    """Return the score of every text, by the formula."""
    texts = [collections.Counter(content.split()) for content in contents]
    lengths = [sum(text.values()) for text in texts]
    average = sum(lengths) / len(lengths)
    scores = [0.0] * len(texts)
    for word in set(query.split()):
        holding = sum(word in text for text in texts)
        weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for place, text in enumerate(texts):
            n = text[word]
            scores[place] += weight * n * (K1 + 1) / (n + K1 * (1 - B + B * lengths[place] / average))
    return scores


def expected(contents: list[str], query: str, limit: int) -> list[tuple[str, float]]:
    """Return the best texts and their scores; ties newest first."""
    scores = bm25(contents, query)
    order = sorted((place for place in range(len(contents)) if scores[place] > 0), key=lambda p: (-scores[p], -p))
    return [(contents[place], scores[place]) for place in order[:limit]]


def test_scores_are_those_of_bm25(conn: psycopg.Connection[Any]) -> None:
    contents = zipf(300, 40, seed=1)
    write(conn, "custom:small", contents)
    rng = random.Random(2)
    for _ in range(20):
        query = " ".join(rng.sample(WORDS, 5))
        rows = conn.execute(
            "select content, score from memory_plugin.search(array['custom:small'], query => %s)", [query]
        ).fetchall()
        wanted = expected(contents, query, 20)
        assert [row[0] for row in rows] == [content for content, _ in wanted]
        assert [row[1] for row in rows] == pytest.approx([score for _, score in wanted], rel=1e-6)


def test_ten_thousand_memories_rank_as_bm25_ranks_them(conn: psycopg.Connection[Any]) -> None:
    contents = zipf(10_000, 60, seed=3)
    write(conn, "custom:large", contents)
    write(conn, "custom:other", zipf(2_000, 60, seed=4))
    conn.execute("analyze memory_plugin.memory_records")
    rng = random.Random(5)
    same = 0
    for turn in range(20):
        # Rare words, then common ones only: few memories to read, then nearly all.
        query = " ".join(rng.sample(WORDS if turn % 2 else WORDS[:12], 5))
        answer = conn.execute(
            "select (c.candidates[1:10])::text[], c.exact from memory_plugin._lexical_candidates("
            "array['custom:large'], %s, null, 10, true, false) as c",
            [query],
        ).fetchone()
        assert answer is not None
        assert answer[1] is True
        same += found(conn, "custom:large", query, 10) == [content for content, _ in expected(contents, query, 10)]
    assert same >= 19


def test_statistics_are_of_the_live_memories_of_the_namespaces_searched(conn: psycopg.Connection[Any]) -> None:
    contents = zipf(50, 20, seed=6)
    write(conn, "custom:mine", contents)
    write(conn, "custom:mine", ["bobak bobak"] * 50, expires_at="2026-01-02")
    write(conn, "custom:theirs", ["bobak bobak"] * 500)
    rows = conn.execute(
        "select content, score from memory_plugin.search("
        "array['custom:mine'], query => 'bobak dadok', max_results => 5)"
    ).fetchall()
    wanted = expected(contents, "bobak dadok", 5)
    assert rows == [(content, pytest.approx(score, rel=1e-6)) for content, score in wanted]


def test_a_cover_matches_exactly_the_sets_that_add_up(conn: psycopg.Connection[Any]) -> None:
    rng = random.Random(7)
    for _ in range(30):
        bounds = sorted((rng.uniform(0.1, 5) for _ in range(rng.randint(1, 6))), reverse=True)
        need = rng.uniform(0.05, sum(bounds) * 1.1)
        names = [f"t{place}" for place in range(len(bounds))]
        sets = [
            chosen for size in range(1, len(names) + 1) for chosen in itertools.combinations(range(len(names)), size)
        ]
        rows = conn.execute(
            "select array_to_tsvector(s.words) @@ memory_plugin._lexical_cover(%s, %s, %s)::tsquery "
            "from (select string_to_array(w, ' ') as words from unnest(%s::text[]) as w) as s",
            [names, bounds, need, [" ".join(names[place] for place in chosen) for chosen in sets]],
        ).fetchall()
        assert [bool(row[0]) for row in rows] == [sum(bounds[place] for place in chosen) >= need for chosen in sets]


def test_a_phrase_alone_must_occur(conn: psycopg.Connection[Any]) -> None:
    write(conn, "custom:phrase", ["a red bicycle", "a bicycle painted red", "the red one"])
    assert found(conn, "custom:phrase", '"red bicycle"') == ["a red bicycle"]
    assert found(conn, "custom:phrase", "“red bicycle”") == ["a red bicycle"]
    assert found(conn, "custom:phrase", '"blue bicycle"') == []


def test_a_phrase_beside_words_comes_first(conn: psycopg.Connection[Any]) -> None:
    write(conn, "custom:beside", ["red bicycle of the neighbours", "bicycle red", "price of bread", "nothing"])
    assert found(conn, "custom:beside", 'what is the price of the "red bicycle"')[0] == "red bicycle of the neighbours"
    assert len(found(conn, "custom:beside", 'what is the price of the "red bicycle"')) == 3


def test_a_minus_before_a_word_or_a_phrase_excludes(conn: psycopg.Connection[Any]) -> None:
    write(conn, "custom:minus", ["apple pie", "apple juice", "green apple juice", "well-known apple"])
    assert set(found(conn, "custom:minus", "apple -juice")) == {"apple pie", "well-known apple"}
    assert set(found(conn, "custom:minus", 'apple -"green apple"')) == {"apple pie", "apple juice", "well-known apple"}
    assert found(conn, "custom:minus", "-juice") == []
    assert len(found(conn, "custom:minus", "apple - juice")) == 4
    write(conn, "custom:signs", ["apple 🚀", "apple ?!", "apple"])
    assert set(found(conn, "custom:signs", "apple -🚀")) == {"apple ?!", "apple"}
    assert len(found(conn, "custom:signs", "apple -?!")) == 3
    assert found(conn, "custom:minus", "well-known")[0] == "well-known apple"
    # A minus takes away the word it stands before, and no letters of another.
    assert set(found(conn, "custom:minus", "well-known -known")) == set()
    assert set(found(conn, "custom:minus", "apple-pie -a -green")) == {"apple pie", "apple juice", "well-known apple"}


def test_what_is_excluded_is_not_found_by_its_embedding_either(conn: psycopg.Connection[Any]) -> None:
    near = "[" + ",".join(["1"] + ["0"] * 1535) + "]"
    for content in ("apple pie", "apple juice"):
        conn.execute("select memory_plugin.commit_memory('custom:both', %s, embedding => %s)", [content, near])
    rows = conn.execute(
        "select content from memory_plugin.search(array['custom:both'], query => 'apple -juice', embedding => %s)",
        [near],
    )
    assert rows.fetchall() == [("apple pie",)]


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("我昨天在市场买了新鲜的苹果", "苹果"),
        ("我昨天在市场买了新鲜的苹果", "新鲜苹果多少钱"),
        ("今日は東京で寿司を食べました", "東京の寿司"),
        ("서울에서 사과를 샀습니다", "사과"),
        ("เมื่อวานฉันซื้อแอปเปิลที่ตลาด", "แอปเปิล"),
        ("Le café de la gare", "café"),
        ("Ἑλληνική γλῶσσα", "γλῶσσα"),
        ("закат над морем", "Закат"),
        ("party 🎉 tonight", "🎉"),
        ("to be or not to be", "to be"),
        ("the answer of who", "who"),
        ("path C:\\temp\\new", "C:\\temp\\new"),
        ("it's o'clock", "o'clock"),
    ],
)
def test_text_of_every_script_is_found(conn: psycopg.Connection[Any], content: str, query: str) -> None:
    write(conn, "custom:scripts", ["entirely different words", content, "unrelated"])
    assert found(conn, "custom:scripts", query)[:1] == [content]


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        ("see src/app/server.py line 10", ("server.py", "app/server.py", "Server", "where is server.py")),
        ("the code is at https://github.com/acme/widgets", ("acme", "widgets", "github")),
        ("mail ada@example.com about it", ("ada", "example.com", '"example.com"')),
        ("ticket JIRA-1234 is closed", ("1234",)),
        ("version v1.2.3 shipped", ("v1.2",)),
        ("C:\\tools\\yarn.exe runs", ("yarn",)),
    ],
)
def test_a_part_of_a_longer_word_is_found_where_no_word_is(
    conn: psycopg.Connection[Any], content: str, queries: tuple[str, ...]
) -> None:
    write(
        conn,
        "custom:parts",
        [
            "it is there, where we are",
            "observer.pyc acmeball wagithub 11234 yarnball adamant 1.2.34",
            content,
            "unrelated",
        ],
    )
    for query in queries:
        assert found(conn, "custom:parts", query) == [content]
    assert found(conn, "custom:parts", "nowhere") == []
    assert found(conn, "custom:parts", f"{queries[0]} -unrelated") == [content]
    assert found(conn, "custom:parts", f"{queries[0]} -line -code -mail -ticket -shipped -runs") == []


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("JIRA-1204 is about imports", "ticket 1204"),
        ("ticket 1204 is about imports", "JIRA-1204"),
        ("the api of v2.3.1 shipped", "api 2.3.1"),
        ("the api of 2.3.1 shipped", "api v2.3.1?"),
        ("the meeting of 2024-03-15", "meeting 15 March"),
        ("call 555 123 4567", "call 555-123-4567"),
        ("it costs 3.50", "costs -3.50"),
    ],
)
def test_a_number_is_found_whatever_its_hyphen_or_v(conn: psycopg.Connection[Any], content: str, query: str) -> None:
    others = ["JIRA-1205 ticket", "ticket JIRA 1203", "meeting on 2024-04-16", "call 555 222 3333", "api v2.3.2, 4.50"]
    write(conn, "custom:numbers", [*others[:2], content, *others[2:]])
    assert found(conn, "custom:numbers", query)[0] == content
    # Other letters make another word of it.
    assert found(conn, "custom:numbers", "av2.3.1 1e15 v1204") == []


def test_a_part_of_a_longer_word_is_not_looked_for_where_a_word_is_found(conn: psycopg.Connection[Any]) -> None:
    write(conn, "custom:parts", ["see src/app/server.py line 10", "the server is up"])
    assert found(conn, "custom:parts", "server") == ["the server is up"]
    assert found(conn, "custom:parts", "server.py") == ["see src/app/server.py line 10"]


def test_accents_are_found_however_the_query_writes_them(conn: psycopg.Connection[Any]) -> None:
    texts = ["Zoë flew to São Paulo", "서울에서 사과를 샀습니다", "nothing of it"]
    write(conn, "custom:accents", texts)
    for query, content in (("Zoë", texts[0]), ("São", texts[0]), ("사과", texts[1])):
        assert found(conn, "custom:accents", query) == [content]
        assert found(conn, "custom:accents", unicodedata.normalize("NFD", query)) == [content]
    apart = unicodedata.normalize("NFD", "Ève and Chloé")
    write(conn, "custom:apart", [apart, "nothing of it"])
    assert found(conn, "custom:apart", unicodedata.normalize("NFD", "Chloé")) == [apart]


def test_stop_words_alone_are_found_as_words(conn: psycopg.Connection[Any]) -> None:
    texts = ["tomorrow into bed", "Who, me?", "as it is, to be", "not to a beach"]
    write(conn, "custom:stop", texts)
    assert found(conn, "custom:stop", "to be") == [texts[2], texts[3]]
    assert found(conn, "custom:stop", "(who)") == [texts[1]]
    assert set(found(conn, "custom:stop", "me?! it")) == {texts[1], texts[2]}
    assert found(conn, "custom:stop", "?") == [texts[1]]
    assert found(conn, "custom:stop", '"to be" beach')[:2] == [texts[3], texts[2]]
    # Beside text without spaces, whose pieces are looked for in the same way.
    write(conn, "custom:stop", ["苹果 into bed", "苹果 to be"])
    assert found(conn, "custom:stop", '苹果 "to be"')[0] == "苹果 to be"
    assert set(found(conn, "custom:stop", '苹果 "to be"')) == {"苹果 to be", "苹果 into bed", texts[2]}


@pytest.mark.parametrize(
    "query",
    [
        "'", '"', '""', '"""', "- -", "--", '-"', '-""', "\\", "\\'", "' | !'", "a & | !", "<->", ":*", "%", "_ %",
        "$1 $$", '" "', "-a", "()", "x" * 5000, "word " * 3000, "\t\n", "'' ''", "-'x' y", '"苹果" -苹', "ﷺ ",
        "a\u0301 e\u0301",
    ],
)  # fmt: skip
def test_no_query_is_an_error(conn: psycopg.Connection[Any], query: str) -> None:
    write(conn, "custom:hostile", ["one memory", "a 'quoted' \\ memory 苹果", "100 % sure_ly"])
    found(conn, "custom:hostile", query)


def test_a_question_of_many_words_is_answered_from_many_memories(conn: psycopg.Connection[Any]) -> None:
    contents = zipf(1_500, 30, seed=8)
    write(conn, "custom:long", contents)
    query = " ".join(WORDS)
    assert found(conn, "custom:long", query, 3) == [content for content, _ in expected(contents, query, 3)]


def commit(conn: psycopg.Connection[Any], content: str, angle: float) -> None:
    """Commit a memory whose embedding stands at an angle to the question's."""
    embedding = [math.cos(angle), math.sin(angle)] + [0.0] * 1534
    conn.execute("select memory_plugin.commit_memory('custom:talk', %s, embedding => %s)", [content, str(embedding)])


def test_the_memory_beside_the_best_is_lifted_when_words_and_embedding_are_asked(conn: psycopg.Connection[Any]) -> None:
    for place in range(8):
        commit(conn, f"small talk number {place}", 1.2)
    commit(conn, "when did you go to Lisbon", 0.1)
    commit(conn, "last May, with my sister", 1.2)
    for place in range(8):
        commit(conn, f"more small talk {place}", 1.2)
    asked = (
        "select content from memory_plugin.search(array['custom:talk'], query => %s, embedding => %s, max_results => 2)"
    )
    rows = conn.execute(asked, ["Lisbon", str([1.0] + [0.0] * 1535)]).fetchall()
    assert rows[0] == ("when did you go to Lisbon",)
    assert rows[1] in {("last May, with my sister",), ("small talk number 7",)}
    assert found(conn, "custom:talk", "Lisbon") == ["when did you go to Lisbon"]


def test_the_memories_around_the_best_count_by_how_near_they_were_committed(conn: psycopg.Connection[Any]) -> None:
    for content in (
        "a long way before",
        "two before",
        "next before",
        "Lisbon",
        "next after",
        "two after",
        "much later",
    ):
        commit(conn, content, 0.1 if content == "Lisbon" else 1.2)
    rows = conn.execute(
        "select content, score, parts ->> 'neighbour' from memory_plugin.search("
        "array['custom:talk'], query => 'Lisbon', embedding => %s, explain => true)",
        [str([1.0] + [0.0] * 1535)],
    ).fetchall()
    assert {content: (score, float(beside)) for content, score, beside in rows} == {
        "Lisbon": (pytest.approx(1 / 1.45), 0),
        **dict.fromkeys(("next before", "next after"), (pytest.approx(0.45 * 2 / 3 / 1.45), pytest.approx(2 / 3))),
        **dict.fromkeys(("two before", "two after"), (pytest.approx(0.45 / 3 / 1.45), pytest.approx(1 / 3))),
        **dict.fromkeys(("a long way before", "much later"), (0, 0)),
    }


def test_what_one_arm_found_has_its_true_score_in_the_other(conn: psycopg.Connection[Any]) -> None:
    commit(conn, "Lisbon is far", 1.5)
    commit(conn, "the capital of Portugal", 0.0)
    rows = conn.execute(
        "select content, parts from memory_plugin.search("
        "array['custom:talk'], query => 'Lisbon', embedding => %s, explain => true)",
        [str([1.0] + [0.0] * 1535)],
    ).fetchall()
    parts = dict(rows)
    assert parts["Lisbon is far"]["semantic"] == pytest.approx(math.cos(1.5), abs=1e-5)
    assert parts["the capital of Portugal"]["lexical"] == 0
