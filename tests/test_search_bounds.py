"""Where a search by words is bounded: what it still finds, and that it says so."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

Row = dict[str, Any]


def fill(conn: psycopg.Connection[Any], namespace: str, rows: int, content: str, **columns: str) -> None:
    """Store so many memories, a second apart; content, kind and pin are SQL over i, from 1, the oldest."""
    kind, pin = columns.get("kind", "'fact'"), columns.get("pin", "false")
    conn.execute(
        "insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'custom') on conflict do nothing",
        [namespace],
    )
    conn.execute(
        "insert into memory_plugin.memory_records (namespace, content, kind, source, pin, created_at) "
        f"select %s, {content}, {kind}, 'user', {pin}, timestamptz '2026-01-01' + i * interval '1 s' "
        "from generate_series(1, %s) as i",
        [namespace, rows],
    )


def answer(conn: psycopg.Connection[Any], namespace: str, **asked: object) -> tuple[list[str], Row]:
    """Return the contents that /v1/search finds, and what it says of the search."""
    row = conn.execute(
        "select memory_plugin.v1_search(%s::json)", [json.dumps({"namespaces": [namespace], **asked})]
    ).fetchone()
    assert row is not None
    return [memory["content"] for memory in row[0]["memories"]], row[0]["search"]


@pytest.mark.servers("any")
@pytest.mark.parametrize(("rows", "rare", "exact"), [(61_000, 4, True), (125_000, 7, False)])
def test_words_that_nearly_every_memory_holds_still_fill_the_answer(
    conn: psycopg.Connection[Any], rows: int, rare: int, exact: bool
) -> None:
    fill(
        conn,
        "custom:common",
        rows,
        "'commonword' || case when mod(i, 20000) = 7 then ' zebra' else '' end",
        kind="case when mod(i, 1000) = 9 then 'checkpoint' else 'fact' end",
    )
    conn.execute("analyze memory_plugin.memory_records")
    found, told = answer(conn, "custom:common", query="zebra commonword", limit=10)
    assert found == ["commonword zebra"] * rare + ["commonword"] * (10 - rare)
    assert told["exact"] is exact
    found, told = answer(conn, "custom:common", query="zebra commonword", limit=20, kinds=["checkpoint"])
    assert found == ["commonword"] * 20
    assert told["exact"] is exact
    found, _ = answer(conn, "custom:common", query="zebra commonword", limit=20, created_before="2026-01-01T00:00:06Z")
    assert found == ["commonword"] * 5


@pytest.mark.servers("any")
def test_of_a_page_pasted_into_a_large_namespace_the_rarest_words_are_asked(conn: psycopg.Connection[Any]) -> None:
    fill(
        conn,
        "custom:page",
        10_100,
        "'word' || mod(i, 400) || ' and ' || case when i = 77 then 'needlework' else 'hay' end",
    )
    page = " ".join(f"word{i}" for i in range(300)) + " needlework"
    found, told = answer(conn, "custom:page", query=page, limit=3)
    assert "needlework" in found[0]
    assert told["exact"] is False
    # A phrase may be rarer than its words, which are then not asked.
    found, _ = answer(conn, "custom:page", query=f'{page} "word300 and hay"', limit=100)
    assert "word300 and hay" in found
    # Nothing is left out of a question.
    assert answer(conn, "custom:page", query=" ".join(page.split()[-30:]))[1]["exact"] is True


def test_a_condition_on_text_without_spaces_is_looked_for_beyond_the_newest(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:han", 20_300, "'新鲜的苹果 ' || lpad(i::text, 5, '0')")
    found, told = answer(conn, "custom:han", query="苹果", limit=20, created_before="2026-01-01T00:00:11Z")
    assert found == [f"新鲜的苹果 {i:05}" for i in range(10, 0, -1)]
    assert told["exact"] is False


@pytest.mark.servers("any")
@pytest.mark.parametrize("pieces", ["缓存", '"what is"'])
def test_beside_text_without_spaces_words_are_found_however_far_back(
    conn: psycopg.Connection[Any], pieces: str
) -> None:
    old = f"redis {pieces}".replace('"', "")
    fill(
        conn,
        "custom:mixed",
        20_300,
        f"case when i = 7 then '{old}' when i = 8 then 'redis server beside another cluster' "
        "when mod(i, 2) = 0 then '缓存 what is new ' || i else 'other ' || i end",
    )
    conn.execute("analyze memory_plugin.memory_records")
    assert answer(conn, "custom:mixed", query="redis", limit=2)[0] == [old, "redis server beside another cluster"]
    found, told = answer(conn, "custom:mixed", query=f"redis {pieces}", limit=10)
    # Both of what is asked, then the rarer of the two, then the other.
    assert found[:2] == [old, "redis server beside another cluster"]
    assert len({content for content in found[2:] if content.startswith("缓存 what is new ")}) == 8
    assert told["exact"] is False
    assert "redis" not in str(answer(conn, "custom:mixed", query=f"redis {pieces} -redis", limit=10)[0])


def test_a_long_question_without_spaces_is_asked_by_its_beginning(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:long", 3, "'今日は東京で寿司を食べました ' || i")
    question = "今日は東京で" + "".join(chr(0x4E00 + i) for i in range(3000))
    found, told = answer(conn, "custom:long", query=question)
    assert len(found) == 3
    assert told["exact"] is False
    # A word before it, or another script behind the last space, takes nothing of it away.
    for page in (question, "x" * 4000):
        assert len(answer(conn, "custom:long", query=f"hello 東京で {page}{question}")[0]) == 3


def test_of_many_stop_words_the_first_are_looked_for(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:stop", 2, "(array['to be or not', 'but only of him'])[i]")
    eight = "to be or not the and a in"
    for query, exact in ((eight, True), (f"{eight} of him", False)):
        found, told = answer(conn, "custom:stop", query=query)
        assert (found, told["exact"]) == (["to be or not"], exact)


def test_phrases_of_stop_words_are_demanded_once_each_and_not_without_end(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:stop", 3, "'to be or not to be ' || i")
    once = conn.execute(
        "select (memory_plugin._lexical_parse(%s, true, false)).present", ['"to be" "To Be" ' * 300]
    ).fetchone()
    assert once == (["\\yto be\\y"],)
    assert answer(conn, "custom:stop", query='"to be" "not to"')[1]["exact"] is True
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    assert answer(conn, "custom:stop", query='"to be" -"not to" or')[1]["exact"] is True
    assert notices == []
    stop = ("to", "be", "or", "not", "and", "the")
    many = " ".join(f'"{one} {other}"' for one in stop for other in stop)
    found, told = answer(conn, "custom:stop", query=many)
    assert (found, told["exact"]) == ([], False)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, ["x 9", "x 6", "x 3", "x 10", "x 8"]),
        ({"created_after": "2026-01-01T00:00:03Z"}, ["x 9", "x 6", "x 10", "x 8", "x 7"]),
        ({"created_before": "2026-01-01T00:00:06Z"}, ["x 3", "x 5", "x 4", "x 2", "x 1"]),
        ({"offset": 4}, ["x 8", "x 7", "x 5", "x 4", "x 2"]),
        ({"kinds": ["summary"]}, ["x 6", "x 10", "x 8", "x 4", "x 2"]),
        ({"query": "x", "kinds": ["summary"], "created_before": "2026-01-01T00:00:09Z"}, ["x 6", "x 8", "x 4", "x 2"]),
    ],
)
def test_a_listing_between_times_is_pinned_first_then_newest(
    conn: psycopg.Connection[Any], asked: Row, wanted: list[str]
) -> None:
    kind = "case when mod(i, 2) = 0 then 'summary' else 'fact' end"
    fill(conn, "custom:times", 10, "'x ' || i", pin="mod(i, 3) = 0", kind=kind)
    found, told = answer(conn, "custom:times", limit=5, **asked)
    assert found == wanted
    assert told["exact"] is True


def test_an_answer_weighed_by_age_says_that_only_the_best_were_weighed(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:aged", 200, "'apple pie ' || i")
    assert answer(conn, "custom:aged", query="apple")[1]["exact"] is True
    assert answer(conn, "custom:aged", query="apple", recency_half_life=60)[1]["exact"] is False
    assert answer(conn, "custom:aged", query="apple", recency_half_life=60, created_after="2026-01-01T00:03:00Z")[1][
        "exact"
    ]


@pytest.mark.parametrize("query", ["東京", "x", "!!", "東京 -大阪"])
def test_what_small_namespaces_leave_of_a_bound_goes_to_the_others(conn: psycopg.Connection[Any], query: str) -> None:
    """Of 40 namespaces each would have a fortieth of the 20,000 memories that are read: 500."""
    fill(conn, "custom:long", 900, "case when i = 1 then '東京 !! x' else 'note ' || i end")
    names = [f"custom:short{number}" for number in range(39)]
    for name in names:
        fill(conn, name, 1, "'note'")
    found, told = answer(conn, "", namespaces=["custom:long", *names], query=query)
    assert found == ["東京 !! x"]
    assert told["exact"] is True


@pytest.mark.servers("any")
def test_beyond_a_bound_the_newest_of_every_namespace_are_read(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:long", 30_000, "case when mod(i, 10000) = 1 then '東京 ' || i else 'note ' || i end")
    names = [f"custom:short{number}" for number in range(100)]
    for name in names:
        fill(conn, name, 2, "case when i = 1 then '東京' else 'note' end")
    found, told = answer(conn, "", namespaces=["custom:long", *names[1:]], query="東京", limit=100)
    # 19,802 of the newest: two of three.
    assert len(found) == 99 + 2 - 1
    assert told["exact"] is False


@pytest.mark.servers("any")
def test_what_expired_takes_no_part_of_a_bound(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:past", 30_000, "'note ' || i")
    conn.execute("update memory_plugin.memory_records set expires_at = '2026-06-01' where namespace = 'custom:past'")
    fill(conn, "custom:live", 19_000, "case when i = 1 then '中文 here' else 'note ' || i end")
    found, told = answer(conn, "", namespaces=["custom:past", "custom:live"], query="中文")
    assert (found, told["exact"], told["candidates"]) == (["中文 here"], True, 19_000)


@pytest.mark.servers("any")
def test_all_of_a_bound_is_used(conn: psycopg.Connection[Any]) -> None:
    sizes = {"custom:a": 200, "custom:b": 7_900, "custom:c": 12_600}
    for name, size in sizes.items():
        fill(conn, name, size, "'note ' || i")
    ((each,),) = conn.execute("select memory_plugin._lexical_each(%s, 20000)", [list(sizes)]).fetchall()
    assert each == 20_000 - 200 - 7_900
    assert conn.execute("select memory_plugin._lexical_each(%s, 20700)", [list(sizes)]).fetchone() == (None,)
    # All of one that is as large as the bound is read.
    fill(conn, "custom:d", 20_000, "'文 ' || i")
    assert answer(conn, "custom:d", query="文字")[1]["exact"] is True


@pytest.mark.servers("any")
def test_one_character_in_the_newest_of_several_is_exact_only_where_all_were_looked_at(
    conn: psycopg.Connection[Any],
) -> None:
    fill(conn, "custom:a", 120_000, "case when i = 10000 then 'zq' else 'ab' end")
    fill(conn, "custom:b", 120_000, "case when i = 119999 then 'yq' else 'ab' end")
    conn.execute(
        "update memory_plugin.memory_records set created_at = created_at - interval '1 y' where namespace = 'custom:b'"
    )
    found, told = answer(conn, "", namespaces=["custom:a", "custom:b"], query="q", limit=1)
    assert told["exact"] is (found == ["zq"])
    assert answer(conn, "custom:a", query="q", limit=1)[1]["exact"] is True


@pytest.mark.servers("any")
def test_a_condition_is_looked_for_so_far_in_all_together(conn: psycopg.Connection[Any]) -> None:
    kind = "case when i = 1 then 'summary' else 'fact' end"
    for name in ("custom:a", "custom:b"):
        fill(conn, name, 120_000, "case when i = 1 then '中文' else 'note' end", kind=kind)
    asked = {"query": "中文", "kinds": ["summary"]}
    assert answer(conn, "", namespaces=["custom:a", "custom:b"], **asked)[0] == []
    assert answer(conn, "custom:a", **asked)[0] == ["中文"]


def test_an_arm_that_counts_for_nothing_is_not_asked(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:arms", 20, "'apple pie ' || i")
    embedding = [1.0] + [0.0] * 1535
    conn.execute("select memory_plugin.commit_memory('custom:arms', 'pear', embedding => %s)", [str(embedding)])
    both = {"query": "apple 7", "embedding": embedding}
    words = answer(conn, "custom:arms", query="apple 7")[0]
    found, told = answer(conn, "custom:arms", **both, weights={"semantic": 0})
    assert (found, told["mode"]) == (words, "lexical")
    found, told = answer(conn, "custom:arms", **both, weights={"lexical": 0})
    assert (found, told["mode"]) == (["pear"], "semantic")
    assert answer(conn, "custom:arms", **both)[1]["mode"] == "hybrid"
    conn.execute("select memory_plugin.commit_memory('custom:arms', '猫')")
    found, told = answer(conn, "custom:arms", query="猫", embedding=embedding, weights={"semantic": 0})
    assert (found, told["mode"]) == (["猫"], "substring")


@pytest.mark.parametrize(
    "more",
    [{}, {"recency_half_life": 300}, {"diversity": 0.5}, {"query": "apple pie -pear"}, {"min_score": 0.3}],
    ids=str,
)
def test_pages_of_a_search_by_both_hold_each_memory_once(conn: psycopg.Connection[Any], more: dict[str, Any]) -> None:
    fill(conn, "custom:pages", 900, "'apple ' || repeat('pie ', mod(abs(hashint4(i)), 31)) || i")
    conn.execute(
        "update memory_plugin.memory_records as r set "
        "  created_at = now() - mod(abs(hashint4(v.i + 1000)), 900) * interval '1 s', "
        "  embedding = format('[%s,%s%s]', cos(v.n), sin(v.n), repeat(',0', 1534))::memory_plugin.vector "
        "from ("
        "  select a.id, a.i, mod(abs(hashint4(a.i + 2000)), 900) / 600.0 as n from ("
        "    select id, substring(content, '[0-9]+')::integer as i from memory_plugin.memory_records"
        "    where namespace = 'custom:pages'"
        "  ) as a"
        ") as v where r.namespace = 'custom:pages' and r.id = v.id"
    )
    both = {"query": "apple pie", "embedding": [1.0] + [0.0] * 1535, **more}
    turned = []
    while page := answer(conn, "custom:pages", **both, limit=30, offset=len(turned))[0]:
        turned += page
    assert len(turned) == len(set(turned))
    assert len(turned) == 900 or "min_score" in more
    assert turned[:100] == answer(conn, "custom:pages", **both, limit=100)[0]
    assert turned[90:190] == answer(conn, "custom:pages", **both, limit=100, offset=90)[0]


def test_pages_of_chance_tell_what_a_large_namespace_holds(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "custom:chance", 6000, "'apple pie' || case when mod(i, 4) = 0 then ' quince' else '' end")
    fill(conn, "custom:other", 6000, "'quince'")
    conn.execute("analyze memory_plugin.memory_records")
    row = conn.execute(
        "select s.total, s.counted, s.average_length, s.shares from memory_plugin._lexical_sample("
        "array['custom:chance'], array['appl', 'quinc', 'pear']::tsquery[], 100) as s"
    ).fetchone()
    assert row is not None
    total, counted, average_length, shares = row
    assert not counted
    assert total == pytest.approx(6000, rel=0.1)
    assert average_length == pytest.approx(2.25, rel=0.1)
    assert shares == pytest.approx([1.0, 0.25, 0.0], abs=0.05)


@pytest.mark.servers("any")
def test_in_a_very_large_namespace_what_is_rare_is_found_far_back_or_the_answer_is_not_exact(
    conn: psycopg.Connection[Any],
) -> None:
    # Both words in each, side by side in a few: the newest of these stand among the newest 100,000, the oldest do not.
    fill(
        conn,
        "custom:large",
        160_000,
        "case when mod(i, 50000) = 7 then 'alpha beta' else 'alpha or beta' end || ' gamma' || mod(i, 100)",
        kind="case when i between 20001 and 20040 then 'checkpoint' else 'fact' end",
    )
    conn.execute("analyze memory_plugin.memory_records")
    found, told = answer(conn, "custom:large", query='"alpha beta"', limit=10)
    assert found == ["alpha beta gamma7"] * 2
    assert told["exact"] is False
    # Beside a word that few have, a phrase is looked for in those few.
    found, _ = answer(conn, "custom:large", query='"alpha beta" gamma7', limit=10)
    assert found[0] == "alpha beta gamma7"
    # A kind that no new memory is of.
    found, told = answer(conn, "custom:large", query="alpha gamma7", limit=20, kinds=["checkpoint"])
    assert len(found) == 20
    assert "gamma7" in found[0]
    assert told["exact"] is False
