"""get_memory: one live memory by its namespace and id, for those who know both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.servers("any")
PAST = "2020-01-01"

Connection = psycopg.Connection[Any]


@pytest.fixture
def shared(module_database: str) -> Iterator[Connection]:
    with psycopg.connect(module_database, autocommit=True) as connection:
        yield connection


def commit(conn: Connection, namespace: str, content: str, **more: object) -> str:
    names = "".join(f", {name} => %s" for name in more)
    call = f"select memory_plugin.commit_memory(%s, %s{names})::text"
    row = conn.execute(call.encode(), [namespace, content, *more.values()]).fetchone()
    assert row is not None
    return str(row[0])


def had(conn: Connection, namespace: str, memory_id: object) -> list[tuple[Any, ...]]:
    call = "select content, kind, source, pin, namespace, id::text from memory_plugin.get_memory(%s, %s)"
    return conn.execute(call, [namespace, memory_id]).fetchall()


def test_of_several_memories_the_one_with_the_id_is_had(shared: Connection, new_namespace: Callable[[], str]) -> None:
    first, second, memory_id = new_namespace(), new_namespace(), uuid.uuid4()
    commit(shared, first, "mine", id=memory_id, kind="summary", source="user", pin=True)
    commit(shared, first, "mine too")
    commit(shared, second, "yours", id=memory_id)
    assert had(shared, first, memory_id) == [("mine", "summary", "user", True, first, str(memory_id))]
    assert had(shared, second, memory_id) == [("yours", "fact", "agent", False, second, str(memory_id))]


def test_what_is_elsewhere_or_expired_is_not_had(shared: Connection, new_namespace: Callable[[], str]) -> None:
    here, elsewhere, expired = new_namespace(), new_namespace(), new_namespace()
    stays = commit(shared, here, "stays", expires_at="2999-01-01")
    commit(shared, elsewhere, "another")
    assert had(shared, elsewhere, stays) == had(shared, here, uuid.uuid4()) == []
    assert had(shared, here, commit(shared, here, "gone", expires_at=PAST)) == []
    of_expired = commit(shared, expired, "gone with its namespace")
    shared.execute("select memory_plugin.upsert_namespace(%s, 'team', expires_at => %s)", [expired, PAST])
    assert had(shared, expired, of_expired) == []
    assert len(had(shared, here, stays)) == 1
