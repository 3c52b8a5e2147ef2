"""Many installs at once, and installs among other sessions: each migration once, no wait without an end or a name."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from fixtures.installing import DATA, connected, install, make_earlier_shape, refusal, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, cli, sources
from memory_plugin.installer.api import InstallResult
from memory_plugin.installer.connect import open_connection
from memory_plugin.installer.waiting import LOCK_KEY


@pytest.mark.parametrize("state", ["empty", "earlier"])
def test_twenty_installs_at_once_all_succeed_and_apply_each_migration_once(empty_database: str, state: str) -> None:
    if state == "earlier":
        make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    start = threading.Barrier(20)

    def boot(_: int) -> InstallResult:
        start.wait(timeout=30)
        return install(empty_database)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(boot, range(20)))

    done = sorted(name for result in results for name in (*result.applied, *result.adopted))
    assert done == [migration.name for migration in sources.load().migrations]
    assert rows(empty_database, "select name from memory_plugin.schema_migrations order by name") == [
        (n,) for n in done
    ]
    assert api.verify_store(settings_for(empty_database)).differences == ()


@contextmanager
def held(url: str, *statements: str) -> Iterator[psycopg.Connection]:
    """Keep a transaction open in which the statements have run."""
    with psycopg.connect(url, application_name="a slow report") as connection:
        for statement in statements:
            connection.execute(statement.encode())
        yield connection


@pytest.mark.parametrize(
    "command",
    ["install", "plan", "verify", "status", "export {file}", "import {input}", "uninstall", "uninstall --yes"],
)
def test_whoever_has_a_table_that_a_command_waits_for_in_vain_is_named(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("MEMORY_PLUGIN_LOCK_TIMEOUT", "1")
    given = tmp_path / "given.ndjson"
    given.write_text('{"type":"memory","namespace":"team:a","content":"tea","kind":"fact","source":"user"}\n')
    words = [word.format(file=tmp_path / "all.ndjson", input=given) for word in command.split()]
    with held(database, "lock table memory_plugin.memory_records in access exclusive mode") as reader:
        assert cli.run([*words, "--database-url", database]) == 18
        assert f" waited 1 s for pid {reader.info.backend_pid} (a slow report" in capsys.readouterr().err


@pytest.mark.servers("any")
def test_whoever_has_the_tables_that_are_to_be_adopted_is_named(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_PLUGIN_LOCK_TIMEOUT", "1")
    with connected(database) as connection:
        connection.execute("set search_path = public, memory_plugin")
        connection.execute((DATA / "earlier_shape.sql").read_bytes())
    with held(database, "lock table public.memory_records in access exclusive mode") as reader:
        assert cli.run(["adopt-public", "--database-url", database]) == 18
        assert f" waited 1 s for pid {reader.info.backend_pid} (a slow report" in capsys.readouterr().err


@pytest.mark.servers("any")
def test_a_rival_that_holds_the_lock_is_named_when_it_does_not_end(empty_database: str) -> None:
    with held(empty_database, f"select pg_advisory_xact_lock({LOCK_KEY})") as rival:
        error = refusal(empty_database, lock_timeout_s="0.3")
        assert error.exit_code == 18
        assert f"pid {rival.info.backend_pid} (a slow report" in error.message
        assert "pg_terminate_backend" in error.hint
    assert install(empty_database).applied


@pytest.mark.servers("any")
def test_a_migration_that_waits_for_a_table_gives_up_and_names_the_blocker(empty_database: str, tmp_path: Path) -> None:
    install(empty_database)
    (tmp_path / "001_more.up.sql").write_text("alter table memory_plugin.memory_records add column note text;")
    with held(empty_database, "select * from memory_plugin.memory_records") as reader:
        began = time.monotonic()
        error = refusal(empty_database, migrations_dir=str(tmp_path), lock_timeout_s="0.5")
        assert time.monotonic() - began < 5
        assert error.exit_code == 18
        assert f"extra/001_more waited 0.5 s for pid {reader.info.backend_pid} (a slow report" in error.message
        assert "idle in transaction" in error.message
    assert install(empty_database, migrations_dir=str(tmp_path)).applied == ("extra/001_more",)


@pytest.mark.servers("any")
@pytest.mark.parametrize("waits", ["a statement by itself", "an operator's migration", "sql/access.sql"])
def test_an_install_that_waits_for_a_table_keeps_nobody_else_waiting_long(
    empty_database: str, tmp_path: Path, waits: str
) -> None:
    if waits == "a statement by itself":
        make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    else:
        install(empty_database)
    if waits == "an operator's migration":
        (tmp_path / "001_more.up.sql").write_text("alter table memory_plugin.memory_records add column note text;")
    if waits == "sql/access.sql":
        with connected(empty_database) as connection:
            connection.execute("drop policy memory_plugin_owner on memory_plugin.memory_records")
    look = "select count(*) from memory_plugin.memory_records"
    looks = 0
    with ThreadPoolExecutor(1) as pool, connected(empty_database) as other:
        other.execute("set lock_timeout = '1s'")
        with held(empty_database, look):
            installing = pool.submit(install, empty_database, migrations_dir=str(tmp_path))
            until = time.monotonic() + 4
            while time.monotonic() < until:
                # Behind a lock that is waited for, this would wait as long.
                other.execute(look)
                looks += 1
            assert not installing.done()
        installing.result(timeout=60)
    assert looks > 10
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
def test_a_concurrent_index_that_waits_for_an_old_snapshot_gives_up_and_is_rebuilt_next_time(
    empty_database: str,
) -> None:
    make_earlier_shape(empty_database, tables="memory_plugin", vector="public")
    begin = "set transaction isolation level repeatable read"
    with held(empty_database, begin, "select * from memory_plugin.memory_records") as reader:
        error = refusal(empty_database, lock_timeout_s="0.5")
        assert error.exit_code == 18
        assert f"002_namespace_key waited 0.5 s for pid {reader.info.backend_pid} (a slow report" in error.message
        unfinished = "select c.relname from pg_index i join pg_class c on c.oid = indexrelid where not indisvalid"
        assert rows(empty_database, unfinished) == [("memory_records_namespace_id",)]
    said: list[str] = []
    result = api.install(settings_for(empty_database), said.append)
    assert "002_namespace_key" in result.applied
    assert "dropped the unfinished index memory_records_namespace_id" in said
    assert api.verify_store(settings_for(empty_database)).differences == ()


def database_name(url: str) -> str:
    """Return the database that a test's URL names."""
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


