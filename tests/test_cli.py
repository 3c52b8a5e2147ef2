"""The command line: every command says what it does, prints JSON where it prints facts, and fails in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.installing import connected, rows
from fixtures.sidecars import PROGRAM, clean_env, wait_until
from memory_plugin import __version__
from memory_plugin.installer import cli, options
from memory_plugin.installer.commands import status as status_command


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "DATABASE_URL",
        "MEMORY_PLUGIN_DATABASE_URL",
        "MEMORY_PLUGIN_SKIP_MIGRATE",
        "MEMORY_PLUGIN_MIGRATIONS_DIR",
    ):
        monkeypatch.delenv(name, raising=False)


def test_the_console_script_tells_its_version() -> None:
    script = Path(sys.executable).with_name("memory-plugin")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"memory-plugin {__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    printed = capsys.readouterr().out
    for name in cli.COMMANDS:
        assert f"\n  {name} " in printed


@pytest.mark.parametrize("arguments", [[], ["embedding"]])
def test_without_a_command_the_help_is_printed_as_it_is(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*arguments, "--help"]) == 0
    shown = capsys.readouterr().out
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", shown)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"Usage: memory-plugin {name}" in printed
    assert "Example" in printed
    assert f"  memory-plugin {name}" in printed.partition("Example")[2]


def test_the_commands_folder_holds_the_commands_and_nothing_else() -> None:
    files = {path.stem for path in Path(status_command.__file__).parent.glob("*.py")} - {"__init__"}
    assert {stem.rstrip("_").replace("_", "-") for stem in files} == set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["status", "--nonsense"], 2, "No such option"),
        (["install", "--plpython", "maybe"], 2, "'maybe' is not one of"),
        (["status"], 21, "neither MEMORY_PLUGIN_DATABASE_URL nor DATABASE_URL is set"),
        (["install", "--database-url", "mysql://x"], 21, "postgresql://"),
        (["install", "--database-url", "postgresql:///x", "--dimensions", "4001"], 21, "1 to 4000"),
        (["install", "--database-url", "postgresql:///x", "--migrations-dir", "/nowhere"], 21, "folder that exists"),
        (["plan", "--database-url", "postgresql://u:hush@127.0.0.1:1/x"], 10, "No Postgres server answers"),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("memory-plugin: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err
    assert "hush" not in printed.err


def test_an_unexpected_failure_is_one_line_and_with_verbose_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(options, "settings", fails)
    assert cli.run(["status"]) == 1
    printed = capsys.readouterr().err
    assert "ZeroDivisionError: of all things" in printed
    assert "Traceback" not in printed
    assert cli.run(["status", "--verbose"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("arguments", "code"), [(["render", "001"], 0), (["status"], 0), (["verify"], 1), (["uninstall", "--yes"], 1)]
)
def test_a_reader_that_has_gone_ends_a_listing_and_is_told_of_anything_else(
    database: str, arguments: list[str], code: int
) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
    with open(write, "wb") as gone:
        done = subprocess.run(
            [PROGRAM, *arguments], env=environment, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=60
        )
    said = "memory-plugin: Output could not be written: the reader of what this prints has gone before its end -- "
    assert (done.returncode, done.stderr.count("\n")) == (code, code)
    assert done.stderr.startswith(said if code else "")
    assert rows(database, "select to_regnamespace('memory_plugin') is null") == [(False,)]


@pytest.mark.servers("any")
def test_a_database_is_installed_looked_at_and_verified(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)

    def facts(*arguments: str) -> dict[str, Any]:
        assert cli.run([*arguments, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert isinstance(found, dict)
        return found

    before = facts("status")
    assert (before["state"], before["ledger"]) == ("absent", None)
    assert [step["name"] for step in facts("plan")["run"]][:1] == ["000_schema_bootstrap"]
    assert facts("install")["dimensions"] == 1536
    after = facts("status")
    assert (after["state"], after["pending"], after["problem"]) == ("installed", [], None)
    assert facts("verify")["ok"] is True
    for name in ("status", "plan", "verify", "install"):
        assert cli.run([name]) == 0
        printed = capsys.readouterr().out
        assert printed
        assert "\x1b[" not in printed


@pytest.mark.servers("any")
def test_verify_exits_23_and_says_what_differs_in_both_forms(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows(database, "drop function memory_plugin.v1_health()")
    assert cli.run(["verify", "--database-url", database]) == 23
    printed = capsys.readouterr()
    assert "differs: function v1_health is missing" in printed.out
    assert "function v1_health is missing" in printed.err
    assert cli.run(["verify", "--database-url", database, "--json"]) == 23
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert found["differences"] == ["function v1_health is missing"]


@pytest.mark.servers("any")
def test_status_tells_what_install_would_refuse_and_does_not_fail(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(database, "insert into memory_plugin.schema_migrations values ('999_future', 'x', '9.9.9')")
    assert cli.run(["status", "--database-url", database, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["state"], found["problem"]["exit_code"]) == ("refused", 17)
    assert cli.run(["status", "--database-url", database]) == 0
    assert "999_future, applied by memory-plugin 9.9.9" in capsys.readouterr().out
    assert cli.run(["plan", "--database-url", database]) == 17


@pytest.mark.servers("any")
def test_skip_migrate_makes_install_do_nothing_and_succeed(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMORY_PLUGIN_SKIP_MIGRATE", "1")
    assert cli.run(["install", "--database-url", empty_database]) == 0
    assert capsys.readouterr().out == "skipped: MEMORY_PLUGIN_SKIP_MIGRATE is set\n"
    assert rows(empty_database, "select to_regnamespace('memory_plugin')") == [(None,)]


@pytest.mark.servers("any")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("arguments", [["install"], ["verify"], ["uninstall", "--yes"]], ids=lambda words: words[0])
def test_a_signal_to_end_cancels_what_waits_in_the_database_and_says_so(
    database: str, arguments: list[str], number: signal.Signals
) -> None:
    ours = "from pg_stat_activity where datname = current_database() and application_name like 'memory-plugin %'"
    with psycopg.connect(database) as locking, connected(database) as looking:
        locking.execute("lock table memory_plugin.schema_migrations, memory_plugin.memory_records")
        command = [str(PROGRAM), *arguments, "--database-url", database]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            waiting = f"select {ours} and wait_event_type = 'Lock'".encode()
            wait_until(lambda: looking.execute(waiting).fetchall(), "a wait for the lock")
            process.send_signal(number)
            _, said = process.communicate(timeout=20)
        assert process.returncode == 128 + number
        assert said.splitlines()[-1].startswith(f"memory-plugin: ended by {number.name}; ")
        assert "\n\n" not in f"\n{said}"
        wait_until(lambda: not looking.execute(f"select {ours}".encode()).fetchall(), "the end of its connections")


@pytest.mark.servers("any")
def test_a_hangup_that_nohup_ignores_ends_no_command(database: str) -> None:
    with psycopg.connect(database) as locking, connected(database) as looking:
        locking.execute("lock table memory_plugin.schema_migrations")
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            command = [str(PROGRAM), "verify", "--database-url", database]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        finally:
            signal.signal(signal.SIGHUP, before)
        waiting = b"select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        wait_until(lambda: looking.execute(waiting).fetchall(), "a wait for the lock")
        process.send_signal(signal.SIGHUP)
        locking.rollback()
        assert process.wait(30) == 0
