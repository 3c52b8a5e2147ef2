"""`memory-plugin boot`: each row of the table in docs/operations.md, and life as an entrypoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from booting import ASK, SHOW, boot, children, here, sidecar_of
from fixtures.as_root import as_root
from fixtures.cluster import free_port
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, clean_env, wait_until

DATABASE = "postgresql://u@h/d"


@pytest.mark.parametrize("port", ["0", "99999", "x"])
def test_a_loopback_url_with_a_port_that_there_is_not_is_a_bad_setting(port: str) -> None:
    url = f"http://127.0.0.1:{port}"
    done = boot(*SHOW, DATABASE_URL=DATABASE, MEMORY_PLUGIN_URL=url, MEMORY_PLUGIN_REQUIRED="1")
    assert (done.returncode, done.stdout) == (21, "")
    assert "MEMORY_PLUGIN_URL must have a port" in done.stderr.splitlines()[-1]


def test_an_external_plugin_is_left_alone_even_when_disabled() -> None:
    url = "http://memory.internal:9100"
    for extra in ({}, {"MEMORY_PLUGIN_DISABLE": "1"}):
        done = boot(*SHOW, MEMORY_PLUGIN_URL=url, DATABASE_URL="postgresql://nobody@127.0.0.1:1/x", **extra)
        assert (done.returncode, done.stdout) == (7, f"url=[{url}]\n")


def test_disabled_or_without_a_database_the_command_runs_without_a_url() -> None:
    disabled = boot(*SHOW, MEMORY_PLUGIN_DISABLE="1", MEMORY_PLUGIN_URL="http://127.0.0.1:9100", DATABASE_URL=DATABASE)
    assert (disabled.returncode, disabled.stdout) == (7, "url=[]\n")
    assert "MEMORY_PLUGIN_DISABLE" in disabled.stderr
    bare = boot(*SHOW)
    assert (bare.returncode, bare.stdout) == (7, "url=[]\n")
    assert "DATABASE_URL" in bare.stderr


def test_the_command_runs_with_a_served_store_behind_its_url(empty_database: str) -> None:
    done = boot(*ASK, DATABASE_URL=empty_database, **here())
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


@pytest.mark.servers("any")
def test_a_fresh_store_gets_the_dimensions_that_the_boot_names(empty_database: str) -> None:
    done = boot(*ASK, options=("--dimensions", "384"), DATABASE_URL=empty_database, **here())
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
    refused = boot(
        *SHOW, DATABASE_URL=empty_database, MEMORY_PLUGIN_DIMENSIONS="768", MEMORY_PLUGIN_REQUIRED="1", **here()
    )
    assert refused.returncode == 20
    assert "384" in refused.stderr.splitlines()[-1]


@pytest.mark.servers("any")
def test_a_loopback_url_says_where_the_bundled_sidecar_listens(empty_database: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = boot(*SHOW, DATABASE_URL=empty_database, MEMORY_PLUGIN_URL=url)
    assert (done.returncode, done.stdout) == (7, f"url=[{url}]\n"), done.stderr


DSN = (str(PROGRAM), "dsn", "--show-password")


@pytest.mark.servers("any")
def test_the_database_is_the_explicit_one_as_given(server: Server, empty_database: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    explicit = server.url(name, tcp=True)
    other = "postgresql://nobody@127.0.0.1:1/x"
    done = boot(*DSN, DATABASE_URL=other, MEMORY_PLUGIN_DATABASE_URL=explicit, MEMORY_PLUGIN_REQUIRED="1", **here())
    assert (done.returncode, done.stdout) == (0, f"{explicit}\n"), done.stderr
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select to_regclass('memory_plugin.memory_records') is not null").fetchone() == (
            True,
        )


@pytest.mark.servers("any")
def test_the_database_is_else_derived_with_the_search_path(server: Server, empty_database: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    done = boot(*DSN, DATABASE_URL=server.url(name, tcp=True), **here(), MEMORY_PLUGIN_REQUIRED="1")
    assert done.returncode == 0, done.stderr
    with psycopg.connect(done.stdout.strip()) as connection:
        assert connection.execute("show search_path").fetchone() == ("memory_plugin,public",)
        assert connection.execute("select current_database()").fetchone() == (name,)
        assert connection.execute("select 'memory_records'::regclass::text").fetchone() == ("memory_records",)


FAULTS = {
    "password": ("password", 11),
    "database": ("does not exist", 11),
    "privilege": ("privilege", 22),
    "newer": ("newer", 17),
    "migration": ("100_broken", 19),
}


@pytest.fixture(params=sorted(FAULTS))
def broken(
    request: pytest.FixtureRequest, server: Server, empty_database: str, new_role: object, tmp_path: Path
) -> tuple[dict[str, str], str, int]:
    """Return an environment that cannot be booted, a word of the reason, and its exit code."""
    word, code = FAULTS[request.param]
    name = str(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"])
    if request.param == "database":
        return {"DATABASE_URL": server.url(f"{name}_absent")}, word, code
    if request.param == "password":
        role = new_role(password="right")  # type: ignore[operator]
        return {"DATABASE_URL": server.url(name, user=role, password="wrong", tcp=True)}, word, code
    if request.param == "privilege":
        role = new_role(password="right")  # type: ignore[operator]
        return {"DATABASE_URL": server.url(name, user=role, password="right")}, word, code
    if request.param == "migration":
        (tmp_path / "100_broken.up.sql").write_text("select from no_such_table;")
        return {"DATABASE_URL": empty_database, "MEMORY_PLUGIN_MIGRATIONS_DIR": str(tmp_path)}, word, code
    from memory_plugin.installer import api, settings

    api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": empty_database}))
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(
            "insert into memory_plugin.schema_migrations (name, sha256, program_version) "
            "values ('999_later', 'x', '9.9')"
        )
    return {"DATABASE_URL": empty_database}, word, code


@pytest.mark.servers("any")
def test_a_known_bad_server_is_reported_at_once_and_the_command_runs_without_memory(
    broken: tuple[dict[str, str], str, int],
) -> None:
    environ, word, _ = broken
    # A wait for this gate would outlast what the boot is given here.
    done = boot(*SHOW, options=("--gate-seconds", "600"), **environ, **here())
    assert (done.returncode, done.stdout) == (7, "url=[]\n")
    (warning,) = [line for line in done.stderr.splitlines() if "WITHOUT MEMORY" in line]
    assert word in warning


@pytest.mark.servers("any")
@pytest.mark.parametrize("switch", [{"MEMORY_PLUGIN_REQUIRED": "1"}, {"MEMORY_V2_CUTOVER": "true"}])
def test_a_required_memory_that_fails_stops_the_boot_with_the_reason(
    broken: tuple[dict[str, str], str, int], switch: dict[str, str]
) -> None:
    environ, word, code = broken
    done = boot(*SHOW, **environ, **here(), **switch)
    assert (done.returncode, done.stdout) == (code, "")
    assert word in done.stderr.splitlines()[-1]


@pytest.mark.servers("embedded18")  # extension_control_path came with 18
def test_a_server_without_pgvector_is_told_with_the_package_it_lacks(server: Server, empty_database: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"]
    server.execute(f"alter database {name} set extension_control_path = '/nowhere'")
    done = boot(*SHOW, DATABASE_URL=empty_database, **here())
    assert (done.returncode, done.stdout) == (7, "url=[]\n")
    (warning,) = [line for line in done.stderr.splitlines() if "WITHOUT MEMORY" in line]
    assert "postgresql-18-pgvector" in warning
    done = boot(*SHOW, DATABASE_URL=empty_database, MEMORY_PLUGIN_REQUIRED="1", **here())
    assert (done.returncode, done.stdout) == (12, "")
    assert "postgresql-18-pgvector" in done.stderr.splitlines()[-1]


def test_a_server_that_never_answers_is_named_as_unreachable() -> None:
    done = boot(
        *SHOW,
        options=("--gate-seconds", "2"),
        DATABASE_URL=f"postgresql://u@127.0.0.1:{free_port()}/d",
        MEMORY_PLUGIN_REQUIRED="1",
    )
    assert (done.returncode, done.stdout) == (10, "")
    assert "No Postgres server answers" in done.stderr.splitlines()[-1]


@pytest.mark.servers("any")
def test_a_server_that_comes_up_within_the_gate_is_waited_for(private_server: Server) -> None:
    private_server.stop()
    process = subprocess.Popen(
        [PROGRAM, "boot", "--", *ASK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(DATABASE_URL=private_server.url("postgres"), **here()),
    )
    private_server.start()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "200\n"), err


def test_a_command_that_is_not_there_is_127() -> None:
    done = boot("/no/such/program", MEMORY_PLUGIN_DISABLE="1")
    assert done.returncode == 127
    assert "not found" in done.stderr


def test_an_option_of_the_command_is_the_commands() -> None:
    done = boot("sh", "-c", 'echo "$@"', "sh", "--verbose", "--help", MEMORY_PLUGIN_DISABLE="1")
    assert (done.returncode, done.stdout) == (0, "--verbose --help\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command_and_its_status_comes_back(tmp_path: Path, number: int) -> None:
    script = (
        "import signal, sys, time; [signal.signal(n, lambda n, f: sys.exit(n)) for n in (15, 1, 10)]; "
        "print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [PROGRAM, "boot", "--", sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=clean_env(MEMORY_PLUGIN_DISABLE="1"),
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "up\n"
        process.send_signal(number)
        assert process.wait(20) == number


def test_a_hangup_that_nohup_ignores_reaches_neither_the_boot_nor_the_command() -> None:
    script = "import signal, sys; print(signal.getsignal(1) == signal.SIG_IGN, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        ["nohup", PROGRAM, "boot", "--", sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(MEMORY_PLUGIN_DISABLE="1"),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_command_killed_by_a_signal_is_128_and_its_number() -> None:
    assert boot("sh", "-c", "kill -KILL $$", MEMORY_PLUGIN_DISABLE="1").returncode == 137


@pytest.mark.servers("any")
def test_a_sidecar_that_is_killed_is_started_again_while_the_command_runs_on(
    empty_database: str, tmp_path: Path
) -> None:
    address = here()
    base = f"http://{address['MEMORY_PLUGIN_LISTEN_ADDR']}"
    import httpx

    def healthy() -> bool:
        try:
            return httpx.get(f"{base}/v1/health", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "boot", "--", "sleep", "120"],
            stdout=log,
            stderr=log,
            env=clean_env(DATABASE_URL=empty_database, MEMORY_PLUGIN_LOG="json", **address),
        )
    try:
        wait_until(healthy, "the sidecar")
        wait_until(lambda: any(line.startswith("sleep") for line in children(process.pid).values()), "the command")
        first = sidecar_of(process.pid)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: sidecar_of(process.pid) not in (None, first) and healthy(), "the second sidecar")
        second = sidecar_of(process.pid)
        assert second is not None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
        assert not Path(f"/proc/{second}").exists()
        lines = map(json.loads, (tmp_path / "log").read_text().splitlines())
        (died,) = (line for line in lines if "ended with status 137" in line.get("message", ""))
        assert (died["event"], died["level"]) == ("boot", "warning")
    finally:
        process.kill()
        process.wait()


@pytest.mark.servers("any")
def test_the_sidecar_of_a_boot_that_was_killed_leaves_the_address_to_the_next_one(
    database: str, tmp_path: Path
) -> None:
    environ = {"DATABASE_URL": database, "MEMORY_PLUGIN_SKIP_MIGRATE": "1", "MEMORY_PLUGIN_REQUIRED": "1", **here()}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "boot", "--", "sleep", "120"], stderr=log, env=clean_env(**environ))
    commands: list[int] = []
    try:
        wait_until(
            lambda: (
                commands.extend(pid for pid, line in children(process.pid).items() if line.startswith("sleep"))
                or commands
            ),
            "the command",
            timeout=60,
        )
        process.kill()
        done = boot(*ASK, **environ)
        assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
        assert "parent_gone" in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
        for command in commands:
            os.kill(command, signal.SIGKILL)


def test_a_user_who_is_not_root_boots(server: Server, empty_database: str) -> None:
    # A user namespace makes root an ordinary user without taking its files away.
    ordinary = [] if os.geteuid() else ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--pid", "--fork"]
    ask = (*ASK[:2], f"import os; print('user', os.geteuid()); {ASK[2]}")
    done = subprocess.run(
        [*ordinary, PROGRAM, "boot", "--", *ask],
        # The server's socket stands in a folder that not everybody may enter.
        env=clean_env(
            DATABASE_URL=server.url(psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"], tcp=True), **here()
        ),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    user, status = done.stdout.splitlines()[-2:]
    assert user.startswith("user ")
    assert user != "user 0"
    assert status == "200"


# Only root may open a PID namespace.
@as_root
def test_as_pid_1_orphans_are_reaped() -> None:
    # The shell leaves an orphan that ends at once; as PID 1 the boot inherits it.
    script = "(sh -c 'exit 3' & exec sleep 0.2) & sleep 1; ps -eo stat= | grep -c '^Z' || true"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", PROGRAM, "boot", "--", "sh", "-c", script],
        env=clean_env(MEMORY_PLUGIN_DISABLE="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"
