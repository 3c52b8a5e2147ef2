"""Search by embedding: the same rows as comparing every one, at every size, whatever was written before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from fixtures.server import Server
from semantic_store import DIMENSIONS, FILL, LARGE, MIDDLING, SIZES, SMALL, Store, filled_store, recall


@pytest.fixture(scope="module")
def filled(server: Server, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Return a store of three namespaces, a small, a middling and a large one, that tests only read."""
    with filled_store(server, DIMENSIONS, SIZES) as store:
        yield store


@pytest.fixture
def store(filled: Store) -> Iterator[Store]:
    """Return the filled store in a transaction that is undone."""
    with filled.connection.transaction(force_rollback=True):
        yield filled


@pytest.fixture
def vacuumed(filled: Store) -> Iterator[None]:
    """Clear the graph, when the test is undone, of the thousands of rows that it wrote in vain."""
    yield
    filled.connection.execute("vacuum memory_plugin.memory_vectors")


QUERIES = [(name, number) for name in SIZES for number in (3, 10, 24, 40)]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("limit", [1, 10, 100])
def test_a_search_finds_what_comparing_every_row_finds(store: Store, name: str, limit: int) -> None:
    shares = [recall(*store.both([name], store.embedding(*query), limit)) for query in QUERIES]
    # Of the large one's last places, the graph may miss a few; of the others nothing.
    assert min(shares) >= (0.8 if name == LARGE else 1), shares
    assert sum(shares) / len(shares) >= (0.97 if name == LARGE else 1), shares


def test_the_answer_says_whether_it_is_exact(store: Store) -> None:
    embedding = store.embedding(LARGE, 3)
    assert store.answer([SMALL], embedding)["exact"] is True
    assert store.answer([MIDDLING, SMALL], embedding)["exact"] is True
    said = store.answer([LARGE], embedding)
    assert said["exact"] is False
    assert said["candidates"] < SIZES[LARGE] / 2


def test_a_walk_reaches_as_far_as_the_setting_says(store: Store) -> None:
    embedding = store.embedding(LARGE, 3)
    usual = store.answer([LARGE], embedding)["candidates"]
    store.run("set local memory_plugin.semantic_reach = 500")
    assert store.answer([LARGE], embedding)["candidates"] == usual + 400
    shares = [recall(*store.both([LARGE], store.embedding(LARGE, number))) for number in (3, 10, 24, 40, 52, 60)]
    assert sum(shares) / len(shares) >= 0.99, shares


@pytest.mark.parametrize(
    "filters",
    [
        {"kinds": ["checkpoint"]},
        {"kinds": ["checkpoint", "summary"]},
        {"sources": ["user"]},
        {"after": "2024-01-04"},
        {"before": "2024-01-02"},
        {"kinds": ["summary"], "sources": ["user"], "after": "2024-01-02", "before": "2024-01-04"},
    ],
)
@pytest.mark.parametrize("name", SIZES)
def test_every_filter_is_inside_the_search(store: Store, name: str, filters: dict[str, Any]) -> None:
    shares = [recall(*store.both([name], store.embedding(*query), 10, **filters)) for query in QUERIES]
    assert sum(shares) / len(shares) >= (0.97 if name == LARGE else 1), shares


def test_a_large_namespace_of_few_live_rows_gives_them_all(vacuumed: None, store: Store) -> None:
    embedding = store.embedding(LARGE, 1)
    for keep in (["4", "403", "806", "1204", "2404", "3202", "6804"], ["2404"], []):
        store.run(
            "update memory_plugin.memory_records set expires_at = '2021-01-01' "
            "where namespace = %(n)s and expires_at is null "
            "and not id = any (array(select md5(%(n)s || k)::uuid from unnest(%(keep)s::text[]) as k))",
            n=LARGE,
            keep=keep,
        )
        found, exact = store.both([LARGE], embedding)
        assert len(exact) == len(keep)
        assert found == exact


def test_a_filter_that_leaves_one_row_of_a_large_namespace_finds_it(store: Store) -> None:
    store.run(
        "update memory_plugin.memory_records set source = 'runtime' where namespace = %(n)s "
        "and id = md5(%(n)s || '4')::uuid",
        n=LARGE,
    )
    for number in (1, 2, 3, 5):
        found, exact = store.both([LARGE], store.embedding(LARGE, number), sources=["runtime"])
        assert found == exact
        assert len(found) == 1


