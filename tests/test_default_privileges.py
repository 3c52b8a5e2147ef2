"""Default privileges that keep functions and types from public: the store works, or says which grant it lacks."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

import every_call
from fixtures.installing import connected, install, refusal, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import access_check, api, plpython, sources
from memory_plugin.installer.errors import MissingPrivilegeError

pytestmark = pytest.mark.servers("any")
FUNCTIONS = "alter default privileges revoke execute on functions from public"
TYPES = "alter default privileges revoke usage on types from public"
CLOSED = """
    select count(*) from pg_proc as p
    inner join pg_depend as d on d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    inner join pg_extension as e on d.refobjid = e.oid and e.extname = 'vector'
    where not has_function_privilege('public', p.oid, 'execute')
"""


def refused_calls(url: str, role: str) -> list[str]:
    """Call every function of the store as a role; return the answers that tell of something it may not use."""
    with connected(url) as connection:
        there = every_call.callable_functions(connection)
        connection.execute(f'set session authorization "{role}"'.encode())
        given = every_call.answers(connection, "team:a", there)
    assert [answer for call, answer in given if "embedding => '[" in call and "a red apple" in answer]
    ours = re.compile(rf"for function ({'|'.join(there)})$")
    return [f"{call}: {answer}" for call, answer in given if answer.startswith("42501") and not ours.search(answer)]


@pytest.fixture
def tenants_url(server: Server, empty_database: str, new_role: Callable[..., str]) -> Callable[[str], str]:
    """Return a maker of the tenant's URL: his database, in which the superuser has made pgvector after a statement."""

    def make(before: str) -> str:
        tenant = new_role(password="x1")
        name = rows(empty_database, "select current_database()")[0][0]
        rows(empty_database, f'{before}; create extension vector; alter database "{name}" owner to "{tenant}"')
        return server.url(name, user=tenant, password="x1")

    return make


def test_a_superusers_install_lets_our_roles_use_what_public_may_not(
    empty_database: str, new_role: Callable[..., str]
) -> None:
    rows(empty_database, f"{FUNCTIONS}; {TYPES}")
    result = install(empty_database)
    assert rows(empty_database, CLOSED)[0][0] > 80
    assert [note for note in result.notes if "grant" in note] == []
    assert api.verify_store(settings_for(empty_database)).differences == ()
    login = new_role()
    rows(empty_database, f'grant memory_plugin_api to "{login}"')
    assert refused_calls(empty_database, login) == []
    # A change of the model makes columns and tables of pgvector's types, as the store's owner.
    rows(
        empty_database,
        "set session authorization memory_plugin_owner; "
        "create temporary table t (a memory_plugin.vector(3), b memory_plugin.halfvec(3))",
    )


@pytest.mark.parametrize("before", [FUNCTIONS, TYPES])
def test_a_tenants_install_is_refused_before_it_begins_and_works_after_the_grant_it_prints(
    tenants_url: Callable[[str], str], empty_database: str, before: str
) -> None:
    url = tenants_url(before)
    tenant = rows(url, "select current_user")[0][0]
    error = refusal(url)
    assert isinstance(error, MissingPrivilegeError)
    assert error.exit_code == 22
    assert rows(url, "select to_regnamespace('memory_plugin')") == [(None,)]
    assert error.hint.startswith("have their owner or a superuser run: grant ")
    rows(empty_database, error.hint.partition("run: ")[2])
    first = install(url)
    assert refused_calls(url, tenant) == []
    # The server's other roles are told, and then granted the same.
    told = [note for note in first.notes if "of vector not granted" in note]
    assert len(told) == 1
    rows(empty_database, told[0].partition("As their owner or a superuser: ")[2])
    assert [note for note in install(url).notes if "of vector not granted" in note] == []
    assert api.verify_store(settings_for(url)).differences == ()


def test_an_owner_that_the_installing_role_may_not_grant_to_is_told_and_found(
    tenants_url: Callable[[str], str], empty_database: str
) -> None:
    url = tenants_url(f"{FUNCTIONS}; {TYPES}")
    tenant = rows(url, "select current_user")[0][0]
    rows(empty_database, refusal(url).hint.partition("run: ")[2])
    if not rows(empty_database, "select to_regrole('memory_plugin_owner')")[0][0]:
        rows(empty_database, "create role memory_plugin_owner")
    rows(empty_database, f'grant memory_plugin_owner to "{tenant}"')
    assert any("to memory_plugin_api, memory_plugin_owner, " in note for note in install(url).notes)
    (found,) = api.verify_store(settings_for(empty_database)).differences
    assert found.startswith("pgvector: memory_plugin_owner may not use functions or types of it")
    rows(empty_database, found.partition("may run: ")[2])
    assert api.verify_store(settings_for(empty_database)).differences == ()
    assert refused_calls(empty_database, tenant) == []


def test_what_is_revoked_later_is_found_and_mended_by_the_next_install(database: str) -> None:
    rows(
        database,
        "revoke execute on function memory_plugin.vector_eq(memory_plugin.vector, memory_plugin.vector) from public; "
        "revoke execute on function memory_plugin.l1_distance(memory_plugin.vector, memory_plugin.vector) from public",
    )
    (found,) = api.verify_store(settings_for(database)).differences
    assert found.endswith(
        "grant execute on routine memory_plugin.vector_eq(memory_plugin.vector,memory_plugin.vector) "
        'to "memory_plugin_owner"'
    )
    install(database)
    assert api.verify_store(settings_for(database)).differences == ()


def test_an_ordinary_servers_pgvector_is_left_as_it_is(database: str) -> None:
    changed = """
        select count(*) from pg_depend as d inner join pg_extension as e on d.refobjid = e.oid and e.extname = 'vector'
        where d.deptype = 'e' and (
            exists (select from pg_proc as p where p.oid = d.objid and p.proacl is not null)
            or exists (select from pg_type as t where t.oid = d.objid and t.typacl is not null)
        )
    """
    assert rows(database, changed) == [(0,)]


def test_what_the_store_uses_of_pgvector_is_listed_in_access_sql(database: str) -> None:
    """By name, as far as our SQL names it; what casts and comparisons call is seen by the calls above."""
    source = sources.load()
    listed = {name.partition("(")[0] for name in access_check._listed(source, "v_used")}
    values = sources.placeholders("there", 1536, "simple")
    texts = [*(one.text for one in source.migrations), *(one.text for one in source.functions)]
    rendered = [sources.render(text, values, "a file") for text in texts]
    text = "\n".join([*rendered, *(plpython.build(name, values) for name in plpython.names())])
    called = set(re.findall(r"\bthere\.(\w+)\(\w", text)) - {"vector", "halfvec"}
    assert {"l2_normalize", "subvector"} <= called
    assert called <= listed
    query = """
        select o.oprname::text, o.oprcode::oid::regprocedure::text from pg_operator as o
        where o.oprnamespace = 'memory_plugin'::regnamespace
    """
    functions: dict[str, set[str]] = {}
    for name, function in rows(database, query):
        functions.setdefault(name, set()).add(function.partition("(")[0].removeprefix("memory_plugin."))
    operators = set(re.findall(r"operator\(there\.([^\s\w)]+)\)", text))
    assert {"<#>", "<~>", "="} <= operators
    assert [name for name in operators if not functions[name] & listed] == []
