"""Sketches: what many rows are compared by. Kept as the memories are, made for stores from before, and right."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest

from fixtures.installing import (
    BEFORE_SKETCHES,
    install,
    install_beside,
    kill_install,
    rows,
    settings_for,
    undo,
)
from fixtures.server import Server
from memory_plugin.installer import api, sources
from semantic_store import Store, filled_store, recall

DIMENSIONS = 256
MANY, MORE, FEW = "org:many", "org:more", "team:few"
SIZES = {MANY: 9200, MORE: 4000, FEW: 80}
# What differs between the vectors and their sketches: nothing, it is hoped.
WRONG = """
select count(*)::int
from memory_plugin.memory_vectors as v
full join memory_plugin.memory_sketches as s on v.namespace = s.namespace and v.id = s.id
left join memory_plugin.memory_records as r on v.namespace = r.namespace and v.id = r.id
cross join lateral memory_plugin._sketch(r.embedding) as k (signs)
where v.id is null or s.id is null
    or (v.kind, v.source, v.expires_at, v.created_at) is distinct from (s.kind, s.source, s.expires_at, s.created_at)
    or s.signs is distinct from k.signs
"""
SKETCHES = "select count(*)::int from memory_plugin.memory_sketches"
READ = """
select array[
    pg_stat_get_xact_tuples_returned('memory_plugin.memory_sketches_live'::regclass),
    pg_stat_get_xact_tuples_returned('memory_plugin.memory_sketches'::regclass)
]::int[]
"""
FETCHED = "select pg_stat_get_xact_tuples_fetched('memory_plugin.memory_vectors_pkey'::regclass)::int"


@pytest.fixture(scope="module")
def many(server: Server) -> Iterator[Store]:
    """A store with a namespace that is compared by sketches, and one that is so only together with it."""
    with filled_store(server, DIMENSIONS, SIZES) as store:
        store.run("vacuum (analyze) memory_plugin.memory_sketches")
        store.run("vacuum (analyze) memory_plugin.memory_vectors")
        yield store


def stranger(number: int) -> str:
    """Return an embedding that is like no row."""
    return str([float(x) for x in np.random.default_rng(number).standard_normal(DIMENSIONS).round(4)])


def signs(bits: str) -> Any:
    return np.array([1 if bit == "1" else -1 for bit in bits])


def steps(numbers: Any, width: float, most: int) -> Any:
    """Return the step of each number: the odd number, up to `most`, whose middle is nearest by that width."""
    return np.clip(2 * np.floor(numbers / width) + 1, -most, most)


@pytest.mark.parametrize("dimensions", [200, 384, 1536])
def test_a_sketch_holds_each_number_in_one_of_eight_steps(many: Store, dimensions: int) -> None:
    embedding = np.random.default_rng(dimensions).standard_normal(dimensions).astype("f4")
    unit = embedding / np.linalg.norm(embedding)
    query = "select memory_plugin._sketch(%(e)s::{vector}.vector)::text"
    sketch = signs(many.run(query, e=str([float(x) for x in embedding]))[0])
    held = np.array([4, 2, 1]) @ sketch.reshape(3, dimensions)
    assert (held == steps(unit, 0.586 / np.sqrt(dimensions), 7)).mean() > 0.998
    # Almost all of what the numbers are is in the steps.
    assert np.corrcoef(held, unit)[0, 1] > 0.975


def test_four_comparisons_weigh_each_sign_of_a_row_by_the_number_of_the_question(many: Store) -> None:
    asked = "memory_plugin._asked_signs(%(e)s::{vector}.vector) q"
    order = "from memory_plugin.memory_sketches s order by s.namespace, s.id limit 9"
    held = [signs(bits).reshape(3, DIMENSIONS) for bits in many.run(f"select s.signs::text {order}")]
    place = {"extschema:vector": many.vector}
    apart = sources.render("@sketches_apart(s.signs, q.eight, q.four, q.two, q.one)@", place, "a test")
    distances = many.run(f"select ({apart})::int {order.replace(' s order', f' s, {asked} order')}", e=stranger(1))
    question = np.array(json.loads(stranger(1)))
    width = 0.29 / np.sqrt(DIMENSIONS) * np.linalg.norm(question)
    # The high sign counts as much as the number, the middle one half, the low one a quarter.
    weights = np.stack([steps(question, width * 2**place, 15 // 2**place) for place in range(3)])
    products = [int((weights * row).sum()) for row in held]
    # Three signs of each number in comparisons that weigh 15 together.
    found = [15 * 3 * DIMENSIONS - 2 * distance for distance in distances]
    # A number on the limit of two steps may be in either.
    assert found == pytest.approx(products, abs=8)
    assert np.ptp(products) > 100


@pytest.mark.parametrize(("dimensions", "held"), [(199, 0), (200, 30), (4000, 30)])
@pytest.mark.servers("any")
def test_too_short_embeddings_have_none(empty_database: str, dimensions: int, held: int) -> None:
    install(empty_database, dimensions=dimensions)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, dimensions)
        # The longest name: a row of the index must have room.
        name = "workspace:" + "n" * 246
        store.fill(name, 30)
        assert store.run(SKETCHES) == [held]
        found, exact = store.both([name], store.embedding(name, 3))
        assert found == exact
    assert api.verify_store(settings_for(empty_database)).differences == ()


def test_sketches_are_kept_whatever_is_done_to_memories(many: Store) -> None:
    with many.connection.transaction(force_rollback=True):
        assert many.run(SKETCHES) == [sum(SIZES.values())]
        assert many.run(WRONG) == [0]
        for change in (
            "kind = 'summary' where content = 'memory 7'",
            "source = 'runtime', expires_at = now() + interval '1 day' where content = 'memory 8'",
            "created_at = now() where content = 'memory 9'",
            "namespace = 'org:more', id = gen_random_uuid() where content = 'memory 10' and namespace = 'org:many'",
            "embedding = (select embedding from memory_plugin.memory_records where content = 'memory 11' limit 1) "
            "where content = 'memory 12'",
            "embedding = null where content = 'memory 13'",
        ):
            many.run(f"update memory_plugin.memory_records set {change}")
            assert many.run(WRONG) == [0], change
        many.run("delete from memory_plugin.memory_records where content = 'memory 14'")
        many.run(
            "select memory_plugin.commit_memory('org:new', 'some', embedding => %(e)s::text::{vector}.vector)",
            e=stranger(2),
        )
        assert many.run(WRONG) == [0]
        assert many.run(SKETCHES) == [sum(SIZES.values()) - 3 - 3 + 1]
        many.run("truncate memory_plugin.memory_records cascade")
        assert many.run(SKETCHES) == [0]


@pytest.mark.parametrize("like_a_row", [True, False])
def test_a_search_by_sketches_finds_what_comparing_finds_and_does_not_call_it_exact(
    many: Store, like_a_row: bool
) -> None:
    shares = []
    for number in range(1, 41):
        asked = many.embedding(MANY, number * 31) if like_a_row else stranger(number)
        shares.append(recall(*many.both([MANY], asked)))
    assert sum(shares) / len(shares) >= 0.99
    said = many.answer([MANY], stranger(3))
    assert (said["exact"], said["mode"]) == (False, "semantic")
    assert 6000 < said["candidates"] <= SIZES[MANY]


@pytest.mark.parametrize("like_a_row", [True, False])
def test_few_of_the_vectors_are_read(many: Store, like_a_row: bool) -> None:
    with many.connection.transaction():
        asked = many.embedding(MANY, 31) if like_a_row else stranger(1)
        before = many.run(FETCHED)[0]
        many.both([MANY], asked)
        assert 30 <= many.run(FETCHED)[0] - before < 1000


@pytest.mark.parametrize("like_a_row", [True, False])
def test_sketches_are_read_from_the_index_once_or_twice_and_those_of_other_namespaces_never(
    many: Store, like_a_row: bool
) -> None:
    live = many.run(
        "select count(*)::int from memory_plugin.memory_sketches where namespace = %(n)s and expires_at is null", n=MANY
    )[0]
    with many.connection.transaction():
        asked = many.embedding(MANY, 31) if like_a_row else stranger(1)
        before = many.run(READ)[0]
        many.both([MANY], asked)
        index, table = (now - then for now, then in zip(many.run(READ)[0], before, strict=True))
        # Before that some are looked at to see how near those are that matter.
        assert live <= index <= 2 * live + 64 + live // 64
        assert table == 0


def test_scores_are_those_of_the_vectors_and_in_order(many: Store) -> None:
    query = (
        "select array[h.score, 1 - (r.embedding operator({vector}.<=>) %(e)s::{vector}.vector)] "
        "from memory_plugin.search(array[%(n)s], embedding => %(e)s::{vector}.vector, max_results => 50) h "
        "join memory_plugin.memory_records r on r.namespace = h.namespace and r.id = h.id"
    )
    scores = many.run(query, n=MANY, e=stranger(4))
    assert len(scores) == 50
    assert all(said == pytest.approx(score, abs=0.0006) for said, score in scores)
    assert [said for said, _ in scores] == sorted((said for said, _ in scores), reverse=True)


@pytest.mark.parametrize(
    "filters",
    [
        {"kinds": ["fact", "summary"]},
        {"sources": ["user"]},
        {"after": "2024-01-04", "before": "2024-01-05"},
        {"sources": ["runtime"]},
        {"after": "2024-01-03 08:00", "before": "2024-01-03 08:04"},
    ],
    ids=["kinds", "source", "a day", "none", "a moment"],
)
@pytest.mark.parametrize("names", [[MANY], [MANY, MORE, FEW]], ids=["one", "several"])
def test_filters_apply_before_the_limit(many: Store, filters: dict[str, Any], names: list[str]) -> None:
    shares = []
    for number in range(1, 13):
        asked = many.embedding(MANY, number * 31) if number % 2 else stranger(number)
        shares.append(recall(*many.both(names, asked, **filters)))
    assert sum(shares) / len(shares) >= 0.98


def test_a_longer_answer_is_as_good(many: Store) -> None:
    for limit in (1, 30, 100):
        for number in (1, 2, 3):
            assert recall(*many.both([MANY], stranger(number), limit)) >= 0.98


@pytest.mark.servers("any")
@pytest.mark.parametrize("shape", ["one embedding", "one number each", "near-copies", "one way or the other"])
def test_where_sketches_tell_little_the_rows_are_compared(empty_database: str, shape: str) -> None:
    install(empty_database, dimensions=DIMENSIONS)
    numbers = {
        "one embedding": "sin(d)",
        "one number each": "case when d = mod(i, {dimensions}) then 1 + mod(i, 7) else 0.001 * sin(i + d) end",
        "near-copies": "sin(d) + 0.0005 * sin(i * 0.7 + d * i)",
        "one way or the other": "case when mod(i, 2) = 0 then 1 else -1 end",
    }[shape]
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, DIMENSIONS)
        store.run("insert into memory_plugin.memory_namespaces (name, kind) values (%(n)s, 'org')", n=MANY)
        with store.bulk():
            store.run(
                "insert into memory_plugin.memory_records "
                "(namespace, id, content, kind, source, created_at, embedding) "
                "select %(n)s, md5(i::text)::uuid, 'memory ' || i, 'fact', 'agent', "
                "timestamptz '2024-01-01' + i * interval '1 minute', "
                f"(select array_agg(({numbers})::real order by d) from generate_series(0, {{dimensions}} - 1) as d)"
                "::{vector}.vector from generate_series(1, 7000) as i",
                n=MANY,
            )
        for asked in ("sin(d)", "case when d = 5 then 1 else 0.01 end"):
            question = store.run(
                f"select array_agg(({asked})::real order by d)::{{vector}}.vector::text "
                "from generate_series(0, {dimensions} - 1) as d"
            )[0]
            found, exact = store.both([MANY], question)
            assert recall(found, exact) >= 0.9, asked
            if shape in ("one embedding", "one way or the other"):
                # Of those alike the newest come first.
                assert found == exact


@pytest.mark.servers("any")
def test_embeddings_that_count_words_are_found_as_comparing_finds_them(empty_database: str) -> None:
    dimensions = 384
    install(empty_database, dimensions=dimensions)
    rng = np.random.default_rng(3)
    # Few words each, and some words much more often than others.
    rows = [
        np.bincount((rng.random(3 + i % 20) ** 2 * dimensions).astype(int), minlength=dimensions) for i in range(4300)
    ]
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, dimensions)
        store.run("insert into memory_plugin.memory_namespaces (name, kind) values (%(n)s, 'org')", n=MANY)
        with store.bulk(), connection.cursor() as cursor:
            into = "memory_plugin.memory_records (namespace, id, content, kind, source, embedding)"
            with cursor.copy(f"copy {into} from stdin".encode()) as copy:
                for number, row in enumerate(rows):
                    copy.write_row(
                        (MANY, uuid.UUID(int=number * 7919), f"memory {number}", "fact", "agent", str(row.tolist()))
                    )
        shares = []
        for words in (1, 2, 4, 8, 40, 300):
            for _ in range(8):
                asked = np.zeros(dimensions)
                asked[rng.choice(dimensions, words, replace=False)] = 1
                scores = {
                    name: store.run(query, n=MANY, e=str(asked.tolist()))
                    for name, query in {
                        "found": "select score::float8 from memory_plugin.search(array[%(n)s], "
                        "embedding => %(e)s::{vector}.vector, max_results => 10)",
                        "exact": "select 1 - (embedding operator({vector}.<=>) %(e)s::{vector}.vector) as s "
                        "from memory_plugin.memory_records order by s desc limit 10",
                    }.items()
                }
                # Many are as near as each other: by their nearness, not by their names.
                shares.append(np.mean([score > scores["exact"][-1] - 0.0005 for score in scores["found"]]))
        # By the usual deviations alone it is 0.6.
        assert np.mean(shares) >= 0.95, shares


@BEFORE_SKETCHES
@pytest.mark.servers("any")
def test_a_store_from_before_gets_its_sketches_beside_writers_who_never_wait_a_second(
    empty_database: str, undone: list[str]
) -> None:
    install(empty_database, dimensions=DIMENSIONS)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, DIMENSIONS)
        with store.bulk():
            store.fill(MANY, 4000)
        undo(connection, *undone)
        store.fill(FEW, 20)
        # Holds a memory, and so keeps what is asked for from the table.
        held = "update memory_plugin.memory_records set kind = 'summary' where content = 'memory 3100'"
        one = "where namespace = %(n)s and id = md5(%(n)s || %(i)s)::uuid"
        change = f"update memory_plugin.memory_records set kind = 'fact', source = 'user' {one}"

        def write(number: int) -> None:
            store.run(change, n=MANY, i=str(number % 3000 + 1))
            if number % 5 == 0:
                store.run(f"delete from memory_plugin.memory_records {one}", n=MANY, i=str(3999 - number % 800))

        install_beside(empty_database, held, write)
        assert store.run(WRONG) == [0]
        assert store.run(SKETCHES)[0] > 3000
    assert api.verify_store(settings_for(empty_database)).differences == ()


@BEFORE_SKETCHES
@pytest.mark.servers("any")
@pytest.mark.parametrize("ends", ["during the sketches", "during the index"])
def test_an_install_that_is_killed_while_it_sketches_goes_on(empty_database: str, undone: list[str], ends: str) -> None:
    install(empty_database, dimensions=DIMENSIONS)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as connection:
        store = Store(connection, DIMENSIONS)
        with store.bulk():
            store.fill(MANY, 12_000)
        undo(connection, *undone)
        wanted = {
            "during the sketches": "select count(*) from pg_attribute where attrelid = "
            "to_regclass('memory_plugin.memory_sketches') and attname = 'signs' and not attisdropped "
            "and pg_relation_size(attrelid) > 0",
            "during the index": "select count(*) from pg_attribute "
            "where attrelid = to_regclass('memory_plugin.memory_sketches_live') and attname = 'signs'",
        }[ends]
        kill_install(empty_database, connection, wanted)
        applied = "select from memory_plugin.schema_migrations where name = '016_finer_sketches'"
        assert rows(empty_database, applied) == []
        # Between the two runs the store is written to: the triggers sketch already.
        store.fill(FEW, 40)
        store.run("delete from memory_plugin.memory_records where namespace = %(n)s and kind = 'summary'", n=MANY)
        install(empty_database)
        assert store.run(WRONG) == [0]
        assert recall(*store.both([MANY], stranger(5))) >= 0.9
    assert api.verify_store(settings_for(empty_database)).differences == ()
