"""A memory, or a namespace, whose expiry is this very moment: gone already, as one whose expiry has passed.

Within a transaction the time stands still, so that the moment can be met.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.servers("any")
Connection = psycopg.Connection[Any]

VECTOR = str([1.0] + [0.0] * 1535)
ID = "11111111-2222-3333-4444-555555555555"
WAYS = {
    "a listing": "select from memory_plugin.search(array[%(name)s])",
    "a listing with a filter": "select from memory_plugin.search(array[%(name)s], kinds => '{fact}')",
    "a listing over the wire": "select from json_array_elements("
    """memory_plugin.v1_search(('{"namespaces":["' || %(name)s || '"]}')::json) -> 'memories')""",
    "a character": "select from memory_plugin.search(array[%(name)s], query => 'p')",
    "words": "select from memory_plugin.search(array[%(name)s], query => 'apple pie')",
    "letters": "select from memory_plugin.search(array[%(name)s], query => '東京')",
    "an embedding": "select from memory_plugin.search(array[%(name)s], embedding => %(vector)s)",
    "both": "select from memory_plugin.search(array[%(name)s], query => 'apple', embedding => %(vector)s)",
    "its id": "select from memory_plugin.get_memory(%(name)s, %(id)s)",
}
FORGET = "select memory_plugin.forget_memory(%(id)s, %(name)s)"


@pytest.fixture
def still(module_database: str, namespace: str) -> Iterator[tuple[Connection, dict[str, str]]]:
    """Return a connection whose transaction is undone, in it a live memory, and what its statements take."""
    given = {"name": namespace, "vector": VECTOR, "id": ID}
    with psycopg.connect(module_database, autocommit=True) as conn, conn.transaction(force_rollback=True):
        commit(conn, given)
        for way, call in WAYS.items():
            assert conn.execute(call.encode(), given).rowcount == 1, way
        yield conn, given


def commit(conn: Connection, given: dict[str, str], expires_at: str = "null") -> None:
    call = (
        "select memory_plugin.commit_memory(%(name)s, 'apple pie in 東京', id => %(id)s, embedding => %(vector)s,"
        f" expires_at => {expires_at})"
    )
    conn.execute(call.encode(), given)


def refusal(conn: Connection, call: str, given: dict[str, str]) -> str | None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(call.encode(), given)
    return caught.value.sqlstate


@pytest.mark.parametrize("moment", ["now()", "now() - interval '1 microsecond'"])
def test_a_memory_is_gone_at_the_moment_of_its_expiry(still: tuple[Connection, dict[str, str]], moment: str) -> None:
    conn, given = still
    commit(conn, given, moment)
    for way, call in WAYS.items():
        assert conn.execute(call.encode(), given).rowcount == 0, way
    assert refusal(conn, FORGET, given) == "MP005"
    conn.execute("select memory_plugin.sweep()")
    left = conn.execute("select from memory_plugin.memory_records where namespace = %(name)s", given)
    assert left.rowcount == 0


@pytest.mark.parametrize("moment", ["now()", "now() - interval '1 microsecond'"])
def test_a_namespace_is_gone_at_the_moment_of_its_expiry(still: tuple[Connection, dict[str, str]], moment: str) -> None:
    conn, given = still
    conn.execute(f"select memory_plugin.upsert_namespace(%(name)s, 'team', expires_at => {moment})".encode(), given)
    for way, call in WAYS.items():
        assert conn.execute(call.encode(), given).rowcount == 0, way
    assert refusal(conn, FORGET, given) == "MP005"
    assert refusal(conn, "select memory_plugin.patch_namespace(%(name)s, metadata => '{}')", given) == "MP004"
    assert refusal(conn, "select memory_plugin.delete_namespace(%(name)s)", given) == "MP004"
    # A commit starts it anew, without what it held.
    conn.execute("select memory_plugin.commit_memory(%(name)s, 'new')", given)
    assert conn.execute("select content from memory_plugin.search(array[%(name)s])", given).fetchall() == [("new",)]


def test_a_memory_is_there_until_the_moment_of_its_expiry(still: tuple[Connection, dict[str, str]]) -> None:
    conn, given = still
    commit(conn, given, "now() + interval '1 microsecond'")
    for way, call in WAYS.items():
        assert conn.execute(call.encode(), given).rowcount == 1, way
    conn.execute(FORGET, given)
