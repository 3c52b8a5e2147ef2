"""The down files, which an operator runs by hand: each undoes its migration, and the next install does it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.installing import MIGRATIONS, connected, install, psql, rows
from fixtures.server import Server
from memory_plugin.installer import cli

DOWNS = sorted((path.name for path in MIGRATIONS.glob("*.down.sql")), reverse=True)


def functions_of_ours(url: str) -> list[str]:
    """Return our functions, which an operator drops before the types that they use."""
    query = """
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    """
    return [signature for (signature,) in rows(url, query)]


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
    file.write_text(capsys.readouterr().out)
    with connected(database) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'an apple')")
        before = connection.execute("select name from memory_plugin.schema_migrations order by 1").fetchall()
        connection.execute("drop policy memory_plugin_reader on memory_plugin.memory_namespaces")
        connection.execute("drop policy memory_plugin_reader on memory_plugin.memory_records")
        for signature in functions_of_ours(database):
            connection.execute(f"drop routine if exists {signature} cascade")  # type: ignore[arg-type]
        done = psql(server, database, file)
        assert done.returncode == 0, done.stderr
        left = connection.execute("select count(*) from memory_plugin.schema_migrations").fetchone()
        assert left == (keep,)
    install(database)
    assert rows(database, "select name from memory_plugin.schema_migrations order by 1") == before
    kept = [("an apple",)] if keep > 1 else []
    assert rows(database, "select content from memory_plugin.search(array['team:a'])") == kept


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
