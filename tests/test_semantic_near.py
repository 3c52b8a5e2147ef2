"""Comparing every row: from an index that holds the vectors, and where a walk through the graph met too little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from fixtures.installing import install
from fixtures.server import Server
from semantic_store import SMALL, Store, recall

DIMENSIONS = 96
# Three hundred topics of twenty-two rows. A topic of any other number is like none of them.
TOPICS = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding)
select %(n)s, md5(i::text)::uuid, 'memory ' || i, 'fact', 'agent', (
    select array_agg((sin(d * (i %% 300 + 1) * 0.37 + i %% 300) + 1.2 * (random() - 0.5))::real order by d)
    from generate_series(1, {dimensions}) as d
)::{vector}.vector
from generate_series(1, 6600) as i
"""
ABOUT = """
select array_agg((sin(d * (%(topic)s + 1) * 0.37 + %(topic)s) + 1.2 * (random() - 0.5))::real order by d)
    ::{vector}.vector::text
from generate_series(1, {dimensions}) as d
"""
MANY = "team:many-topics"


@pytest.fixture(scope="module")
def store(server: Server) -> Iterator[Store]:
    """Return a store of one large namespace with many small topics, that tests only read."""
    from fixtures.databases import fresh_database

    with fresh_database(server) as url:
        install(url, dimensions=DIMENSIONS)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            store = Store(connection, DIMENSIONS)
            store.run("insert into memory_plugin.memory_namespaces (name, kind) values (%(n)s, 'team')", n=MANY)
            store.run("select setseed(0.25)")
            with store.bulk():
                store.run(TOPICS, n=MANY)
            yield store


def asked(store: Store, topics: range, limit: int = 10) -> tuple[list[float], list[bool]]:
    """Ask about topics; return of each question what was found of the exact answer, and whether it says it is exact."""
    shares, exact = [], []
    for topic in topics:
        embedding = str(store.run(ABOUT, topic=topic)[0])
        shares.append(recall(*store.both([MANY], embedding, limit)))
        exact.append(bool(store.answer([MANY], embedding, limit)["exact"]))
    return shares, exact


def test_a_question_like_the_rows_is_answered_by_the_graph(store: Store) -> None:
    shares, exact = asked(store, range(0, 300, 12), 5)
    assert sum(exact) <= len(exact) / 5, exact
    assert sum(shares) / len(shares) >= 0.97, shares


@pytest.mark.parametrize("limit", [1, 10, 40])
def test_a_question_about_something_else_is_answered_by_comparing(store: Store, limit: int) -> None:
    """A walk finds some of its nearest rows, which are anywhere, and nothing in the answer would tell."""
    shares, exact = asked(store, range(400, 425), limit)
    assert sum(exact) >= len(exact) * 0.9, exact
    assert sum(shares) / len(shares) >= 0.97, shares


def scans(connection: psycopg.Connection[Any]) -> int:
    """Return how often this session looked into the index that holds the vectors, since its last transaction."""
    found = connection.execute(
        "select pg_stat_get_xact_numscans('memory_plugin.memory_vectors_near'::regclass)"
    ).fetchall()
    return int(found[0][0])


@pytest.mark.servers("any")
@pytest.mark.parametrize(("dimensions", "fits"), [(96, True), (1100, True), (1101, False), (3072, False)])
def test_small_namespaces_are_compared_from_an_index_where_it_has_room(
    empty_database: str, dimensions: int, fits: bool
) -> None:
    install(empty_database, dimensions=dimensions)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, dimensions)
        # One after the other, as memories come: rows of one namespace that lay together would be read as they lie.
        with store.bulk():
            for part in range(5):
                for name in (SMALL, *(f"team:other-{number}" for number in range(100))):
                    store.fill(name, 4 * part + 4, 4 * part + 1)
        connection.execute("vacuum (analyze) memory_plugin.memory_vectors")
        held = connection.execute("select pg_relation_size('memory_plugin.memory_vectors_near')").fetchall()[0][0]
        assert (held > 2 * 2000 * dimensions) is fits
        assert (held <= 8192) is not fits
    with psycopg.connect(empty_database, prepare_threshold=None) as fresh:
        store = Store(fresh, dimensions)
        embedding = store.embedding(SMALL, 3)
        before = scans(fresh)
        found, exact = store.both([SMALL], embedding)
        assert found == exact
        assert (scans(fresh) > before) is fits


@pytest.mark.servers("any")
def test_the_longest_name_has_room_beside_the_longest_vector(empty_database: str) -> None:
    install(empty_database, dimensions=1100)
    name = "team:" + "n" * 251
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, 1100)
        for number in range(20):
            store.run(
                "select memory_plugin.commit_memory(%(n)s, 'x', kind => 'checkpoint', source => 'runtime', "
                "expires_at => now() + interval '1 day', embedding => ("
                "select array_agg((random() - 0.5 + 0 * %(i)s)::real)::{vector}.vector from generate_series(1, 1100)))",
                n=name,
                i=number,
            )
        answer = connection.execute(
            "select count(*) from memory_plugin.search(array[%s], embedding => "
            "(select embedding from memory_plugin.memory_records limit 1), max_results => 20)",
            [name],
        ).fetchall()
        assert answer == [(20,)]
