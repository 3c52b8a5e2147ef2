"""The copy of the embeddings: of any dimensions, made beside writers, gone on with after a kill."""

from __future__ import annotations

import time
from random import Random

import psycopg
import pytest

from fixtures.installing import MIGRATIONS, install, install_beside, installer, kill_install, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api
from semantic_store import DIMENSIONS, LARGE, MIDDLING, SMALL, Connection, Store, filled_store, recall


@pytest.mark.servers("any")
@pytest.mark.parametrize("dimensions", [1, 384, 3072, 3982, 4000])
def test_a_store_of_any_dimensions_searches(empty_database: str, dimensions: int) -> None:
    install(empty_database, dimensions=dimensions)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, dimensions)
        store.fill(SMALL, 30)
        if dimensions > 1:
            for number in (3, 4, 8):
                found, exact = store.both([SMALL], store.embedding(SMALL, number))
                assert found == exact
        else:
            assert len(store.both([SMALL], "[1]", 100)[0]) == 22
        assert store.copies() == (0, 0) or dimensions == 1
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
def test_without_room_for_a_tail_rows_are_compared_by_sketches_however_many(empty_database: str) -> None:
    install(empty_database, dimensions=4000)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, 4000)
        connection.execute("insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'org')", [LARGE])
        chance = Random(4000)
        numbers = [chance.random() - 0.5 for _ in range(8000)]
        # Each 4000 of those numbers, from the place of its own number on.
        connection.execute(
            "insert into memory_plugin.memory_records (namespace, content, kind, source, embedding) "
            "select %s, 'memory ' || i, 'fact', 'user', a.numbers[i:i + 3999] from (select %s::real[] as numbers) as a "
            "cross join (select 1 + mod(n, 3999) as i from generate_series(1, 20050) as n) as numbered",
            [LARGE, numbers],
        )
        asked = str(numbers[1999:5999])
        assert store.answer([LARGE], asked, 5) | {"took_ms": 0} == {
            "mode": "semantic",
            "exact": False,
            "candidates": 20050,
            "took_ms": 0,
        }
        search = "memory_plugin.search(array[%(n)s], embedding => %(e)s::{vector}.vector, max_results => 5)"
        assert store.run(f"select content from {search}", n=LARGE, e=asked) == ["memory 2000"] * 5


@pytest.mark.servers("any")
def test_a_wide_store_searches_a_large_namespace_through_the_graph(server: Server) -> None:
    with filled_store(server, 3072, {LARGE: 4200}) as store:
        embedding = store.embedding(LARGE, 3)
        assert store.answer([LARGE], embedding)["exact"] is False
        assert recall(*store.both([LARGE], embedding)) >= 0.9
        assert recall(*store.both([LARGE], embedding, kinds=["checkpoint"])) == 1


@pytest.mark.servers("any")
def test_a_wide_store_where_nothing_expires_reads_the_rows_of_the_kinds_asked_for_only(server: Server) -> None:
    fetched = "select pg_stat_get_xact_tuples_fetched('memory_plugin.memory_vectors'::regclass)"
    with filled_store(server, 1104, {LARGE: 1500}) as store:
        store.run("update memory_plugin.memory_records set expires_at = null where expires_at is not null")
        store.run("vacuum analyze memory_plugin.memory_vectors")
        with store.connection.transaction():
            found, exact = store.both([LARGE], store.embedding(LARGE, 10), kinds=["checkpoint"])
            assert found == exact
            assert store.run(fetched)[0] < 300


