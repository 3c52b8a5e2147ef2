"""One PostgreSQL cluster on disk: make it, find it running, launch it, stop it. The caller holds the lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg

from memory_plugin.installer import cluster_lock, pgprograms
from memory_plugin.installer.errors import EmbeddedServerError, one_line
from memory_plugin.installer.pgprograms import Account

if TYPE_CHECKING:
    from typing_extensions import LiteralString

SUPERUSER = "postgres"
PORT = 5432
LOG = "server.log"
# The name says who started a server: one that somebody else started is never stopped.
CLUSTER_NAME = "memory-plugin"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# How long pg_ctl waits before we do, who can say so.
PG_CTL_TIMEOUT_S = 10
TELL_EVERY_S = 10
# sun_path holds 107 bytes on Linux and 103 on macOS.
_LONGEST_SOCKET = 103
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./+ -]*")
_NUMBER = re.compile(r"[0-9]{1,9}")
_STARTING = re.compile(r"starting up|in recovery mode|not yet accepting")
_SOCKET_PREFIX = "memory-plugin-socket-"
_LOG_BYTES_KEPT = 10_000_000


@dataclass(frozen=True)
class Address:
    """Where a server listens: its socket's folder and the port that names the socket."""

    socket_dir: Path
    port: int


@dataclass(frozen=True)
class Patience:
    """How to wait for a server that takes long: whom to tell now and then, and how to sleep, which may raise."""

    report: Callable[[str], None] = lambda line: None
    sleep: Callable[[float], object] = time.sleep


PATIENT = Patience()


class Waiting:
    """One wait, from now on."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._tell = time.monotonic() + TELL_EVERY_S

    def go_on(self, pause: float, line: str) -> None:
        """Sleep for a pause; say the line where nothing was said for long."""
        if time.monotonic() > self._tell:
            self._patience.report(line)
            self._tell = time.monotonic() + TELL_EVERY_S
        self._patience.sleep(pause)


def initialise(cluster: Path, programs: Path, account: Account | None, version: int) -> None:
    """Make the cluster; it appears under its name when it is complete."""
    if cluster.exists() and (cluster.is_mount() or any(cluster.iterdir())):
        # A volume's own lost+found, for instance; what is made beside it could not take its name.
        raise EmbeddedServerError(
            f"{cluster} is a volume of its own, or not empty, and holds no PostgreSQL data (no PG_VERSION)",
            hint="move away what it holds, mount a volume on the folder above, or choose another --data-dir",
        )
    fresh = cluster.with_name("pgdata.new")
    # Left by a start that was killed half-way; it never held data.
    shutil.rmtree(fresh, ignore_errors=True)
    for locale in ("C.UTF-8", "en_US.UTF-8", "C"):
        fresh.mkdir(mode=0o700)
        if account is not None:
            os.chown(fresh, account.uid, account.gid)
        command: list[str | Path] = [programs / "bin" / "initdb", "-D", fresh, f"--username={SUPERUSER}"]
        command += ["--encoding=UTF8", "--data-checksums"]
        # Text search tells words apart and lower-cases them by the C library's ctype, whatever the collation.
        command += ["--locale=C", f"--lc-ctype={locale}", "--auth=reject", "--auth-local=peer"]
        if version >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        status, printed = pgprograms.run(account, command, fresh)
        if status == 0:
            break
        shutil.rmtree(fresh, ignore_errors=True)
        # It names the locales it uses in any case.
        if "invalid locale" not in printed:
            break
    if status:
        hint = "mend what it names, or give a server of your own with --database-url"
        raise EmbeddedServerError(f"initdb failed: {printed.strip()[-500:]}", hint=hint)
    names = {"root", account.name if account else pwd.getpwuid(os.geteuid()).pw_name}
    (fresh / "pg_hba.conf").write_text(
        "# The account that runs the server, and root.\nlocal all all peer map=embedded\n"
    )
    (fresh / "pg_ident.conf").write_text("".join(f'embedded "{name}" all\n' for name in sorted(names)))
    fresh.rename(cluster)


def has_ended(cluster: Path) -> bool:
    """Tell whether the server of the cluster is gone; one that starts or stops is not."""
    pid, _ = _listed(cluster)
    with contextlib.suppress(ChildProcessError):
        # As PID 1 it is for us to say that nobody asks for its status; until then its number is taken.
        if pid and os.getpid() == 1:
            os.waitpid(pid, os.WNOHANG)
    return not _runs(pid, cluster)


def find_running(cluster: Path, patience: Patience = PATIENT, hint: str = "") -> Address | None:
    """Return where the server answers, waiting while it starts or recovers; None when it does not run.

    One that says that it starts or recovers is waited for however long it takes, one that says nothing has a bound.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    waiting = Waiting(patience)
    pause = 0.1
    while (cluster / "postmaster.pid").exists():
        pid, address = _listed(cluster)
        reason = "it has not opened its socket"
        if address is not None:
            try:
                with connect(address, "postgres") as connection:
                    (directory,) = one(connection, "select current_setting('data_directory')")
                if Path(directory).resolve() == cluster:
                    return address
                reason = f"another server, of {directory}, answers in its place"
            except psycopg.OperationalError as error:
                # Without the socket, which says nothing to those who wait.
                reason = one_line(str(error).rpartition("FATAL:")[2])
                if _STARTING.search(reason):
                    deadline = time.monotonic() + START_TIMEOUT_S
        if not _runs(pid, cluster):
            break
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"process {pid} serves {cluster} and cannot be reached: {reason}", hint=hint or f"kill {pid}"
            )
        waiting.go_on(pause, f"waiting for PostgreSQL: {reason}")
        # Each question is a line in the server's log.
        pause = min(pause * 1.2, 1.0)
    return None


