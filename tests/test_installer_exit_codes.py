"""Every failure of an installation has its own exit code and one clear line; each fault here is a real one."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from fixtures.as_root import as_root
from fixtures.cluster import cluster
from fixtures.databases import fresh_database
from fixtures.full_server import choose
from fixtures.installing import DATA, install, make_earlier_shape, make_vector, refusal, rows, settings_for
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import PROGRAM, clean_env
from memory_plugin.installer import api
from memory_plugin.installer.connect import connection_error
from memory_plugin.installer.errors import InstallError

EMBEDDED_18 = pytest.mark.servers("embedded18")  # extension_control_path came with 18
ANY = pytest.mark.servers("any")


def database_name(url: str) -> str:
    """Return the database that a test's URL names."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def settings_user(url: str) -> str:
    """Return the role that a test's URL names."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["user"])


def url_as(server: Server, url: str, role: str) -> str:
    """Return the URL of the same database for a role that needs no password there."""
    password = "role-password"
    server.execute(f"alter role {role} password '{password}'")
    return server.url(database_name(url), user=role, password=password, tcp=not server.managed)


@pytest.fixture
def shared_folder(server: Server) -> Iterator[Path]:
    """Return a folder that the server's account may read."""
    with tempfile.TemporaryDirectory(prefix="mp-extensions-") as name:
        folder = Path(name)
        (folder / "extension").mkdir()
        for path in (folder, folder / "extension"):
            path.chmod(0o755)
        yield folder


def look_for_extensions_in(folder: Path, url: str) -> None:
    """Make the server of this database look for extensions in this folder only."""
    rows(url, f"alter database {database_name(url)} set extension_control_path = '{folder}'")


@ANY
def test_10_a_server_that_does_not_answer(server: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://app:hush@127.0.0.1:{unused.getsockname()[1]}/app"
        error = refusal(url)
    assert error.exit_code == 10
    assert "hush" not in error.line


@as_root
def test_21_a_url_without_a_user_where_the_account_has_no_name() -> None:
    done = subprocess.run(
        ["unshare", "--user", "--map-user=54321", PROGRAM, "status", "--database-url", "postgresql://127.0.0.1:1/app"],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 21, done.stderr
    assert done.stderr.endswith("does not exist -- name a user in DATABASE_URL\n")


@ANY
def test_10_a_host_that_has_no_address(server: Server) -> None:
    assert refusal("postgresql://app@nowhere.invalid/app").exit_code == 10


def test_11_a_wrong_password(server: Server, empty_database: str, new_role: Callable[..., str]) -> None:
    role = new_role(password="right")
    error = refusal(server.url(database_name(empty_database), user=role, password="wrong-hush", tcp=True))
    assert error.exit_code == 11
    assert "password authentication failed" in error.message
    assert "wrong-hush" not in error.line
    assert "\n" not in error.line


@ANY
@pytest.mark.parametrize("parameter", ["sslmode=bogus", "sslmode=", "target_session_attrs=bogus", "keepalives=bogus"])
def test_21_a_parameter_with_a_value_that_there_is_not(server: Server, empty_database: str, parameter: str) -> None:
    error = refusal(f"{server.url(database_name(empty_database), tcp=True)}?{parameter}")
    assert error.exit_code == 21
    assert parameter.partition("=")[0] in error.message


@pytest.fixture(scope="module")
def secured() -> Iterator[Server]:
    """Return a server with SSL, whose certificate is its own."""
    if choose().way != "packages":
        pytest.skip("the embedded servers are built without SSL")
    with cluster("secured", Path(choose().where)) as server:
        assert server.own is not None
        pair = (DATA / "localhost.pem").read_text()
        for name in ("server.crt", "server.key"):
            file = server.own.data_dir / name
            file.write_text(pair)
            file.chmod(0o600)
            owner = server.own.data_dir.stat()
            os.chown(file, owner.st_uid, owner.st_gid)
        server.execute("alter system set ssl = on")
        server.restart()
        yield server


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_21_ssl_that_the_server_does_not_have(mode: str) -> None:
    with cluster("without_ssl", embedded_bin_dir(18)) as server:
        error = refusal(f"{server.url(tcp=True)}?sslmode={mode}")
    assert error.exit_code == 21
    assert "does not support SSL" in error.message
    assert "sslmode" in error.hint


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sslmode=verify-full&sslrootcert=/nonexistent", "does not exist"),
        ("sslmode=verify-full&sslrootcert=system", "certificate verify failed"),
        (f"sslmode=verify-full&sslrootcert={DATA / 'localhost.pem'}", "does not match host name"),
    ],
)
def test_21_a_certificate_that_does_not_do(secured: Server, query: str, reason: str) -> None:
    with psycopg.connect(f"{secured.url(tcp=True)}?sslmode=require") as connection:
        assert connection.pgconn.ssl_in_use
    # The certificate is for 127.0.0.1.
    url = secured.url(tcp=True).replace("127.0.0.1", "[::1]" if "match" in reason else "127.0.0.1")
    error = refusal(f"{url}?{query}")
    assert error.exit_code == 21
    assert reason in error.message
    assert "sslrootcert" in error.hint


