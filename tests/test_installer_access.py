"""`verify` finds an owner, a policy or a grant that is not as an installation makes it, and the next one mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.installing import connected, install, make_vector, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import access_check, api, sources

pytestmark = pytest.mark.servers("any")
READER = "policy memory_plugin_reader on memory_plugin.memory_records"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            "alter table memory_plugin.memory_records owner to current_user",
            "belongs to memory_plugin_owner, the store to",
        ),
        (
            "alter function memory_plugin.v1_search(json) owner to current_user",
            "function memory_plugin.v1_search(json) belongs to",
        ),
        (
            "alter type memory_plugin.memory_hit owner to current_user",
            "type memory_plugin.memory_hit belongs to",
        ),
        (
            "alter table memory_plugin.memory_records no force row level security",
            "table memory_plugin.memory_records: row-level security is not enabled and forced",
        ),
        (
            "alter table memory_plugin.memory_namespaces disable row level security",
            "table memory_plugin.memory_namespaces: row-level security is not enabled and forced",
        ),
        (f"drop {READER}", "table memory_plugin.memory_records: policy memory_plugin_reader is not as it should be"),
        (
            f"alter {READER} using (true)",
            "table memory_plugin.memory_records: policy memory_plugin_reader is not as it should be",
        ),
        (
            f"alter {READER} to public",
            "table memory_plugin.memory_records: policy memory_plugin_reader is not as it should be",
        ),
        (
            "create policy open on memory_plugin.memory_records for select to public using (true)",
            "table memory_plugin.memory_records: policy open is not ours",
        ),
        (
            "grant select on memory_plugin.memory_records to public",
            "table memory_plugin.memory_records: public has select",
        ),
        (
            "grant select (content) on memory_plugin.memory_records to memory_plugin_api",
            "table memory_plugin.memory_records: memory_plugin_api has select",
        ),
        (
            "grant insert on memory_plugin.schema_migrations to memory_plugin_reader",
            "table memory_plugin.schema_migrations: memory_plugin_reader has insert",
        ),
        (
            "revoke select on memory_plugin.memory_namespaces from memory_plugin_reader",
            "table memory_plugin.memory_namespaces: memory_plugin_reader lacks select",
        ),
        (
            "grant execute on function memory_plugin.v1_search(json) to public",
            "function memory_plugin.v1_search(json): public has execute",
        ),
        (
            "grant execute on function memory_plugin.sweep(integer) to memory_plugin_reader",
            "function memory_plugin.sweep(integer): memory_plugin_reader has execute",
        ),
        (
            "revoke execute on function memory_plugin.health() from memory_plugin_api",
            "function memory_plugin.health(): memory_plugin_api lacks execute",
        ),
        (
            "grant execute on function memory_plugin._trim(text) to memory_plugin_api",
            "function memory_plugin._trim(text): memory_plugin_api has execute",
        ),
        (
            "revoke usage on schema memory_plugin from memory_plugin_api",
            "schema memory_plugin: memory_plugin_api lacks usage",
        ),
        (
            "grant create on schema memory_plugin to memory_plugin_reader",
            "schema memory_plugin: memory_plugin_reader has create",
        ),
    ],
)
def test_a_change_of_access_is_found_named_and_mended_by_the_next_install(
    database: str, damage: str, named: str
) -> None:
    assert api.verify_store(settings_for(database)).differences == ()
    rows(database, damage)
    found = api.verify_store(settings_for(database)).differences
    assert any(named in line for line in found), found
    install(database)
    # A policy that is none of ours may be somebody's will: it is told, and stays.
    left = {line for line in api.verify_store(settings_for(database)).differences if not line.endswith("is not ours")}
    assert left == set()


def test_an_install_that_finds_everything_in_order_makes_no_policy_anew(database: str) -> None:
    policies = "select oid, polname from pg_policy order by 1"
    before = rows(database, policies)
    assert len(before) == 8
    install(database)
    assert rows(database, policies) == before


def test_a_schema_of_pgvector_that_the_owner_may_not_use_is_found(empty_database: str) -> None:
    make_vector(empty_database, "extensions")
    install(empty_database)
    rows(empty_database, "revoke usage on schema extensions from memory_plugin_owner")
    assert api.verify_store(settings_for(empty_database)).differences == (
        "schema extensions: memory_plugin_owner lacks usage",
    )
    install(empty_database)
    assert api.verify_store(settings_for(empty_database)).differences == ()


def test_a_grant_to_a_role_of_the_operators_own_is_the_operators(database: str, new_role: Callable[..., str]) -> None:
    rows(database, f'grant select on memory_plugin.memory_records to "{new_role()}"')
    assert api.verify_store(settings_for(database)).differences == ()


def test_a_store_that_its_installer_may_not_hand_over_is_whole_with_a_warning(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    owner = new_role(password="x1")
    name = rows(empty_database, "select current_database()")[0][0]
    rows(empty_database, "create extension vector")
    rows(empty_database, f'alter database "{name}" owner to "{owner}"')
    url = server.url(name, user=owner, password="x1")
    install(url)
    verdict = api.verify_store(settings_for(url))
    assert verdict.differences == ()
    assert [line for line in verdict.warnings if line.startswith((f"the store belongs to {owner}", "there is no role"))]


def test_the_list_of_what_a_reader_may_run_is_read_from_the_file_that_grants_it(database: str) -> None:
    listed = access_check._reader_functions(sources.load())
    query = """
        select distinct p.proname::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace
            and has_function_privilege('memory_plugin_reader', p.oid, 'execute')
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    """
    with connected(database) as connection:
        assert {name for (name,) in connection.execute(query).fetchall()} == listed
