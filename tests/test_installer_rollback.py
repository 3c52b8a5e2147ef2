"""The down files, which an operator runs by hand: each undoes its migration, and the next install does it again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.installing import MIGRATIONS, install, psql, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, cli

GUIDE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
DOWNS = sorted((path.name for path in MIGRATIONS.glob("*.down.sql")), reverse=True)


def first_step() -> str:
    """Return the statements of docs/operations.md that drop the functions."""
    (found,) = re.findall(r"\*\*Roll back\*\*.*?```sql\n(.*?)```", GUIDE, re.DOTALL)
    return str(found)


def test_every_migration_has_a_down_file() -> None:
    ups = {path.name.replace(".up.", ".down.") for path in MIGRATIONS.glob("*.up.sql")}
    assert set(DOWNS) == ups


@pytest.mark.parametrize("keep", range(1, len(DOWNS)))
def test_migrations_can_be_undone_one_by_one_and_done_again(
    server: Server, database: str, keep: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in DOWNS[: len(DOWNS) - keep]:
        assert cli.run(["render", "--down", name.removesuffix(".down.sql")]) == 0
    file = tmp_path / "downs.sql"
    file.write_text(first_step() + capsys.readouterr().out)
    rows(database, "select memory_plugin.commit_memory('team:a', 'an apple')")
    before = rows(database, "select name from memory_plugin.schema_migrations order by 1")
    done = psql(server, database, file)
    assert done.returncode == 0, done.stderr
    assert rows(database, "select count(*) from memory_plugin.schema_migrations") == [(keep,)]
    install(database)
    assert rows(database, "select name from memory_plugin.schema_migrations order by 1") == before
    assert api.verify_store(settings_for(database)).differences == ()
    kept = [("an apple",)] if keep > 1 else []
    assert rows(database, "select content from memory_plugin.search(array['team:a'])") == kept


@pytest.mark.servers("any")
def test_a_rollback_drops_nothing_that_others_have_built_on(server: Server, database: str, tmp_path: Path) -> None:
    rows(database, "create view public.seen as select content from memory_plugin.search(array['team:a'])")
    file = tmp_path / "first.sql"
    file.write_text(first_step())
    done = psql(server, database, file)
    assert done.returncode != 0
    assert "view seen depends on" in done.stderr.replace("public.", "")
    assert api.verify_store(settings_for(database)).differences == ()


def test_what_undoes_everything_is_rendered_too(
    server: Server, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["render", "--down", "000"]) == 0
    file = tmp_path / "down.sql"
    file.write_text(capsys.readouterr().out)
    done = psql(server, database, file)
    assert done.returncode == 0, done.stderr
    assert rows(database, "select to_regnamespace('memory_plugin')") == [(None,)]


def test_a_down_file_there_is_not_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["render", "--down"]) == 2
    assert cli.run(["render", "--down", "999"]) == 2
    assert "there is no migration 999" in capsys.readouterr().err