@ANY
@pytest.mark.parametrize("file", [None, "[another]\nhost=nowhere\n"])
def test_21_a_service_that_there_is_not(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    services = tmp_path / "services"
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    if file is not None:
        services.write_text(file)
    error = refusal("service=memory")
    assert error.exit_code == 21
    assert "not found" in error.message
    assert "PGSERVICEFILE" in error.hint


@ANY
def test_21_a_setting_of_the_server_that_there_is_not(server: Server, empty_database: str) -> None:
    error = refusal(f"{server.url(database_name(empty_database), tcp=True)}?options=-c%20no_such=1")
    assert error.exit_code == 21
    assert "no_such" in error.message


@ANY
@pytest.mark.parametrize("limited", ["role", "database"])
def test_10_a_connection_limit_below_what_an_install_needs_is_named(
    server: Server, empty_database: str, new_role: Callable[..., str], limited: str
) -> None:
    role, name = new_role(), database_name(empty_database)
    make_vector(empty_database, "public")
    rows(empty_database, f"alter database {name} owner to {role}")
    rows(empty_database, f"alter {limited} {role if limited == 'role' else name} connection limit 1")
    error = refusal(url_as(server, empty_database, role))
    assert error.exit_code == 10
    assert f"too many connections for {limited}" in error.message
    assert "No Postgres server answers" not in error.message
    assert "CONNECTION LIMIT" in error.hint


ANSWER = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: '


def refused_with(said: str) -> InstallError:
    """Return what a connection comes to whose attempt ended with these words."""
    return connection_error(psycopg.OperationalError(f"{ANSWER}{said}"), settings_for("postgresql://app@10.0.0.7/app"))


@pytest.mark.parametrize(
    "said",
    [
        "FATAL:  das Datenbanksystem startet",
        "FATAL:  Verbindungslimit für Rolle »app« überschritten",
        "FATAL:  データベースシステムは起動処理中です",
        "ВАЖНО:  система баз данных запускается",
        "致命错误:  对不起, 已经有太多的客户",
        "FATAL:  sorry, too many clients already",
        "FATAL:  no more connections allowed (max_client_conn)",
    ],
)
def test_10_what_the_server_says_in_other_words_may_pass(said: str) -> None:
    error = refused_with(said)
    assert error.exit_code == 10
    assert error.message.startswith("The server answers and takes no connection: connection to server at")
    assert said.split(":  ")[1] in error.message
    assert "run this again" in error.hint


def test_10_what_may_pass_in_another_language_may_be_a_refused_login_too() -> None:
    said = "FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen"
    error = refused_with(said)
    assert error.exit_code == 10
    assert "check user, password and database" in error.hint


@pytest.mark.parametrize(
    "said",
    [
        'FATAL:  password authentication failed for user "app"',
        "FATAL:  connection requires a valid client certificate",
        'FATAL:  role "app" does not exist',
        "fe_sendauth: no password supplied",
    ],
)
def test_11_only_what_is_known_to_be_a_refusal_is_one(said: str) -> None:
    error = refused_with(said)
    assert error.exit_code == 11


@ANY
@pytest.mark.parametrize("demand", ["require_auth=none", "gssencmode=require"])
def test_21_a_demand_on_the_connection_that_the_server_does_not_meet(server: Server, demand: str) -> None:
    error = refusal(f"{server.url(tcp=True)}?{demand}")
    assert error.exit_code == 21
    assert "correct that parameter" in error.hint


@pytest.mark.parametrize("said", ["Connection refused\n\tIs the server running on that host?", "timeout expired"])
def test_10_what_libpq_says_by_itself_is_no_answer(said: str) -> None:
    error = refused_with(said)
    assert error.exit_code == 10
    assert error.message.startswith("No Postgres server answers")


@ANY
def test_11_no_password_where_one_is_needed(server: Server, empty_database: str, new_role: Callable[..., str]) -> None:
    role = new_role(password="right")
    assert refusal(server.url(database_name(empty_database), user=role, tcp=True)).exit_code == 11


@ANY
def test_11_a_database_that_is_not_there_names_the_statement_that_makes_it(server: Server) -> None:
    error = refusal(server.url("No-such database"))
    assert error.exit_code == 11
    assert error.hint.endswith('create database "No-such database"')


@EMBEDDED_18
def test_12_pgvector_that_the_server_lacks_names_the_package(empty_database: str, shared_folder: Path) -> None:
    look_for_extensions_in(shared_folder, empty_database)
    error = refusal(empty_database)
    assert error.exit_code == 12
    assert "postgresql-18-pgvector" in error.message
    assert rows(empty_database, "select to_regnamespace('memory_plugin')") == [(None,)]


@EMBEDDED_18
def test_13_pgvector_that_the_server_has_in_too_old_a_version(empty_database: str, shared_folder: Path) -> None:
    (shared_folder / "extension" / "vector.control").write_text("default_version = '0.6.2'\nrelocatable = true\n")
    (shared_folder / "extension" / "vector--0.6.2.sql").write_text("select 1;\n")
    look_for_extensions_in(shared_folder, empty_database)
    error = refusal(empty_database)
    assert error.exit_code == 13
    assert "the server has 0.6.2 and 0.7.0 is needed" in error.message


def test_13_pgvector_that_the_database_has_in_too_old_a_version_names_the_update(empty_database: str) -> None:
    make_vector(empty_database, "public")
    rows(empty_database, "update pg_extension set extversion = '0.6.2' where extname = 'vector'")
    error = refusal(empty_database)
    assert error.exit_code == 13
    assert "alter extension vector update" in error.hint


def test_14_a_role_that_may_not_create_the_extension_gets_the_statement_and_then_can_go_on(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    role = new_role()
    rows(empty_database, f"grant create on database {database_name(empty_database)} to {role}")
    url = url_as(server, empty_database, role)
    error = refusal(url)
    assert error.exit_code == 14
    statement = error.hint.partition("run: ")[2]
    assert statement.startswith("create extension vector")
    rows(empty_database, statement)
    assert install(url).vector_schema == "public"
    assert api.verify_store(settings_for(url)).differences == ()


@pytest.mark.servers("embedded")
def test_15_plpython_that_the_server_lacks_names_the_package(server: Server, empty_database: str) -> None:
    error = refusal(empty_database, plpython="require")
    assert error.exit_code == 15
    assert f"postgresql-plpython3-{server.major}" in error.message


@pytest.mark.servers("full")
def test_15_plpython_for_a_role_that_is_no_superuser(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    make_vector(empty_database, "public")
    role = new_role()
    rows(empty_database, f"grant create on database {database_name(empty_database)} to {role}")
    url = url_as(server, empty_database, role)
    error = refusal(url, plpython="require")
    assert error.exit_code == 15
    assert "not a superuser" in error.message
    assert install(url).plpython is False


@ANY
@pytest.mark.parametrize("adopted", [False, True])
def test_20_other_dimensions_than_the_store_holds(empty_database: str, adopted: bool) -> None:
    if adopted:
        make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    else:
        install(empty_database)
    error = refusal(empty_database, dimensions=768)
    assert error.exit_code == 20
    assert "it holds 1536 dimensions, and 768 were asked for" in error.message


@ANY
def test_20_an_embedding_column_without_dimensions(empty_database: str) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    rows(empty_database, "alter table memory_plugin.memory_records alter column embedding type vector")
    assert refusal(empty_database).exit_code == 20


@ANY
def test_21_another_text_search_configuration_than_the_store_holds(empty_database: str) -> None:
    install(empty_database)
    error = refusal(empty_database, text_search_config="german")
    assert error.exit_code == 21
    assert "holds text search configuration english, and german was asked for" in error.message


@ANY
def test_21_a_text_search_configuration_that_is_not_there(empty_database: str) -> None:
    error = refusal(empty_database, text_search_config="klingon")
    assert error.exit_code == 21
    assert "german" in error.hint
    assert rows(empty_database, "select to_regnamespace('memory_plugin')") == [(None,)]


@ANY
def test_21_a_database_that_is_not_utf8(server: Server) -> None:
    with fresh_database(server) as url:
        latin = database_name(url) + "_latin"
        server.execute(f"create database {latin} encoding 'LATIN1' locale 'C' template template0")
        try:
            error = refusal(server.url(latin))
        finally:
            server.execute(f"drop database {latin} with (force)")
    assert error.exit_code == 21
    assert "LATIN1" in error.message


@ANY
def test_22_a_role_that_may_not_create_the_schema_gets_the_statement_for_the_databases_owner(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    make_vector(empty_database, "public")
    role, owner = new_role(), new_role()
    rows(empty_database, f"alter database {database_name(empty_database)} owner to {owner}")
    url = url_as(server, empty_database, role)
    error = refusal(url)
    assert error.exit_code == 22
    rows(url_as(server, empty_database, owner), error.hint.partition("have its owner run: ")[2])
    assert install(url).applied


def schema_of_the_superuser(server: Server, url: str, new_role: Callable[..., str]) -> str:
    """Make the schema with pgvector as the superuser; return the URL of the database's owner, another role."""
    make_vector(url, "memory_plugin")
    role = new_role()
    rows(url, f"alter database {database_name(url)} owner to {role}")
    return url_as(server, url, role)


def test_22_a_schema_that_a_superuser_made_is_to_become_the_roles_own(
    server: Server, empty_database: str, database: str, new_role: Callable[..., str]
) -> None:
    url = schema_of_the_superuser(server, empty_database, new_role)
    error = refusal(url)
    assert error.exit_code == 22
    rows(empty_database, error.hint.partition("run: ")[2])
    assert [note for note in install(url).notes if "schema memory_plugin" in note] == []
    assert api.verify_store(settings_for(url)).differences == ()


def test_a_role_that_may_only_create_in_the_schema_is_told_what_its_owner_has_to_run(
    server: Server, empty_database: str, database: str, new_role: Callable[..., str]
) -> None:
    url = schema_of_the_superuser(server, empty_database, new_role)
    rows(empty_database, f'grant usage, create on schema memory_plugin to "{settings_user(url)}"')
    notes = [note for note in install(url).notes if "schema memory_plugin not set" in note]
    assert [note.count("grant usage on schema memory_plugin to memory_plugin_") for note in notes] == [2]
    assert api.verify_store(settings_for(url)).differences != ()
    rows(empty_database, notes[0].partition("As its owner: ")[2])
    assert [note for note in install(url).notes if "schema memory_plugin not set" in note] == []
    assert api.verify_store(settings_for(url)).differences == ()


@pytest.mark.parametrize("member", [True, False])
def test_a_member_of_the_tables_owner_is_told_where_that_may_not_create_in_the_schema(
    server: Server, empty_database: str, database: str, new_role: Callable[..., str], member: bool
) -> None:
    url = schema_of_the_superuser(server, empty_database, new_role)
    role = settings_user(url)
    rows(empty_database, f'grant usage, create on schema memory_plugin to "{role}"')
    if member:
        rows(empty_database, f'grant memory_plugin_owner to "{role}"')
    notes = [note for note in install(url).notes if note.startswith("objects stay")]
    assert len(notes) == 1
    assert ("grant create, usage on schema memory_plugin to memory_plugin_owner" in notes[0]) is member
    assert ("grant memory_plugin_owner to" in notes[0]) is not member


def test_a_role_that_may_use_the_schema_of_pgvector_and_not_hand_that_on_is_told_what_its_owner_has_to_run(
    server: Server, empty_database: str, database: str, new_role: Callable[..., str]
) -> None:
    make_vector(empty_database, "extensions")
    role = new_role()
    rows(empty_database, f"alter database {database_name(empty_database)} owner to {role}")
    rows(empty_database, f"grant usage on schema extensions to {role}")
    url = url_as(server, empty_database, role)
    notes = [note for note in install(url).notes if "schema of vector" in note]
    rows(empty_database, notes[0].partition("As its owner: ")[2])
    assert [note for note in install(url).notes if "schema of vector" in note] == []
    assert api.verify_store(settings_for(url)).differences == ()


@ANY
def test_22_a_role_that_may_not_use_the_schema_of_pgvector_gets_the_statement(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    make_vector(empty_database, "extensions")
    role = new_role()
    rows(empty_database, f"grant create on database {database_name(empty_database)} to {role}")
    url = url_as(server, empty_database, role)
    error = refusal(url)
    assert error.exit_code == 22
    assert "extensions" in error.message
    rows(empty_database, error.hint.partition("run: ")[2])
    assert install(url).applied


@ANY
def test_22_a_role_that_does_not_own_the_tables(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    role = new_role()
    rows(empty_database, f"grant all on schema memory_plugin to {role}")
    error = refusal(url_as(server, empty_database, role))
    assert error.exit_code == 22
    assert "does not own memory_plugin.memory_namespaces" in error.message


@ANY
def test_22_the_sidecars_own_login_is_told_how_it_starts(
    server: Server, database: str, new_role: Callable[..., str]
) -> None:
    role = new_role()
    rows(database, f"grant memory_plugin_api to {role}")
    error = refusal(url_as(server, database, role))
    assert error.exit_code == 22
    assert "MEMORY_PLUGIN_SKIP_MIGRATE=1" in error.hint


@ANY
def test_22_a_role_that_does_not_own_the_functions(server: Server, database: str, new_role: Callable[..., str]) -> None:
    role = new_role()
    rows(database, f"grant all on schema memory_plugin to {role}")
    rows(database, f"grant select on memory_plugin.schema_migrations to {role}")
    error = refusal(url_as(server, database, role))
    assert error.exit_code == 22
