"""Nothing that a search does is done twice, not even in a new session, where the planner tries functions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from fixtures.server import Server
from semantic_store import LARGE, MIDDLING, Store, filled_store

CALLS = (
    "select funcname, sum(calls)::int from pg_stat_xact_user_functions where schemaname = 'memory_plugin' group by 1"
)
# These only look at what a session may see, or give a constant, in some microseconds.
CHEAP = {"_visible_namespaces", "_session_namespaces"}
SEARCH = "select * from memory_plugin.search({names}, {asked})"


@pytest.fixture(scope="module")
def filled(server: Server) -> Iterator[Store]:
    with filled_store(server, 256, {LARGE: 9000, MIDDLING: 1500}) as store:
        yield store


def calls(store: Store, statement: str, times: int) -> list[Counter[str]]:
    """Return what functions each of some calls, one after the other in a new session, called how often."""
    parts = psycopg.conninfo.conninfo_to_dict(store.connection.info.dsn)
    counted: list[Counter[str]] = []
    with psycopg.connect(**parts, password=store.connection.info.password or None, prepare_threshold=None) as conn:
        conn.execute("set track_functions = 'all'")
        before: Counter[str] = Counter()
        for _ in range(times):
            conn.execute(statement.encode()).fetchall()
            now = Counter(dict[str, Any](conn.execute(CALLS).fetchall()))
            counted.append(now - before)
            before = now
    return counted


@pytest.mark.parametrize("names", [[MIDDLING], [LARGE], [LARGE, MIDDLING]], ids=["one", "large", "several"])
@pytest.mark.parametrize(
    "asked",
    ["'memory 17'", "embedding => {e}", "'memory 17', embedding => {e}", "'m', explain => true", "max_results => 5"],
    ids=["words", "embedding", "both", "character", "listing"],
)
def test_the_first_search_of_a_session_does_what_a_later_one_does(filled: Store, names: list[str], asked: str) -> None:
    embedding = f"'{filled.embedding(LARGE, 4)}'::{filled.vector}.vector"
    seen = calls(filled, SEARCH.format(names=f"array{names}", asked=asked.format(e=embedding)), 7)
    assert seen[0]["search"] == seen[0]["_search"] == 1
    # What is worked out while planning, of constants, is called once in a session: on top of what is there later.
    for name in {name for name, count in seen[6].items() if name not in CHEAP}:
        assert seen[0][name] == seen[6][name], name


def test_recall_is_measured_once(filled: Store) -> None:
    first, *_ = calls(filled, f"select * from memory_plugin.search_recall(array['{MIDDLING}'], sample => 4)", 1)
    assert first["_semantic_measured"] <= 8
    assert first["_search"] == 4
