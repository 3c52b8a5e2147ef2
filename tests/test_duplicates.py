"""find_duplicates: groups of memories that say the same, told and left as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fixtures.installing import connected, install
from test_contract_search import towards

Connection = psycopg.Connection[Any]
FIND = "select group_no, content, round(similarity::numeric, 3)::text from memory_plugin.find_duplicates(%s, %s)"


def commit(conn: Connection, namespace: str, content: str, embedding: list[float] | None = None, **more: Any) -> None:
    conn.execute(
        "select memory_plugin.commit_memory(%s, %s, embedding => %s, expires_at => %s)",
        [namespace, content, None if embedding is None else str(embedding), more.get("expires_at")],
    )


def test_equal_texts_and_near_embeddings_are_grouped(conn: Connection, namespace: str) -> None:
    commit(conn, namespace, "I like tea", towards(0))
    commit(conn, namespace, "alone", towards(1.5))
    commit(conn, namespace, "Me likes tea", towards(0.2))
    commit(conn, namespace, "Tea is what I like", towards(0.4))
    commit(conn, namespace, "Bring milk")
    commit(conn, namespace, "  bring \n MILK", towards(3))
    commit(conn, namespace, "I LIKE  tea")
    commit(conn, namespace, "gone", towards(0), expires_at="2020-01-01")
    commit(conn, "team:other", "I like tea", towards(0))
    count = "select count(*), max(xmin::text) from memory_plugin.memory_records"
    before = conn.execute(count).fetchone()
    near = f"{math.cos(0.2):.3f}"
    assert conn.execute(FIND, [namespace, 0.95]).fetchall() == [
        (1, "I like tea", "1.000"),
        (1, "Me likes tea", near),
        (1, "Tea is what I like", near),
        (1, "I LIKE  tea", "1.000"),
        (2, "Bring milk", "1.000"),
        (2, "  bring \n MILK", "1.000"),
    ]
    assert conn.execute(count).fetchone() == before


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (2, 0, 1)])
def test_every_embedding_of_a_text_leads_to_others(conn: Connection, namespace: str, order: tuple[int, ...]) -> None:
    memories = [("Same text", towards(0)), ("same text", towards(1.5)), ("other words", towards(1.5))]
    for place in order:
        commit(conn, namespace, *memories[place])
    groups = conn.execute(FIND, [namespace, 0.95]).fetchall()
    assert {content for _, content, _ in groups} == {content for content, _ in memories}
    assert {group for group, _, _ in groups} == {1}


def test_the_threshold_is_met_to_the_last_place(conn: Connection, namespace: str) -> None:
    commit(conn, namespace, "one", towards(0))
    commit(conn, namespace, "other", towards(0.3))
    just = math.cos(0.3)
    assert len(conn.execute(FIND, [namespace, just - 1e-5]).fetchall()) == 2
    assert conn.execute(FIND, [namespace, just + 1e-5]).fetchall() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("team:a", 0.49), "threshold must be between 0.5 and 1"),
        (("team:a", 1.01), "threshold must be between 0.5 and 1"),
        (("team:a", "NaN"), "threshold must be between 0.5 and 1"),
        (("team:a", None), "threshold must be between 0.5 and 1"),
        (("nothing", 0.9), r"namespace must match \^\[a-z\]"),
        ((None, 0.9), "namespace is required"),
    ],
)
def test_bad_arguments_are_refused_by_name(conn: Connection, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        conn.execute(FIND, arguments)
    assert caught.value.sqlstate == "MP001"


def test_absent_and_expired_namespaces_have_none(conn: Connection, namespace: str) -> None:
    assert conn.execute(FIND, [namespace, 0.95]).fetchall() == []
    commit(conn, namespace, "same")
    commit(conn, namespace, "same")
    assert len(conn.execute(FIND, [namespace, 0.95]).fetchall()) == 2
    conn.execute("update memory_plugin.memory_namespaces set expires_at = '2020-01-01' where name = %s", [namespace])
    assert conn.execute(FIND, [namespace, 0.95]).fetchall() == []


def test_a_reader_sees_those_of_its_namespaces_only(
    conn: Connection, new_role: Callable[..., str], namespace: str
) -> None:
    for name in (namespace, "team:hidden"):
        commit(conn, name, "same")
        commit(conn, name, "same")
    login = new_role()
    conn.execute(sql.SQL("grant memory_plugin_reader to {}").format(sql.Identifier(login)))
    conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))
    assert conn.execute(FIND, [namespace, 0.95]).fetchall() == []
    conn.execute("select set_config('memory_plugin.namespaces', %s, false)", [namespace])
    assert len(conn.execute(FIND, [namespace, 0.95]).fetchall()) == 2
    assert conn.execute(FIND, ["team:hidden", 0.95]).fetchall() == []


def test_a_large_namespace_goes_through_the_index_and_finds_the_same(empty_database: str, namespace: str) -> None:
    install(empty_database, dimensions=24)
    with connected(empty_database) as conn:
        place = conn.execute("select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")
        vector = place.fetchone()[0]  # type: ignore[index]
        conn.execute("insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'custom')", [namespace])
        # 2,150 directions, of which the first hundred come twice, a little turned.
        conn.execute(
            f"""
            insert into memory_plugin.memory_records (namespace, id, content, kind, source, created_at, embedding)
            select %s, md5('d' || m.i || m.turn)::uuid, 'memory ' || m.i || ' ' || m.turn, 'fact', 'agent',
                '2024-01-01'::timestamptz + (m.i + 5000 * m.turn) * interval '1 minute',
                (
                    select array_agg((sin(m.i * d * 1.7 + m.i) + 0.1 * m.turn * cos(d))::real order by d)
                    from generate_series(1, 24) as d
                )::{vector}.vector
            from (
                select i, turn from generate_series(1, 2150) as i, generate_series(0, 1) as turn
                where turn = 0 or i <= 100
            ) as m
            """.encode(),
            [namespace],
        )
        exact = f"""
            select a.id, b.id from memory_plugin.memory_records as a inner join memory_plugin.memory_records as b
            on a.namespace = b.namespace and a.id < b.id
            where a.namespace = %s and 1 - (a.embedding operator({vector}.<=>) b.embedding) >= 0.99
        """
        pairs = conn.execute(exact.encode(), [namespace]).fetchall()
        find = "select id, group_no from memory_plugin.find_duplicates(%s, 0.99)"
        group = dict(conn.execute(find, [namespace]).fetchall())
        # Copies of one of a pair, more than a look for the nearest of the other meets.
        conn.execute(
            """
            insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding)
            select r.namespace, gen_random_uuid(), r.content, 'fact', 'agent', r.embedding
            from memory_plugin.memory_records as r, generate_series(1, 100) where r.id = any (%s)
            """,
            [[one for one, _ in pairs[:5]]],
        )
        copied = dict(conn.execute(find, [namespace]).fetchall())
    assert len(pairs) >= 80
    together = [one in group and group[one] == group.get(other) for one, other in pairs]
    assert sum(together) >= 0.98 * len(pairs)
    assert [copied[one] for one, _ in pairs[:5]] == [copied.get(other) for _, other in pairs[:5]]
    assert set(group) <= {id_ for pair in pairs for id_ in pair}
