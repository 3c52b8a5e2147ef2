"""`render` prints SQL that does by psql what `install` does by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import dump, install, make_vector, psql, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, cli


def rendered(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> Path:
    """Return the file that `render` with these arguments fills."""
    assert cli.run(["render", *arguments]) == 0
    file = folder / "store.sql"
    file.write_text(capsys.readouterr().out)
    return file


@pytest.mark.parametrize("vector", ["memory_plugin", "public", "Odd name"])
def test_the_rendered_script_makes_what_install_makes(
    server: Server,
    new_empty_database: Callable[[], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    vector: str,
) -> None:
    by_script, by_install = new_empty_database(), new_empty_database()
    for url in (by_script, by_install):
        if vector != "memory_plugin":
            make_vector(url, vector)
    plpython = "require" if server.has_plpython else "off"
    file = rendered(capsys, tmp_path, "--vector-schema", vector, "--plpython", plpython)
    done = psql(server, by_script, file)
    assert done.returncode == 0, done.stderr
    install(by_install, plpython=plpython)

    assert dump(server, by_script) == dump(server, by_install)
    ledger = "select name, sha256, program_version, adopted from memory_plugin.schema_migrations order by name"
    assert rows(by_script, ledger) == rows(by_install, ledger)
    assert install(by_script, plpython=plpython).applied == ()
    assert api.verify_store(settings_for(by_script)).differences == ()


@pytest.mark.servers("any")
def test_one_migration_is_rendered_by_name_or_number(
    server: Server, empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for which in ("000", "001_memory_v2"):
        assert psql(server, empty_database, rendered(capsys, tmp_path, which, "--dimensions", "384")).returncode == 0
    result = install(empty_database)
    assert result.applied[0] == "002_namespace_key"
    assert result.dimensions == 384


def test_a_migration_there_is_not_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["render", "999"]) == 2
    assert "there is no migration 999" in capsys.readouterr().err