def test_a_large_namespace_is_compared_once_and_the_answer_says_so(store: Store) -> None:
    store.run(
        "update memory_plugin.memory_records set source = 'runtime' where namespace = %(n)s "
        "and id = any (array(select md5(%(n)s || i)::uuid from generate_series(2, 4) as i))",
        n=LARGE,
    )
    store.run("set local track_functions = 'pl'")
    said = store.answer([LARGE], store.embedding(LARGE, 3), source="runtime")
    calls = "select calls from pg_stat_xact_user_functions where funcname = '_semantic_compare'"
    assert store.run(calls) == [1]
    assert said["exact"] is True
    assert SIZES[LARGE] * 3 // 4 <= said["candidates"] < SIZES[LARGE]


@pytest.mark.parametrize("apart", [0.03, 0.003])
def test_near_copies_are_told_apart(store: Store, apart: float) -> None:
    name = "team:copies"
    store.run("insert into memory_plugin.memory_namespaces (name, kind) values (%(n)s, 'team')", n=name)
    store.run("select setseed(0.5)")
    store.run(
        "insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding) "
        "select %(n)s, md5(i::text)::uuid, 'copy', 'fact', 'agent', (select array_agg("
        "sin(d * 7.3)::real + (%(a)s * (random() - 0.5))::real order by d) "
        "from generate_series(0, {dimensions} - 1) as d where i > 0)::{vector}.vector "
        "from generate_series(1, 400) as i",
        n=name,
        a=apart,
    )
    asked = "select embedding::text from memory_plugin.memory_records where namespace = %(n)s limit 3"
    for embedding in store.run(asked, n=name):
        found, exact = store.both([name], embedding)
        assert found == exact
        assert store.answer([name], embedding)["exact"] is True


def test_names_that_hold_nothing_make_no_other_large(store: Store) -> None:
    names = [f"team:n{number}" for number in range(3000)]
    store.run(
        "insert into memory_plugin.memory_namespaces (name, kind) select n, 'team' from unnest(%(n)s::text[]) n",
        n=names,
    )
    assert store.answer([*names, MIDDLING], store.embedding(MIDDLING, 3))["exact"] is True


@pytest.mark.parametrize("limit", [1, 2])
def test_memories_alike_but_for_the_namespace_come_in_the_order_of_its_name(store: Store, limit: int) -> None:
    twin, embedding = "11111111-2222-3333-4444-555555555555", store.embedding(LARGE, 3)
    names = ["workspace:b", "workspace:a", "workspace:c"]
    for name in names:
        store.run(
            "select memory_plugin.commit_memory(%(n)s, 'twin', id => %(i)s, embedding => %(e)s::text::{vector}.vector)",
            n=name,
            i=twin,
            e=embedding,
        )
    for asked in (names, sorted(names)):
        found = store.both(asked, embedding, limit)[0]
        assert found == [f"{name} {twin}" for name in sorted(names)][:limit]


def test_deleted_rows_make_room(store: Store) -> None:
    embedding = store.embedding(LARGE, 6)
    for _ in range(3):
        found, exact = store.both([LARGE], embedding, 50)
        assert recall(found, exact) >= 0.9
        store.run("delete from memory_plugin.memory_records where namespace || ' ' || id = any (%(ids)s)", ids=found)
        assert not set(found) & set(store.both([LARGE], embedding, 50)[0])
    assert store.copies() == (0, 0)


@pytest.mark.parametrize("name", SIZES)
def test_a_new_embedding_is_found_where_it_is_and_not_where_it_was(store: Store, name: str) -> None:
    first, other = store.embedding(name, 3), store.embedding(name, 8)
    row = store.both([name], first, 1)[0][0]
    store.run(
        "update memory_plugin.memory_records set embedding = %(e)s::text::{vector}.vector "
        "where namespace || ' ' || id = %(r)s",
        e=other,
        r=row,
    )
    assert store.both([name], first, 1)[0] != [row]
    assert row in store.both([name], other, 2)[0]
    store.run("update memory_plugin.memory_records set embedding = null where namespace || ' ' || id = %(r)s", r=row)
    assert row not in store.both([name], other, 2)[0]
    assert store.copies() == (0, 0)


@pytest.mark.parametrize("name", SIZES)
def test_a_memory_of_another_kind_moves_to_that_kind(store: Store, name: str) -> None:
    embedding = store.embedding(name, 10)
    row = store.both([name], embedding, 1)[0][0]
    store.run("update memory_plugin.memory_records set kind = 'summary' where namespace || ' ' || id = %(r)s", r=row)
    assert store.both([name], embedding, 1, kinds=["summary"])[0] == [row]
    assert row not in store.both([name], embedding, 20, kinds=["checkpoint"])[0]
    assert store.copies() == (0, 0)