def _listed(cluster: Path) -> tuple[int, Address | None]:
    """Return what the pid file says: the server's process and, once it has come that far, where it listens."""
    try:
        lines = (cluster / "postmaster.pid").read_text("utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        lines = []
    pid = int(lines[0]) if lines and _NUMBER.fullmatch(lines[0]) else 0
    if len(lines) > 4 and _NUMBER.fullmatch(lines[3]) and lines[4].startswith("/"):
        return pid, Address(Path(lines[4]), int(lines[3]))
    return pid, None


def _runs(pid: int, cluster: Path) -> bool:
    """Tell whether a process is the server of this cluster, not another one that was given its number since."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return False
        shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False).stdout
        words = shown.strip().split(b" -", maxsplit=1)
    return words[0].endswith(b"/postgres") and any(os.fsencode(cluster) in word for word in words[1:])


def process(cluster: Path) -> int:
    """Return the number of the server's process, 0 when there is none."""
    return _listed(cluster)[0]


def _drop_stale(cluster: Path) -> None:
    """Remove the pid files of a server that is gone, when its number now belongs to another process.

    PostgreSQL itself would take that process for the server, as happens after a container is killed and started again,
    or for as long as nobody has asked for the status of a server that was killed.
    While someone still holds the cluster, whose server may be of other means than ours, PostgreSQL's own checks decide.
    """
    pid, address = _listed(cluster)
    if _runs(pid, cluster):
        return
    with (cluster / "PG_VERSION").open() as handle, contextlib.suppress(BlockingIOError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, 0)
            (cluster / "postmaster.pid").unlink(missing_ok=True)
            if address is not None:
                (address.socket_dir / f".s.PGSQL.{address.port}.lock").unlink(missing_ok=True)


def launch(
    cluster: Path,
    programs: Path,
    account: Account | None,
    again: Address | None = None,
    patience: Patience = PATIENT,
) -> Address:
    """Start the server and wait until it answers; `again` is where one listened that has ended."""
    with cluster_lock.taken(cluster) as lock:
        _drop_stale(cluster)
        return _launch(cluster, programs, account, again, patience, lock)


def _launch(
    cluster: Path, programs: Path, account: Account | None, again: Address | None, patience: Patience, lock: int
) -> Address:
    """Start the server, which inherits the lock."""
    address = again or Address(_socket_dir(cluster, account), PORT)
    log = cluster / LOG
    if log.exists() and log.stat().st_size > _LOG_BYTES_KEPT:
        log.rename(log.with_name(LOG + ".1"))
    before = log.stat().st_size if log.exists() else 0
    options = {
        "listen_addresses": "",
        "unix_socket_directories": str(address.socket_dir),
        "unix_socket_permissions": "0700",
        "port": str(address.port),
        "cluster_name": CLUSTER_NAME,
    }
    # pg_ctl hands its options to a shell.
    settings = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in options.items())
    command: list[str | Path] = [programs / "bin" / "pg_ctl", "start", "-D", cluster, "-l", log, "-o", settings]
    command += ["-w", "-s", "-t", str(PG_CTL_TIMEOUT_S)]
    deadline = time.monotonic() + START_TIMEOUT_S
    status, printed = pgprograms.run(account, command, cluster, inherited=[lock])
    while status and "did not start in time" in printed and not process(cluster) and time.monotonic() < deadline:
        patience.sleep(0.1)
    # Recovery may take any time.
    if status == 0 or find_running(cluster, patience, f"see {log}") == address:
        return address
    if again is None:
        remove_socket_dir(address.socket_dir)
    raise EmbeddedServerError(f"it does not start: {_log_tail(log, before) or printed}", hint=f"see {log}")


