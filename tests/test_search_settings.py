"""The settings that tune search: what each does, and that one which makes no sense is told, not obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from fixtures.sidecars import Sidecar

TUNED = {
    "bm25_k1": ("0.01", "100", {"query": "apples pears"}),
    "bm25_b": ("0", "1", {"query": "apples pears"}),
    "neighbour_weight": ("0", "10", {"query": "apples pears", "embedding": True}),
    "semantic_reach": ("40", "1000", {"embedding": True}),
}


def search(conn: psycopg.Connection[Any], **asked: Any) -> dict[str, Any]:
    """Ask /v1/search for what there is in one namespace; embedding: any."""
    if asked.get("embedding"):
        ((dimensions,),) = conn.execute("select (memory_plugin.stats() ->> 'dimensions')::integer").fetchall()
        asked["embedding"] = [1] * dimensions
    row = conn.execute(
        "select memory_plugin.v1_search(%s::json)", [json.dumps({"namespaces": ["team:tuned"], **asked})]
    ).fetchone()
    assert row is not None
    return dict(row[0])


@pytest.fixture
def fruit(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Write a short and a long memory of the same word."""
    conn.execute("select memory_plugin.upsert_namespace('team:tuned', 'team')")
    for content in ("apples", "apples " + "and other things that one finds in gardens " * 5, "pears"):
        conn.execute("select memory_plugin.commit_memory('team:tuned', %s)", [content])
    return conn


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("value", ["much", "nan", "-1", "1e9", "1e999", "0x10"])
def test_a_setting_that_makes_no_sense_is_named_with_its_rule(
    fruit: psycopg.Connection[Any], name: str, value: str
) -> None:
    least, most, asked = TUNED[name]
    fruit.execute("select set_config(%s, %s, false)", [f"memory_plugin.{name}", value])
    with pytest.raises(psycopg.Error) as caught:
        search(fruit, **asked)
    assert caught.value.sqlstate == "MP009"
    assert caught.value.diag.message_primary == (
        f"the setting memory_plugin.{name} must be a number between {least} and {most}"
    )
    assert f"reset memory_plugin.{name}" in str(caught.value.diag.message_hint)
    # Put right, it works again in the same session.
    fruit.execute("select set_config(%s, %s, false)", [f"memory_plugin.{name}", most])
    assert search(fruit, **asked)["search"]["exact"] in (True, False)
    fruit.execute("select set_config(%s, '', false)", [f"memory_plugin.{name}"])
    assert search(fruit, **asked)["search"]["exact"] in (True, False)


def test_a_fraction_may_be_written_without_its_zero(fruit: psycopg.Connection[Any]) -> None:
    fruit.execute("set memory_plugin.bm25_b = .5")
    assert fruit.execute("show memory_plugin.bm25_b").fetchone() == (".5",)
    assert search(fruit, query="apples")["search"]["exact"] is True


def test_the_smallest_weight_there_is_is_one(fruit: psycopg.Connection[Any]) -> None:
    near = "[" + ",".join(["1"] + ["0"] * 1535) + "]"
    fruit.execute("select memory_plugin.commit_memory('team:tuned', 'apples too', embedding => %s)", [near])
    for weight in ("lexical_weight => 5e-324, semantic_weight => 1", "neighbour_weight => 5e-324"):
        asked = f"array['team:tuned'], 'apples', embedding => %s, {weight}"
        found = fruit.execute(f"select content from memory_plugin.search({asked})".encode(), [near])
        assert len([content for (content,) in found if "apples" in content]) == 3


def test_length_counts_as_the_setting_says(fruit: psycopg.Connection[Any]) -> None:
    def scores() -> list[float]:
        return [memory["score"] for memory in search(fruit, query="apples")["memories"]]

    fruit.execute("set memory_plugin.bm25_b = 0")
    short, long = scores()
    assert short == pytest.approx(long)
    fruit.execute("set memory_plugin.bm25_b = 1")
    short, long = scores()
    assert short > 1.5 * long


def test_a_setting_of_the_database_that_makes_no_sense_is_told_through_the_door(
    fruit: psycopg.Connection[Any], database: str, start_sidecar: Callable[..., Sidecar]
) -> None:
    ((name,),) = fruit.execute("select quote_ident(current_database())").fetchall()
    fruit.execute(f"alter database {name} set memory_plugin.bm25_b = 'much'".encode())
    client = start_sidecar(database).client
    answer = client.post("/v1/search", json={"namespaces": ["team:tuned"], "query": "apples pears"})
    assert answer.status_code == 503
    assert answer.json() == {
        "code": "unavailable",
        "message": "the setting memory_plugin.bm25_b must be a number between 0 and 1",
    }