@pytest.mark.servers("any")
@pytest.mark.parametrize("ends", ["during the copy", "during the index"])
def test_an_install_that_is_killed_in_the_middle_goes_on_where_it_was(empty_database: str, ends: str) -> None:
    install(empty_database, dimensions=DIMENSIONS)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, DIMENSIONS)
        with store.bulk():
            store.fill(LARGE, 6000)
        undo(connection)
        wanted = {
            "during the copy": "select coalesce(pg_relation_size(to_regclass('memory_plugin.memory_vectors')), 0)",
            "during the index": "select count(*)::int from pg_stat_progress_create_index p "
            "join pg_class c on c.oid = p.index_relid where c.relname = 'memory_vectors_embedding'",
        }[ends]
        kill_install(empty_database, connection, wanted)
        assert rows(empty_database, "select from memory_plugin.schema_migrations where name = '006_vectors'") == []
        # Between the two runs the store is written to, as it was before.
        store.fill(MIDDLING, 40)
        store.run("delete from memory_plugin.memory_records where namespace = %(n)s and kind = 'summary'", n=LARGE)
        install(empty_database)
        assert store.copies() == (0, 0)
        found, exact = store.both([LARGE], store.embedding(LARGE, 4))
        assert recall(found, exact) >= 0.9
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
def test_the_copy_is_made_beside_writers_who_never_wait_a_second(empty_database: str) -> None:
    install(empty_database, dimensions=DIMENSIONS)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, DIMENSIONS)
        with store.bulk():
            store.fill(LARGE, 4000)
        undo(connection)
        # Holds a row, and so the table against the trigger.
        held = "update memory_plugin.memory_records set pin = true where content = 'memory 3100'"
        change = (
            "update memory_plugin.memory_records set kind = 'fact' where id = md5(%(n)s || %(i)s)::uuid "
            "and namespace = %(n)s"
        )

        def write(number: int) -> None:
            store.run(change, n=LARGE, i=str(number % 4000 + 1) if number % 4000 != 3099 else "1")

        install_beside(empty_database, held, write)
        assert store.copies() == (0, 0)


@pytest.mark.servers("any")
@pytest.mark.parametrize(("dimensions", "neighbours"), [(DIMENSIONS, 100), (1100, 100), (1101, 80)])
def test_commits_look_less_far_in_a_wide_store_and_an_upgrade_keeps_none_of_them_waiting(
    empty_database: str, dimensions: int, neighbours: int
) -> None:
    options = "select reloptions::text from pg_class where oid = 'memory_plugin.memory_vectors_embedding'::regclass"
    wanted = [(f"{{m=16,ef_construction={neighbours}}}",)]
    install(empty_database, dimensions=dimensions)
    assert rows(empty_database, options) == wanted
    rows(empty_database, (MIGRATIONS / "013_graph_commits.down.sql").read_text())
    assert rows(empty_database, options) == [("{m=16,ef_construction=100}",)]
    with (
        psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection,
        psycopg.connect(empty_database) as holder,
    ):
        store = Store(connection, dimensions)
        store.fill(SMALL, 30)
        embedding = store.embedding(SMALL, 3)
        # A transaction that read by it, and so holds it for a while.
        holder.execute("select count(*) from memory_plugin.memory_vectors")
        commit = "select memory_plugin.commit_memory(%s, 'something', embedding => %s::text::{}.vector)"
        commit = commit.format(store.vector)
        program = installer(empty_database)
        waits = []
        while program.poll() is None:
            began = time.monotonic()
            connection.execute(commit.encode(), [SMALL, embedding])
            waits.append(time.monotonic() - began)
            # Twice a try at the lock was met: a server that needs the index to itself has it now.
            if sum(wait > 0.2 for wait in waits) == 2:
                holder.commit()
        said = program.communicate()[0]
    assert program.returncode == 0, said
    assert max(waits) < 1, max(waits)
    assert rows(empty_database, options) == wanted


def undo(connection: Connection) -> None:
    """Bring a store back to before the copy."""
    connection.execute("drop table memory_plugin.memory_vectors cascade")
    connection.execute("drop function memory_plugin._mirror_vector() cascade")
    connection.execute("drop function memory_plugin._steered cascade")
    later = "'006_vectors', '010_live_vectors', '012_near_vectors', '013_graph_commits'"
    connection.execute(f"delete from memory_plugin.schema_migrations where name in ({later})".encode())