def test_a_question_about_something_else_finds_the_nearest_all_the_same(store: Store) -> None:
    shares = []
    for number in range(12):
        away = "[" + ",".join(f"{math.sin(d * d * 0.37 + number * 11.3):.5f}" for d in range(DIMENSIONS)) + "]"
        found, exact = store.both([LARGE], away)
        shares.append(recall(found, exact))
        assert store.answer([LARGE], away)["exact"] is True
    assert shares == [1] * 12


def test_one_id_in_two_namespaces_is_two_memories(store: Store) -> None:
    twin = "11111111-2222-3333-4444-555555555555"
    here, there = store.embedding(LARGE, 3), store.embedding(LARGE, 8)
    for namespace, embedding in ((LARGE, here), (SMALL, there)):
        store.run(
            "select memory_plugin.commit_memory(%(n)s, 'twin', id => %(i)s, embedding => %(e)s::text::{vector}.vector)",
            n=namespace,
            i=twin,
            e=embedding,
        )
    assert store.both([SMALL], there, 1)[0] == [f"{SMALL} {twin}"]
    assert f"{LARGE} {twin}" not in store.both([LARGE], there, 20)[0]
    assert f"{LARGE} {twin}" in store.both([LARGE, SMALL], here, 2)[0]
    store.run("select memory_plugin.forget_memory(%(i)s, %(n)s)", i=twin, n=SMALL)
    assert f"{LARGE} {twin}" in store.both([LARGE, SMALL], here, 2)[0]
    assert store.copies() == (0, 0)


@pytest.mark.parametrize("names", [[SMALL, MIDDLING], [SMALL, LARGE], [SMALL, MIDDLING, LARGE], [LARGE, "team:absent"]])
def test_several_namespaces_are_one_search(store: Store, names: list[str]) -> None:
    shares = [recall(*store.both(names, store.embedding(*query))) for query in QUERIES]
    assert sum(shares) / len(shares) >= 0.97, shares


def test_thousands_of_names_are_bounded(store: Store) -> None:
    names = [f"team:n{number}" for number in range(3000)]
    store.run(
        "insert into memory_plugin.memory_namespaces (name, kind) select n, 'team' from unnest(%(n)s::text[]) n",
        n=names,
    )
    store.run(
        "insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding) "
        "select n, gen_random_uuid(), 'x', 'fact', 'agent', r.embedding from unnest(%(n)s::text[]) n, "
        "lateral (select embedding from memory_plugin.memory_records where namespace = %(s)s and "
        "id = md5(%(s)s || '2')::uuid) r",
        n=names[:300],
        s=SMALL,
    )
    began = time.monotonic()
    found, exact = store.both([*names, SMALL, LARGE], store.embedding(SMALL, 3))
    assert time.monotonic() - began < 2
    assert recall(found, exact) >= 0.9


def test_a_search_changes_no_setting_and_writes_nothing(filled: Store) -> None:
    embedding = filled.embedding(LARGE, 3)
    names = (
        "hnsw.ef_search", "hnsw.iterative_scan", "enable_sort", "enable_seqscan", "enable_bitmapscan",
        "plan_cache_mode", "jit",
    )  # fmt: skip

    def settings() -> list[Any]:
        return filled.run("select current_setting(n, true) from unnest(%(n)s::text[]) n", n=list(names))

    with filled.connection.transaction():
        filled.connection.execute("set transaction read only")
        filled.connection.execute("set local hnsw.ef_search = 77")
        before = settings()
        filled.both([LARGE], embedding)
        filled.both([SMALL], embedding)
        assert settings() == before
    before = settings()
    filled.both([LARGE, SMALL], embedding)
    assert settings() == before


def test_the_same_search_gives_the_same_answer_on_every_connection(server: Server, filled: Store) -> None:
    embedding = filled.embedding(LARGE, 5)
    first = filled.both([LARGE, MIDDLING], embedding, 30)[0]
    for _ in range(8):
        assert filled.both([LARGE, MIDDLING], embedding, 30)[0] == first
    dsn = filled.connection.info.dsn
    with psycopg.connect(dsn, autocommit=True, password=filled.connection.info.password or None) as connection:
        assert Store(connection, DIMENSIONS).both([LARGE, MIDDLING], embedding, 30)[0] == first


def test_plans_stay_made_for_the_values(store: Store) -> None:
    """After many calls on one connection a small namespace is still not answered through the graph."""
    embedding = store.embedding(LARGE, 3)
    for _ in range(12):
        store.both([LARGE], embedding)
    for _ in range(12):
        assert store.answer([SMALL], embedding).get("exact") is True
        found, exact = store.both([SMALL], embedding)
        assert found == exact