def timeouts(server: Server) -> list[str]:
    """Return the settings with which a database may end what takes long."""
    names = ["statement_timeout", "idle_in_transaction_session_timeout"]
    return [*names, "transaction_timeout"] if server.major >= 17 else names


def test_timeouts_that_a_database_sets_do_not_end_an_install(
    server: Server, empty_database: str, tmp_path: Path
) -> None:
    install(empty_database)
    for setting in timeouts(server):
        rows(empty_database, f"alter database {database_name(empty_database)} set {setting} = '150ms'")
    with connected(empty_database) as connection, pytest.raises(psycopg.Error, match="timeout"):
        connection.execute("select pg_sleep(10)")
    (tmp_path / "001_long.up.sql").write_text("select pg_sleep(0.4);")
    (tmp_path / "002_long.up.sql").write_text("-- memory-plugin: no-transaction\nselect pg_sleep(0.4);")
    assert install(empty_database, migrations_dir=str(tmp_path)).applied == ("extra/001_long", "extra/002_long")


@pytest.mark.servers("embedded18")  # transaction_timeout came with 17
@pytest.mark.parametrize("command", ["status", "plan", "verify"])
def test_timeouts_that_a_database_sets_do_not_end_a_look(server: Server, database: str, command: str) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        held(database, "lock table memory_plugin.memory_records in access exclusive mode"),
    ):
        for setting in timeouts(server):
            rows(database, f"alter database {database_name(database)} set {setting} = '150ms'")
        looking = pool.submit(cli.run, [command, "--database-url", database])
        time.sleep(0.6)
        assert not looking.done()
    assert looking.result(timeout=30) == 0


@pytest.mark.servers("any")
def test_what_an_earlier_boot_left_in_public_is_not_waited_for_long_and_stops_no_install(empty_database: str) -> None:
    make_earlier_shape(empty_database, tables="public", vector="public")
    with held(empty_database, "lock table public.memory_records in access exclusive mode"):
        result = install(empty_database, lock_timeout_s="0.2")
        (told,) = [warning for warning in result.warnings if "earlier boot" in warning]
        assert "public.memory_namespaces (2 rows) and public.memory_records (rows unknown)" in told
        assert ("memory_records", None) in api.status(settings_for(empty_database)).earlier_in_public
    assert ("memory_records", 3) in api.status(settings_for(empty_database)).earlier_in_public


@pytest.mark.servers("any")
def test_the_session_with_the_lock_is_missed_by_the_server_within_a_minute(
    server: Server, empty_database: str, tmp_path: Path
) -> None:
    url = server.url(database_name(empty_database), tcp=True)
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
    shown = ", ".join(f"current_setting('{name}') as {name}" for name in names)
    (tmp_path / "001_seen.up.sql").write_text(f"create table memory_plugin.seen as select {shown};")
    install(url, migrations_dir=str(tmp_path))
    assert rows(url, "select * from memory_plugin.seen") == [("30", "10", "3")]


@pytest.mark.servers("any")
@pytest.mark.parametrize(("given", "idle"), [("", 30), ("?keepalives_idle=7", 7)])
def test_the_server_is_missed_within_a_minute_unless_the_url_says_else(server: Server, given: str, idle: int) -> None:
    connection = open_connection(settings_for(server.url(tcp=True) + given), "test")
    with connection, socket.socket(fileno=os.dup(connection.fileno())) as wire:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [wire.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [idle, 10, 3]


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    "setting", ["default_transaction_read_only = on", "default_transaction_isolation = serializable"]
)
def test_transaction_defaults_of_a_database_do_not_hinder_an_install(empty_database: str, setting: str) -> None:
    rows(empty_database, f"alter database {database_name(empty_database)} set {setting}")
    assert install(empty_database).applied
    assert install(empty_database).applied == ()


@pytest.mark.servers("any")
def test_an_install_whose_session_is_ended_is_told_as_lost_and_the_next_one_finishes(
    server: Server, empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "001_long.up.sql").write_text("create table memory_plugin.half (id int); select pg_sleep(60);")
    end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and query like %s and pid <> %s"
    with ThreadPoolExecutor(1) as pool, server.connect() as connection:
        running = pool.submit(refusal, empty_database, migrations_dir=str(tmp_path))
        deadline = time.monotonic() + 30
        mine = connection.info.backend_pid
        name = database_name(empty_database)
        while not connection.execute(end, (name, "%pg_sleep(60)%", mine)).fetchall() and time.monotonic() < deadline:
            pass
        error = running.result(timeout=30)
    assert error.exit_code == 10
    assert "extra/001_long" in error.message
    assert rows(empty_database, "select to_regclass('memory_plugin.half')") == [(None,)]
    (tmp_path / "001_long.up.sql").write_text("create table memory_plugin.half (id int);")
    assert install(empty_database, migrations_dir=str(tmp_path)).applied == ("extra/001_long",)
