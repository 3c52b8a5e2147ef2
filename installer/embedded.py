"""The embedded PostgreSQL server: start it or find it running, use it, stop it when its last user leaves.

The data stays in DIR/pgdata (or in DIR, when DIR is a cluster already). The server listens on a unix socket in a folder
that only its own account can enter, and lets in that account and root (`peer`), nobody else and nothing over TCP. Three
locks, all freed by the kernel when a process dies: on DIR, while someone starts or stops the server; on PG_VERSION,
shared, held by every user, so that the last one can tell that it is the last; on base, held by the server's own
processes, so that no second server is started, even where the first cannot be seen, as from another container. A server
that has ended by itself is started again by those who keep it up.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

from memory_plugin.installer import cluster, cluster_lock, pgprograms
from memory_plugin.installer.cluster import PATIENT, Address, Patience
from memory_plugin.installer.errors import BadSettingError, EmbeddedServerError
from memory_plugin.installer.pgprograms import Account

DATABASE = "memory"
ROOT_STATE_DIR = Path("/var/lib/memory-plugin")
# Seconds between two looks whether the server runs; twice as many after each start that fails, up to MOST_PAUSE.
LOOK_EVERY = 1.0
MOST_PAUSE = 30.0
_ODD = re.compile(r'[$`"\\\x00-\x1f\x7f]')


class EmbeddedServer:
    """A running server; a context manager that gives it back at the end."""

    def __init__(self, data: Path, programs: Path, account: Account | None, address: Address, found: bool) -> None:
        """Take hold of a server that runs; use `start` to get one."""
        self.data_dir = data
        self.found_running = found
        self.address = address
        self._programs = programs
        self._account = account
        with cluster.connect(address, "postgres") as connection:
            (self.version,) = cluster.one(connection, "select split_part(current_setting('server_version'), ' ', 1)")
            (name,) = cluster.one(connection, "select current_setting('cluster_name')")
            self._ours = name == cluster.CLUSTER_NAME
        self._pid = cluster.process(data)
        self._user: int | None = os.open(data / "PG_VERSION", os.O_RDONLY)
        fcntl.flock(self._user, fcntl.LOCK_SH)

    @property
    def url(self) -> str:
        """Return the libpq URL of the database."""
        return cluster.url(self.address, DATABASE)

    @property
    def psql_line(self) -> str:
        """Return a shell line that opens the database in psql."""
        psql = "psql" if shutil.which("psql") else shlex.quote(str(self._programs / "bin" / "psql"))
        return f"{psql} {shlex.quote(self.url)}"

    def close(self) -> None:
        """Give the server back: the last user stops it, unless it was started by other means than ours."""
        if self._user is None:
            return
        user, self._user = self._user, None
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(
                    _starting_or_stopping(self.data_dir, Patience(sleep=_until(cluster.START_TIMEOUT_S)))
                )
            except TimeoutError:
                # Who holds it for so long waits for the server to come up, and will be its user.
                os.close(user)
                return
            except OSError:
                # The folder is gone; then there is nobody to agree with, and still a server to stop.
                pass
            stack.callback(os.close, user)
            try:
                fcntl.flock(user, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            there = _is_same(user, self.data_dir / "PG_VERSION")
            if self._ours:
                if there:
                    cluster.stop(self.data_dir, self.address)
                else:
                    cluster.end(self._pid, self.data_dir)
                    cluster.remove_socket_dir(self.address.socket_dir)
            if not there:
                raise EmbeddedServerError(
                    f"{self.data_dir} was removed or moved while it was served",
                    hint="if it was moved, move it back before the next start",
                )

    def start_again(self, patience: Patience = PATIENT) -> bool:
        """Start the server again, where it was, if it has ended; tell whether this did. Raises EmbeddedServerError."""
        if not self._ours:
            return False
        try:
            if not cluster.has_ended(self.data_dir):
                return False
            with _starting_or_stopping(self.data_dir, patience):
                user = self._user
                if user is None:
                    return False
                running = cluster.find_running(self.data_dir, patience)
                found = running is not None
                # A use of ours would keep it from telling a stale pid file.
                fcntl.flock(user, fcntl.LOCK_UN)
                try:
                    running = running or cluster.launch(
                        self.data_dir, self._programs, self._account, self.address, patience
                    )
                finally:
                    fcntl.flock(user, fcntl.LOCK_SH)
        except OSError as error:
            raise EmbeddedServerError(f"{error.strerror}: {error.filename or self.data_dir}") from error
        except psycopg.Error as error:
            raise EmbeddedServerError(str(error)) from error
        if running != self.address:
            raise EmbeddedServerError(
                f"another program has started it, in {running.socket_dir}", hint="start this anew"
            )
        self._pid = cluster.process(self.data_dir)
        return not found

    @contextlib.contextmanager
    def kept_up(self, report: Callable[[str], None]) -> Iterator[None]:
        """Start the server again whenever it has ended, with one line each time, until the block ends."""
        leaving = threading.Event()

        def tell(line: str) -> None:
            # Nobody may read the log any more.
            with contextlib.suppress(OSError, ValueError):
                report(line)

        def sleep(seconds: float) -> None:
            if leaving.wait(seconds):
                raise EmbeddedServerError("it is not waited for any more")

        def watch() -> None:
            pause = LOOK_EVERY
            while not leaving.wait(pause):
                try:
                    if self.start_again(Patience(tell, sleep)):
                        tell("PostgreSQL had ended, and was started again")
                    pause = LOOK_EVERY
                except EmbeddedServerError as error:
                    if leaving.is_set():
                        return
                    pause = min(pause * 2, MOST_PAUSE)
                    why = f"{error.detail} -- {error.hint}"
                    tell(f"WARNING: PostgreSQL has ended, and is tried again in {pause:g} s: {why}")

        watching = threading.Thread(target=watch, name="embedded-watch", daemon=True)
        watching.start()
        try:
            yield
        finally:
            leaving.set()
            watching.join()

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(
    data_dir: Path | None = None,
    version: int | None = None,
    *,
    state_dir: Path = ROOT_STATE_DIR,
    report: Callable[[str], None] = PATIENT.report,
) -> EmbeddedServer:
    """Start the server of a data folder, or find it running, and see that the database is there.

    Data that is there decides the version; fresh data gets `version`, 18 if none is named. `state_dir` is where root
    keeps a copy of the programs when it needs one. Raises EmbeddedServerError (exit 24), or BadSettingError (exit 21)
    for a path that cannot be used; nothing is changed then, or when the account for the server cannot enter the folder.
    Recovery is waited for however long it takes, with a line to `report` now and then.
    """
    if sys.platform == "win32":
        raise EmbeddedServerError("it runs on Linux and macOS", hint="give a server of your own with --database-url")
    folder = _folder(data_dir)
    try:
        # Where a link leads: the server names that itself, and everybody takes the same locks.
        data = folder if (folder / "PG_VERSION").exists() else _folder(folder / "pgdata")
        _refuse_odd(data)
        account = pgprograms.account_for(data)
        pgprograms.refuse_closed(account, folder)
        major = _version(data, version)
        programs = pgprograms.reachable(major, account, state_dir)
        pgprograms.make_folder(folder, 0o700 if account is None else 0o755)
        patience = Patience(report)
        with _starting_or_stopping(data, patience):
            if not (data / "PG_VERSION").exists():
                cluster.initialise(data, programs, account, major)
            running = cluster.find_running(data, patience)
            try:
                address = running or cluster.launch(data, programs, account, patience=patience)
                _ensure_database(address)
                return EmbeddedServer(data, programs, account, address, found=running is not None)
            except BaseException:
                # Also when told to end just now: what was started here is not left behind.
                if running is None:
                    cluster.stop(data)
                raise
    except OSError as error:
        raise EmbeddedServerError(f"{error.strerror}: {error.filename or folder}") from error
    except psycopg.Error as error:
        raise EmbeddedServerError(str(error)) from error


def default_data_dir() -> Path:
    """Return where data is kept when nobody says otherwise."""
    if os.geteuid() == 0:
        return ROOT_STATE_DIR
    home = os.environ.get("XDG_DATA_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local" / "share") / "memory-plugin"


def _folder(data_dir: Path | None) -> Path:
    """Return the folder with its links and ~ followed."""
    try:
        return (data_dir or default_data_dir()).expanduser().resolve()
    # A user without a home, or links that go in circles.
    except (RuntimeError, OSError) as error:
        where = f"--data-dir {str(data_dir)!a}" if data_dir else "the default of --data-dir"
        raise BadSettingError(f"{where} is no folder: {error}", hint="give --data-dir the path of a folder") from None


def _refuse_odd(data: Path) -> None:
    """Raise BadSettingError for a path that pg_ctl, which puts it in double quotes for a shell, would not hand on."""
    try:
        text = os.fsencode(data).decode()
    except UnicodeDecodeError:
        text = ""
    if not text or _ODD.search(text):
        raise BadSettingError(
            f'--data-dir must be a path in UTF-8 without $, `, ", \\ and control characters, not {str(data)!a}',
            hint="choose another --data-dir",
        )


def _version(data: Path, wanted: int | None) -> int:
    """Return the major version of the data that is there, else the one wanted."""
    try:
        text = (data / "PG_VERSION").read_text(errors="replace").strip()
    except FileNotFoundError:
        return wanted or pgprograms.DEFAULT_VERSION
    if text not in map(str, pgprograms.VERSIONS):
        raise EmbeddedServerError(
            f"{data} holds data of PostgreSQL {text[:20]!r}",
            hint=f"the embedded versions are {', '.join(map(str, pgprograms.VERSIONS))}; choose another --data-dir",
        )
    return int(text)


def _until(seconds: float) -> Callable[[float], None]:
    """Return what sleeps, until so many seconds have passed from now; then it raises TimeoutError."""
    deadline = time.monotonic() + seconds

    def sleep(pause: float) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(pause)

    return sleep


def _is_same(handle: int, path: Path) -> bool:
    """Tell whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


@contextlib.contextmanager
def _starting_or_stopping(data: Path, patience: Patience) -> Iterator[None]:
    """Hold the lock that lets one process at a time start or stop the server."""
    # Not the cluster's own folder where that is ours to make: it does not exist before the first start.
    handle = os.open(data.parent if data.name == "pgdata" else data, os.O_RDONLY)
    try:
        waiting = cluster.Waiting(patience)
        cluster_lock.take(
            handle, lambda: waiting.go_on(0.05, "waiting for another process, which starts or stops PostgreSQL")
        )
        yield
    finally:
        # Said, since a process that was forked meanwhile has the handle too.
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _ensure_database(address: Address) -> None:
    """Create the database if it is not there."""
    with cluster.connect(address, "postgres") as connection:
        if connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
