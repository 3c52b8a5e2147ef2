"""Roles belong to the server and not to a database: installs into many of its databases at once agree on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from fixtures.cluster import cluster
from fixtures.installing import install, rows, settings_for
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import wait_until
from memory_plugin.installer import api
from memory_plugin.installer.transfer.removing import ROLES

DATABASES = 5
OWNERS = """
    select distinct relowner::regrole::text from pg_class
    where relnamespace = 'memory_plugin'::regnamespace and relname like 'memory_%' and relkind = 'r'
"""


@pytest.fixture(params=[16, 18])
def bare_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server on which nobody has ever installed, so that it has none of the roles."""
    with cluster("bare", embedded_bin_dir(request.param)) as server:
        yield server


@pytest.mark.parametrize("superuser", [True, False])
def test_installs_into_many_databases_of_a_server_without_the_roles_all_end_well(
    bare_server: Server, superuser: bool
) -> None:
    bare_server.create_role("installer", password="x1", options="login createrole")
    user = {} if superuser else {"user": "installer", "password": "x1"}
    names = [f"tenant_{index}" for index in range(DATABASES)]
    for name in names:
        bare_server.execute(f"create database {name} owner installer")
        bare_server.execute("create extension vector", name)
    start = threading.Barrier(DATABASES)

    def boot(name: str) -> tuple[str, ...]:
        start.wait(timeout=30)
        return install(bare_server.url(name, **user)).notes

    with ThreadPoolExecutor(DATABASES) as pool:
        notes = [note for found in pool.map(boot, names) for note in found]
    assert [note for note in notes if note.startswith(("roles", "objects"))] == []
    for name in names:
        url = bare_server.url(name)
        assert rows(url, OWNERS) == [("memory_plugin_owner",)]
        assert api.verify_store(settings_for(url)).differences == ()


def test_an_install_that_finds_a_role_being_changed_elsewhere_waits_and_ends_well(bare_server: Server) -> None:
    """The race itself, made certain: another session has a role's membership half-granted."""
    bare_server.create_role("installer", password="x1", options="login createrole")
    for role in ROLES:
        bare_server.create_role(role, password=None, options="nologin")
        # As the one has it who made the role: to administer, and nothing more.
        bare_server.execute(f"grant {role} to installer with admin true, inherit false, set false")
    bare_server.execute("create database tenant owner installer")
    bare_server.execute("create extension vector", "tenant")
    with bare_server.connect("postgres", user="installer", password="x1") as rival, ThreadPoolExecutor(1) as pool:
        rival.autocommit = False
        rival.execute("grant memory_plugin_owner to installer")
        running = pool.submit(install, bare_server.url("tenant", user="installer", password="x1"))
        waiting = (
            "select pid from pg_stat_activity"
            " where wait_event_type = 'Lock' and application_name = 'memory-plugin install'"
        )
        wait_until(lambda: rows(bare_server.url(), waiting), "the install to wait for the rival's grant")
        rival.commit()
        notes = running.result(timeout=60).notes
    assert [note for note in notes if note.startswith(("roles", "objects"))] == []
    assert rows(bare_server.url("tenant"), OWNERS) == [("memory_plugin_owner",)]


@pytest.fixture
def shared_server() -> Iterator[Server]:
    """Return a server with a store in its database `first`, and a login for the sidecar of it."""
    with cluster("shared", embedded_bin_dir(18)) as server:
        server.execute("create database first")
        assert told_of_strangers(*install(server.url("first")).warnings) == []
        server.execute("create role first_sidecar login in role memory_plugin_api")
        yield server


def told_of_strangers(*warnings: str) -> list[str]:
    """Return the logins of each warning that tells of some who may be another store's."""
    told = [line for line in warnings if line.startswith("the server has other stores")]
    return [line.partition("database: ")[2].partition(" may use it")[0] for line in told]


def test_a_login_that_may_be_another_stores_is_a_warning_until_it_may_not_connect(shared_server: Server) -> None:
    url = shared_server.url("first")

    def verified() -> list[str]:
        verdict = api.verify_store(settings_for(url))
        assert verdict.differences == ()
        return told_of_strangers(*verdict.warnings)

    # With one store on the server there is nobody else's, whatever other databases there are.
    shared_server.execute("create database elsewhere")
    assert verified() == []
    shared_server.execute("create database second")
    install(shared_server.url("second"))
    assert verified() == ["first_sidecar"]
    for statement in (
        "create role team in role memory_plugin_owner",
        "create role second_deployer login in role team",
        "create role second_reader login in role memory_plugin_reader",
        "create role second_administrator login superuser in role memory_plugin_api",
        "create role bystander login",
        # Whom a database is for is known of its owner, and of who was granted connect by name.
        "grant connect on database first to first_sidecar",
    ):
        shared_server.execute(statement)
    assert verified() == ["second_deployer, second_reader"]
    assert told_of_strangers(*install(url).warnings) == ["second_deployer, second_reader"]
    shared_server.execute("alter database first owner to second_reader")
    assert verified() == ["second_deployer"]
    (warning,) = api.verify_store(settings_for(url)).warnings
    advice = warning.partition("share; ")[2].replace("the roles that are to use it", "second_reader")
    shared_server.connect("first", user="second_deployer").close()
    for statement in advice.split("; "):
        shared_server.execute(statement)
    assert verified() == []
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        shared_server.connect("first", user="second_deployer")


def test_the_advice_to_hand_the_objects_over_says_whom_that_lets_in(shared_server: Server) -> None:
    shared_server.create_role("tenant", password="x1")
    shared_server.execute("create database second owner tenant")
    shared_server.execute("create extension vector", "second")
    notes = install(shared_server.url("second", user="tenant", password="x1")).notes
    (told,) = [note for note in notes if note.startswith("objects stay with tenant")]
    assert "grant memory_plugin_owner to the role that installs" in told
    assert "revoke connect, temporary on database second from public" in told
