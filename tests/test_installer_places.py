"""Whatever a database holds at first, the store ends up whole in memory_plugin, and again changes nothing."""

from __future__ import annotations

import psycopg
import pytest

from fixtures.installing import (
    connected,
    dump,
    install,
    make_earlier_shape,
    make_vector,
    members,
    refusal,
    rows,
    settings_for,
)
from fixtures.server import Server
from memory_plugin.installer import api

PLACES = ("absent", "memory_plugin", "public", "extensions", 'Odd "name')
EARLIER_ROWS = """
    select r.*, n.*
    from memory_plugin.memory_records as r
    join memory_plugin.memory_namespaces as n on n.name = r.namespace
    order by id
"""


def remember_and_find(url: str) -> None:
    """Commit a memory with an embedding and find it again, with a search_path that helps nobody."""
    embedding = "[" + ",".join(["0.5"] * 1536) + "]"
    body = f'{{"content": "tea, not coffee", "kind": "fact", "source": "user", "embedding": {embedding}}}'
    search = f'{{"namespaces": ["workspace:z"], "query": "tea", "embedding": {embedding}}}'
    with connected(url) as connection:
        connection.execute("set search_path = pg_temp")
        connection.execute("select memory_plugin.v1_commit_memory('workspace:z', %s::json)", (body,))
        row = connection.execute("select memory_plugin.v1_search(%s::json)", (search,)).fetchone()
    assert row is not None
    assert [memory["content"] for memory in row[0]["memories"]] == ["tea, not coffee"]


@pytest.mark.parametrize("place", PLACES)
def test_the_store_works_wherever_pgvector_is(empty_database: str, place: str) -> None:
    if place != "absent":
        make_vector(empty_database, place.replace('"', '""'))
    public_before = members(empty_database, "public")
    first = install(empty_database)
    held = members(empty_database, "memory_plugin")
    second = install(empty_database)

    assert first.applied[:2] == ("000_schema_bootstrap", "001_memory_v2")
    assert second.applied == () == second.adopted
    assert members(empty_database, "memory_plugin") == held
    assert {"table memory_plugin.memory_namespaces", "table memory_plugin.memory_records"} <= held
    assert members(empty_database, "public") == public_before
    wanted = "memory_plugin" if place == "absent" else place
    assert rows(
        empty_database,
        "select nspname from pg_extension e join pg_namespace n on n.oid = extnamespace where extname = 'vector'",
    ) == [(wanted,)]
    assert api.verify_store(settings_for(empty_database)).differences == ()
    remember_and_find(empty_database)


@pytest.mark.servers("any")
def test_a_pgvector_that_is_moved_is_no_fault_of_an_embedding_and_install_follows_it(empty_database: str) -> None:
    make_vector(empty_database, "public")
    install(empty_database)
    rows(empty_database, "create schema elsewhere")
    rows(empty_database, "alter extension vector set schema elsewhere")
    with pytest.raises(psycopg.errors.UndefinedObject):
        remember_and_find(empty_database)
    assert "function _json_embedding has another body" in api.verify_store(settings_for(empty_database)).differences
    assert install(empty_database).vector_schema == "elsewhere"
    assert api.verify_store(settings_for(empty_database)).differences == ()
    remember_and_find(empty_database)


@pytest.mark.parametrize("place", ["public", "memory_plugin", "extensions"])
def test_an_earlier_store_is_adopted_with_every_row(empty_database: str, place: str) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector=place)
    public_before = members(empty_database, "public")
    before = rows(empty_database, EARLIER_ROWS)
    first = install(empty_database)
    second = install(empty_database)

    assert first.adopted == ("000_schema_bootstrap", "001_memory_v2")
    assert first.applied[0] == "002_namespace_key"
    assert second.adopted == () == second.applied
    assert len(before) == 3
    assert rows(empty_database, EARLIER_ROWS) == before
    assert members(empty_database, "public") == public_before
    adopted = rows(empty_database, "select name from memory_plugin.schema_migrations where adopted order by name")
    assert adopted == [("000_schema_bootstrap",), ("001_memory_v2",)]
    assert api.verify_store(settings_for(empty_database)).differences == ()
    remember_and_find(empty_database)