def stop(cluster: Path, address: Address | None = None) -> None:
    """Stop the server: connections are ended, what was committed is on disk. One in another container is left alone."""
    deadline = time.monotonic() + cluster_lock.LINGER_S
    pid, listed = _listed(cluster)
    # One that was launched a moment ago has its lock before it has a pid file.
    while not pid and cluster_lock.is_held(cluster) and time.monotonic() < deadline:
        time.sleep(0.05)
        pid, listed = _listed(cluster)
    address = address or listed
    elsewhere = cluster_lock.is_held(cluster) and not _runs(pid, cluster)
    end(pid, cluster)
    if address is not None and not elsewhere:
        remove_socket_dir(address.socket_dir)


def end(pid: int, cluster: Path) -> None:
    """End a process if it is the server of the cluster, whose folder may be gone."""
    # Fast, then immediate, which loses nothing either: the next start replays the log.
    for number in (signal.SIGINT, signal.SIGQUIT):
        deadline = time.monotonic() + STOP_TIMEOUT_S
        if _runs(pid, cluster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while _runs(pid, cluster) and time.monotonic() < deadline:
            time.sleep(0.05)
    if _runs(pid, cluster):
        raise EmbeddedServerError(f"process {pid} serves {cluster} and does not stop", hint=f"kill -9 {pid}")


def _socket_dir(cluster: Path, account: Account | None) -> Path:
    """Return a folder for the socket that only the server's account can enter, with a name short and plain enough."""
    if len(os.fsencode(cluster / f".s.PGSQL.{PORT}.lock")) <= _LONGEST_SOCKET and _PLAIN_PATH.fullmatch(str(cluster)):
        return cluster
    # Not TMPDIR, which can be long itself. What mkdtemp makes is open to its owner alone.
    base = os.environ.get("XDG_RUNTIME_DIR", "") if account is None else ""
    if len(base) > _LONGEST_SOCKET // 2 or not _PLAIN_PATH.fullmatch(base) or not os.access(base, os.W_OK):
        base = "/tmp"  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix=_SOCKET_PREFIX, dir=base))
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    return folder


def remove_socket_dir(folder: Path) -> None:
    """Remove the folder that was made for a socket, after its server is gone; leave the data's own."""
    if folder.name.startswith(_SOCKET_PREFIX) and not (folder / "PG_VERSION").exists():
        shutil.rmtree(folder, ignore_errors=True)


def _log_tail(log: Path, start: int) -> str:
    """Return the last lines of the server's log that came after a position, without their times."""
    try:
        with log.open("rb") as handle:
            handle.seek(start)
            lines = handle.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return " ".join(re.sub(r"^[\d-]+ [\d:.]+ \w+ \[\d+\] ", "", line) for line in lines[-5:])


def url(address: Address, database: str) -> str:
    """Return the libpq URL of a database of the server."""
    return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(address.socket_dir))}&port={address.port}"


def connect(address: Address, database: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open an autocommit connection as the superuser."""
    return psycopg.connect(url(address, database), autocommit=True, connect_timeout=5)


def one(connection: psycopg.Connection[tuple[Any, ...]], query: LiteralString) -> tuple[Any, ...]:
    """Return the one row of a query."""
    (row,) = connection.execute(query).fetchall()
    return row