def test_the_graph_is_what_answers_for_a_large_namespace(store: Store) -> None:
    text = store.run(
        "explain (costs off) select v.id from memory_plugin.memory_vectors as v "
        "order by v.embedding operator({vector}.<#>) "
        "(select embedding from memory_plugin.memory_vectors limit 1) limit 5"
    )
    assert any("memory_vectors_embedding" in line for line in text), text


def test_deleting_a_namespace_emptying_the_table_and_sweeping_take_the_copies_along(store: Store) -> None:
    assert store.copies() == (0, 0)
    store.run("select memory_plugin.delete_namespace(%(n)s)", n=MIDDLING)
    assert store.run("select count(*) from memory_plugin.memory_vectors where namespace = %(n)s", n=MIDDLING) == [0]
    swept = store.run("select memory_plugin.sweep(100000)")[0]
    assert swept > 1000
    assert store.run("select count(*) from memory_plugin.memory_vectors where expires_at <= now()") == [0]
    assert store.copies() == (0, 0)
    store.run("truncate memory_plugin.memory_records")
    assert store.run("select count(*) from memory_plugin.memory_vectors") == [0]


def test_whoever_may_write_memories_need_not_have_a_right_on_the_copy(
    filled: Store, new_role: Callable[..., str]
) -> None:
    role = sql.Identifier(new_role(options="bypassrls"))
    with filled.connection.transaction(force_rollback=True):
        filled.connection.execute(sql.SQL("grant usage on schema memory_plugin to {}").format(role))
        filled.connection.execute(
            sql.SQL("grant select, insert, update, delete on memory_plugin.memory_records to {}").format(role)
        )
        filled.connection.execute(sql.SQL("grant usage on schema {} to {}").format(sql.Identifier(filled.vector), role))
        filled.connection.execute(sql.SQL("set local role {}").format(role))
        filled.run(FILL, namespace=SMALL, first=20_001, last=20_002)
        filled.run("update memory_plugin.memory_records set kind = 'fact' where namespace = %(n)s", n=SMALL)
        filled.run("delete from memory_plugin.memory_records where id = md5(%(n)s || '20001')::uuid", n=SMALL)
        with pytest.raises(psycopg.errors.InsufficientPrivilege), filled.connection.transaction():
            filled.run("select count(*) from memory_plugin.memory_vectors")
        filled.connection.execute("reset role")
        assert filled.copies() == (0, 0)


def test_searches_with_conditions_are_whole_with_any_pgvector(filled: Store) -> None:
    """embedded16 has pgvector 0.7, where a walk ends with the first rows it met."""
    for filters in ({}, {"kinds": ["checkpoint"]}, {"sources": ["user"]}):
        shares = [recall(*filled.both([LARGE], filled.embedding(*query), 10, **filters)) for query in QUERIES]
        assert sum(shares) / len(shares) >= 0.97, shares


def test_two_more_walks_add_to_what_one_that_went_astray_met(store: Store) -> None:
    """Their rows come once, are of the namespace, and nearer than those met before; the settings are as they were."""
    embedding, near = store.embedding(LARGE, 3), "array[]::memory_plugin._candidate[]"
    again = """
        select n.id::text, n.score from unnest(memory_plugin._semantic_again(
            {near}, %(n)s, memory_plugin._steered(%(e)s::{{vector}}.vector, '', null, '{{{{0,0}}}}'),
            memory_plugin._steered(%(e)s::{{vector}}.vector, %(n)s, null, '{{{{10,4}}}}'), null, 14, 100
        )) as n where n.namespace = %(n)s order by n.score desc
    """
    store.run("set local hnsw.ef_search = 77")
    first = store.run(again.format(near=near), n=LARGE, e=embedding)
    exact = [row.split()[1] for row in store.both([LARGE], embedding)[1]]
    assert len(set(exact) & set(first)) >= 9
    # What was met is given, once more among it, and a row that is far off.
    far = store.run(
        "select id::text from memory_plugin.memory_records where namespace = %(n)s and id::text <> all (%(f)s) limit 1",
        n=LARGE,
        f=first,
    )
    given = f"array[row('{LARGE}', '{far[0]}', -1)::memory_plugin._candidate]"
    second = store.run(again.format(near=given), n=LARGE, e=embedding)
    assert second == [*first, *far]
    assert len(set(second)) == len(second)
    assert store.run("show hnsw.ef_search") == ["77"]
    # No row at all is none, and not unknown.
    none = again.replace("select n.id::text, n.score from unnest(", "select cardinality(").partition(") as n")[0] + ")"
    assert store.run(none.format(near=near), n="org:nothing", e=embedding) == [0]