def test_an_adopted_store_has_the_schema_of_a_fresh_one(server: Server, new_empty_database: object) -> None:
    assert callable(new_empty_database)
    fresh, adopted = new_empty_database(), new_empty_database()
    make_vector(fresh, "extensions")
    make_earlier_shape(adopted, tables="memory_plugin", vector="extensions")
    install(fresh)
    install(adopted)
    assert "memory_plugin.memory_records" in dump(server, fresh)
    assert dump(server, adopted) == dump(server, fresh)


@pytest.mark.servers("any")
def test_a_boot_that_died_between_the_tables_is_finished(empty_database: str) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    rows(empty_database, "drop table memory_plugin.memory_records")
    assert "001_memory_v2" in install(empty_database).applied
    assert rows(empty_database, "select count(*) from memory_plugin.memory_namespaces") == [(2,)]
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("drop column propagation", "column memory_records.propagation"),
        ("alter column pin type text", "memory_records.pin as bool (it is text)"),
        ("drop constraint memory_records_pkey", "a primary key on memory_records (id)"),
        ("drop constraint memory_records_namespace_fkey", "a foreign key from memory_records"),
        ("alter column content_tsv drop expression", "content_tsv as a generated column"),
    ],
)
def test_an_earlier_store_of_another_shape_is_refused_and_left_alone(
    empty_database: str, damage: str, named: str
) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    rows(empty_database, f"alter table memory_plugin.memory_records {damage}")
    before = members(empty_database, "memory_plugin")
    error = refusal(empty_database)
    assert error.exit_code == 25
    assert named in error.message
    assert members(empty_database, "memory_plugin") == before


@pytest.mark.servers("any")
def test_tables_that_an_earlier_boot_left_in_public_are_told_and_left_alone(empty_database: str) -> None:
    make_earlier_shape(empty_database, tables="public", vector="public")
    result = install(empty_database)
    assert any(
        "public.memory_namespaces (2 rows) and public.memory_records (3 rows)" in line for line in result.warnings
    )
    assert rows(empty_database, "select count(*) from public.memory_records") == [(3,)]
    assert rows(empty_database, "select count(*) from memory_plugin.memory_records") == [(0,)]


@pytest.mark.servers("any")
def test_a_schema_made_for_something_else_is_refused(empty_database: str) -> None:
    rows(empty_database, "create schema memory_plugin create table theirs (id int)")
    error = refusal(empty_database)
    assert error.exit_code == 25
    assert "theirs" in error.message
    assert members(empty_database, "memory_plugin") == {"table memory_plugin.theirs"}


@pytest.mark.servers("any")
def test_a_schema_that_is_there_and_empty_is_used(empty_database: str) -> None:
    rows(empty_database, "create schema memory_plugin")
    assert install(empty_database).applied[0] == "000_schema_bootstrap"


@pytest.mark.servers("any")
def test_pgvector_moved_later_is_followed(empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, "alter extension vector set schema public")
    assert api.verify_store(settings_for(empty_database)).differences != ()
    assert install(empty_database).vector_schema == "public"
    assert api.verify_store(settings_for(empty_database)).differences == ()
    remember_and_find(empty_database)


@pytest.mark.servers("any")
@pytest.mark.parametrize("dimensions", [1, 384, 2001, 4000])
def test_a_fresh_store_takes_the_dimensions_asked_for(empty_database: str, dimensions: int) -> None:
    assert install(empty_database, dimensions=dimensions).dimensions == dimensions
    column = "attrelid = 'memory_plugin.memory_records'::regclass and attname = 'embedding'"
    assert rows(empty_database, f"select atttypmod from pg_attribute where {column}") == [(dimensions,)]
    assert install(empty_database).dimensions == dimensions
    assert install(empty_database, dimensions=dimensions).dimensions == dimensions


@pytest.mark.servers("any")
def test_a_fresh_store_takes_the_text_search_configuration_asked_for(empty_database: str) -> None:
    assert install(empty_database, text_search_config="german").text_search_config == "german"
    assert install(empty_database).text_search_config == "german"
    default = (
        "select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = 'memory_plugin.memory_records'::regclass"
    )
    assert "'german'::regconfig" in str(rows(empty_database, f"{default} order by adnum"))


@pytest.mark.servers("any")
def test_skip_migrate_leaves_the_database_untouched(empty_database: str) -> None:
    result = install(empty_database, skip_migrate="1")
    assert result.skipped
    assert rows(empty_database, "select to_regnamespace('memory_plugin')") == [(None,)]
