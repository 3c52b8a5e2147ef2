"""The gate of `memory-plugin boot`: what keeps it shut is told at once, and never opens it for somebody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from booting import SHOW, boot, here, sidecar_of
from fixtures.as_root import as_root
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, Sidecar, clean_env, wait_until
from http_sidecar import serving
from memory_plugin.installer import sidecar as bundled
from memory_plugin.installer.errors import BadSettingError, SidecarFailedError

ANY = pytest.mark.servers("any")
REQUIRED = {"MEMORY_PLUGIN_REQUIRED": "1"}
UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.fixture
def taken() -> Iterator[str]:
    """Return an address on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the reason of a boot that ran its command without memory."""
    assert (done.returncode, done.stdout) == (7, "url=[]\n"), done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if "WITHOUT MEMORY" in line]
    return warning


@ANY
def test_a_setting_that_the_sidecar_cannot_use_is_told_before_anything_is_installed(empty_database: str) -> None:
    bad = {"MEMORY_PLUGIN_POOL_SIZE": "99", "DATABASE_URL": empty_database, **here()}
    assert "MEMORY_PLUGIN_POOL_SIZE must be" in refused(boot(*SHOW, **bad))
    done = boot(*SHOW, **bad, **REQUIRED)
    assert (done.returncode, done.stdout) == (21, "")
    (line,) = done.stderr.splitlines()
    assert "MEMORY_PLUGIN_POOL_SIZE must be" in line


HIDDEN = "s3cretword"


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("DATABASE_URL", f"postgresql://u:{HIDDEN}\udce9@127.0.0.1:1/d", "not UTF-8"),
        ("MEMORY_PLUGIN_DATABASE_URL", f"host=127.0.0.1 password={HIDDEN}\udce9", "not UTF-8"),
        ("DATABASE_URL", f"postgresql://u:{HIDDEN}@a..b/d", "1 to 63 characters"),
        ("DATABASE_URL", f"postgresql://u:{HIDDEN}@{80 * 'a'}/d", "1 to 63 characters"),
        ("MEMORY_PLUGIN_LISTEN_ADDR", "a..b:9100", "no such host"),
        ("MEMORY_PLUGIN_LISTEN_ADDR", f"{80 * 'a'}:9100", "no such host"),
        ("MEMORY_PLUGIN_MIGRATIONS_DIR", "~nobody-of-this-name/x", "whose ~ is known"),
    ],
)
def test_a_setting_that_some_library_chokes_on_is_named_with_its_rule(variable: str, value: str, rule: str) -> None:
    environ = {"DATABASE_URL": f"postgresql://u:{HIDDEN}@127.0.0.1:1/d", **here(), variable: value}
    warning = refused(boot(*SHOW, **environ))
    assert variable in warning
    assert rule in warning
    assert HIDDEN not in warning


def test_a_plugin_elsewhere_by_a_name_that_is_no_text_is_left_alone() -> None:
    url = b"http://pl\xfcgin.example:9100"
    done = subprocess.run(
        [PROGRAM, "boot", "--", "sh", "-c", 'echo "$MEMORY_PLUGIN_URL"'],
        env={**{os.fsencode(key): os.fsencode(value) for key, value in clean_env().items()}, b"MEMORY_PLUGIN_URL": url},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, url + b"\n"), done.stderr


@as_root
def test_a_folder_of_migrations_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed" / "extra").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1000", PROGRAM, "boot", "--", *SHOW],
        env=clean_env(
            DATABASE_URL="postgresql://u@h/d", MEMORY_PLUGIN_MIGRATIONS_DIR=str(tmp_path / "closed" / "extra")
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "MEMORY_PLUGIN_MIGRATIONS_DIR must be a folder that can be read: permission denied" in refused(done)


@pytest.mark.parametrize("where", ["boot.decide", "sidecar.settings_of"])
def test_what_nobody_foresaw_keeps_only_a_required_memory_from_running_and_tells_no_password(where: str) -> None:
    program = (
        "import sys; sys.argv[0] = 'memory-plugin'; from memory_plugin.installer import cli, sidecar; "
        "from memory_plugin.installer.commands import boot\n"
        f"def fails(*_): raise ZeroDivisionError('of {HIDDEN}, all things')\n"
        f"{where} = fails; cli.main()"
    )
    for required in (False, True):
        done = subprocess.run(
            [PROGRAM.with_name("python"), "-c", program, "boot", "--", *SHOW],
            env=clean_env(
                DATABASE_URL=f"postgresql://u:{HIDDEN}@127.0.0.1:1/d", **here(), **(REQUIRED if required else {})
            ),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == ((1, "") if required else (7, "url=[]\n")), done.stderr
        assert "ZeroDivisionError: of ***, all things" in done.stderr
        assert HIDDEN not in done.stderr


@ANY
def test_an_address_that_is_taken_is_refused_and_named(empty_database: str, taken: str) -> None:
    where = {"MEMORY_PLUGIN_LISTEN_ADDR": taken, "DATABASE_URL": empty_database}
    assert f"cannot listen on {taken}: address already in use" in refused(boot(*SHOW, **where))
    done = boot(*SHOW, **where, **REQUIRED)
    assert (done.returncode, done.stdout) == (21, "")
    assert taken in done.stderr.splitlines()[-1]


def test_the_advice_about_an_address_fits_what_is_wrong_with_it(taken: str) -> None:
    unknown = "name an address of this machine with --listen or MEMORY_PLUGIN_LISTEN_ADDR"
    for address, reason, advice in (
        (taken, "address already in use", "stop what listens there, or choose another address with --listen or"),
        ("192.0.2.1:9100", "cannot assign requested address", unknown),
        ("pl\u00fcgin.invalid:9100", "", unknown),
        ("pl\udcfcgin:9100", "no such host", unknown),
        ("a..b:9100", "no such host", unknown),
        (f"{80 * 'a'}:9100", "no such host", unknown),
    ):
        with pytest.raises(BadSettingError) as refusal:
            bundled.refuse_taken(address)
        assert f"cannot listen on {address}: {reason}" in refusal.value.message
        assert advice in refusal.value.hint


@as_root
@pytest.mark.skipif(UNPRIVILEGED.exists() and UNPRIVILEGED.read_text() < "1", reason="every port is everybody's here")
def test_a_port_for_root_only_is_advised_against() -> None:
    # A user namespace makes root an ordinary user.
    done = subprocess.run(
        ["unshare", "--user", "--map-user=1000", PROGRAM, "boot", "--", *SHOW],
        env=clean_env(DATABASE_URL="postgresql://u@h/d", MEMORY_PLUGIN_LISTEN_ADDR="127.0.0.1:80"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "permission denied -- choose a port from 1024 on with --listen or" in refused(done)


@ANY
def test_the_command_never_gets_the_store_of_another_sidecar_on_the_address(
    new_empty_database: Callable[[], str], start_sidecar: Callable[..., Sidecar], database: str
) -> None:
    other = start_sidecar(database)
    address = other.base_url.removeprefix("http://")
    done = boot(*SHOW, DATABASE_URL=new_empty_database(), MEMORY_PLUGIN_LISTEN_ADDR=address, **REQUIRED)
    assert (done.returncode, done.stdout) == (21, "")


@ANY
def test_health_counts_only_where_it_names_the_boots_own_run(database: str, tmp_path: Path) -> None:
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_RUN_ID="ours") as running:
        assert bundled.is_healthy(running.base_url, "ours")
        with pytest.raises(SidecarFailedError, match="another service answers"):
            bundled.is_healthy(running.base_url, "theirs")
        assert "x-memory-plugin-run" not in running.client.get("/metrics").headers
    with serving(database, tmp_path / "log") as running:
        assert "x-memory-plugin-run" not in running.client.get("/v1/health").headers
        with pytest.raises(SidecarFailedError, match="another service answers"):
            bundled.is_healthy(running.base_url, "ours")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"])
def test_what_does_not_answer_200_is_not_healthy(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        asked = subprocess.Popen(
            [PROGRAM.with_name("python"), "-c", _ASK_HEALTH, f"http://{host}:{port}"], stdout=subprocess.PIPE, text=True
        )
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(said)
    assert asked.communicate(timeout=20)[0] == "False\n"


_ASK_HEALTH = (
    "import sys; from memory_plugin.installer.sidecar import is_healthy; print(is_healthy(sys.argv[1], 'ours'))"
)


@ANY
@pytest.mark.parametrize("required", [False, True])
def test_a_sidecar_that_dies_at_the_gate_ends_the_wait_with_its_status(empty_database: str, required: bool) -> None:
    process = subprocess.Popen(
        [PROGRAM, "boot", "--", *SHOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(DATABASE_URL=empty_database, **here(), **(REQUIRED if required else {})),
    )
    started: list[int] = []
    wait_until(lambda: started.extend(filter(None, [sidecar_of(process.pid)])) or started, "the sidecar", timeout=60)
    os.kill(started[0], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == ((26, "") if required else (7, "url=[]\n")), err
    assert "it ended with status 137" in err.splitlines()[-1]


@ANY
@pytest.mark.parametrize("required", [False, True])
def test_a_sidecar_that_cannot_even_be_started_is_a_failed_gate(empty_database: str, required: bool) -> None:
    program = (
        "import sys; sys.executable = '/nonexistent/python'; sys.argv[0] = 'memory-plugin'; "
        "from memory_plugin.installer.cli import main; main()"
    )
    done = subprocess.run(
        [PROGRAM.with_name("python"), "-c", program, "boot", "--", *SHOW],
        env=clean_env(DATABASE_URL=empty_database, **here(), **(REQUIRED if required else {})),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stdout) == ((26, "") if required else (7, "url=[]\n")), done.stderr
    assert "it cannot be started: no such file or directory" in done.stderr.splitlines()[-1]


@ANY
def test_a_signal_during_the_installation_cancels_its_statement_and_the_command_is_not_run(
    empty_database: str, tmp_path: Path
) -> None:
    (tmp_path / "100_slow.up.sql").write_text("select pg_sleep(600);")
    process = subprocess.Popen(
        [PROGRAM, "boot", "--", *SHOW],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env(DATABASE_URL=empty_database, MEMORY_PLUGIN_MIGRATIONS_DIR=str(tmp_path), **here()),
    )
    with psycopg.connect(empty_database, autocommit=True) as connection:

        def sleeping() -> bool:
            asleep = "select from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
            return connection.execute(asleep).fetchone() is not None

        wait_until(sleeping, "the migration", timeout=60)
        process.send_signal(signal.SIGTERM)
        # What orchestrators give before they kill.
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out) == (143, ""), err
        assert "WITHOUT MEMORY" not in err
        wait_until(lambda: not sleeping(), "the end of the statement")
        applied = connection.execute("select count(*) from memory_plugin.schema_migrations where name = '100_slow'")
        assert applied.fetchone() == (0,)


@ANY
def test_the_time_of_the_installation_is_not_the_sidecars(empty_database: str, tmp_path: Path) -> None:
    (tmp_path / "100_slow.up.sql").write_text("select pg_sleep(5);")
    done = boot(
        *SHOW,
        options=("--gate-seconds", "5"),
        DATABASE_URL=empty_database,
        MEMORY_PLUGIN_MIGRATIONS_DIR=str(tmp_path),
        **here(),
        **REQUIRED,
    )
    assert done.returncode == 7, done.stderr


SKIP = {"MEMORY_PLUGIN_SKIP_MIGRATE": "1"}
LONG = ("--gate-seconds", "600")
"""A gate that outlasts what a test gives a boot."""


@ANY
@pytest.mark.parametrize("earlier", ["", "create schema memory_plugin"])
def test_without_migrations_an_absent_store_is_told_at_once(empty_database: str, earlier: str) -> None:
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(earlier)
    done = boot(*SHOW, options=LONG, DATABASE_URL=empty_database, **here(), **SKIP, **REQUIRED)
    assert (done.returncode, done.stdout) == (23, "")
    last = done.stderr.splitlines()[-1]
    assert "holds no store" in last
    assert "MEMORY_PLUGIN_SKIP_MIGRATE" in last
    assert "holds no store" in refused(boot(*SHOW, options=LONG, DATABASE_URL=empty_database, **here(), **SKIP))


@ANY
def test_without_migrations_a_refused_login_keeps_its_code_and_its_one_advice(server: Server) -> None:
    done = boot(*SHOW, options=LONG, DATABASE_URL=server.url("absent"), **here(), **SKIP, **REQUIRED)
    assert (done.returncode, done.stdout) == (11, "")
    assert done.stderr.splitlines()[-1].count(" -- ") == 1


@ANY
def test_without_migrations_a_login_without_rights_is_told_which_are_enough(
    server: Server, database: str, new_role: Callable[..., str]
) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    role = new_role(password="right")
    url = server.url(name, user=role, password="right", tcp=True)
    done = boot(*SHOW, DATABASE_URL=url, **here(), **SKIP, **REQUIRED)
    assert (done.returncode, done.stdout) == (22, "")
    assert done.stderr.splitlines()[-1].endswith(f' -- have an administrator run: grant memory_plugin_api to "{role}"')


@ANY
def test_without_migrations_the_sidecars_own_rights_are_enough(
    server: Server, database: str, new_role: Callable[..., str]
) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    role = new_role(password="right")
    server.execute(f"grant memory_plugin_api to {role}")
    url = server.url(name, user=role, password="right", tcp=True)
    done = boot(*SHOW, DATABASE_URL=url, **here(), **SKIP, **REQUIRED)
    assert done.returncode == 7, done.stderr


@ANY
def test_a_store_that_is_locked_is_waited_for_and_then_named_as_such(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("lock table memory_plugin.memory_records")
        done = boot(*SHOW, options=("--gate-seconds", "4"), DATABASE_URL=database, **here(), **SKIP, **REQUIRED)
    assert (done.returncode, done.stdout) == (26, "")
    assert "lock on its tables" in done.stderr.splitlines()[-1]
