"""The ledger: half-done leaves nothing; changed, removed or newer is refused; an operator's own run after ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fixtures.installing import MIGRATIONS, install, members, refusal, rows, settings_for
from memory_plugin.installer import api, apply, connect, sources
from memory_plugin.installer.errors import InstallError

NAMES = "select name from memory_plugin.schema_migrations order by name"


def install_from(url: str, root: Path, extra: Path | None = None) -> list[str]:
    """Install what a copy of the package's SQL says, and return what was applied."""
    settings = settings_for(url)
    connection = connect.open_connection(settings, "test")
    try:
        work = apply.Apply(connection, settings, sources.load(extra, root), lambda line: None)
        work.run()
        return work.outcome.applied
    finally:
        connection.close()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a copy of the package's SQL, to change."""
    root = tmp_path / "sql"
    shutil.copytree(MIGRATIONS.parent, root)
    return root


def test_a_migration_that_fails_half_way_leaves_nothing_behind(empty_database: str, package: Path) -> None:
    broken = package / "migrations" / "900_broken.up.sql"
    broken.write_text(
        "create table memory_plugin.half (id int);\ninsert into memory_plugin.half values (1);\nselect 1 / 0;\n"
    )
    with pytest.raises(InstallError) as caught:
        install_from(empty_database, package)
    assert caught.value.exit_code == 19
    assert "900_broken: division by zero" in caught.value.message
    assert rows(empty_database, "select to_regclass('memory_plugin.half')") == [(None,)]
    ledger = [name for (name,) in rows(empty_database, NAMES)]
    assert ledger == [migration.name for migration in sources.load().migrations]

    broken.write_text("create table memory_plugin.half (id int);\n")
    assert install_from(empty_database, package) == ["900_broken"]


def test_a_first_migration_that_fails_leaves_no_schema(empty_database: str, package: Path) -> None:
    first = package / "migrations" / "000_schema_bootstrap.up.sql"
    first.write_text(first.read_text() + "\nselect 1 / 0;\n")
    with pytest.raises(InstallError) as caught:
        install_from(empty_database, package)
    assert caught.value.exit_code == 19
    assert rows(empty_database, "select to_regnamespace('memory_plugin')") == [(None,)]


def test_a_failing_function_changes_no_function(empty_database: str, package: Path) -> None:
    install(empty_database)
    health = package / "functions" / "health.sql"
    health.write_text(health.read_text().replace("health", "health_two"))
    (package / "functions" / "zzz.sql").write_text(
        "create function memory_plugin.zzz() returns nonsense language sql as 'select 1';"
    )
    with pytest.raises(InstallError) as caught:
        install_from(empty_database, package)
    assert caught.value.exit_code == 19
    assert "sql/functions/zzz.sql" in caught.value.message
    assert rows(empty_database, "select to_regproc('memory_plugin.health_two')") == [(None,)]


@pytest.mark.servers("any")
def test_a_retired_function_goes_at_the_next_install(empty_database: str, package: Path) -> None:
    (package / "functions" / "old.sql").write_text(
        "create or replace function memory_plugin.old() returns int language sql as 'select 1';"
    )
    install_from(empty_database, package)
    assert any("old" in line for line in api.verify_store(settings_for(empty_database)).differences)
    (package / "functions" / "old.sql").unlink()
    (package / "functions" / "_retired.sql").write_text("drop function if exists memory_plugin.old();")
    install_from(empty_database, package)
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
@pytest.mark.parametrize("name", ["001_memory_v2", "003_indexes"])
def test_an_edited_migration_is_refused(empty_database: str, package: Path, name: str) -> None:
    install(empty_database)
    file = package / "migrations" / f"{name}.up.sql"
    file.write_text(file.read_text() + "\n-- one more word\n")
    with pytest.raises(InstallError) as caught:
        install_from(empty_database, package)
    assert caught.value.exit_code == 16
    assert name in caught.value.message


@pytest.mark.servers("any")
def test_a_removed_migration_is_refused(empty_database: str, package: Path) -> None:
    install(empty_database)
    (package / "migrations" / "002_namespace_key.up.sql").unlink()
    with pytest.raises(InstallError) as caught:
        install_from(empty_database, package)
    assert caught.value.exit_code == 16
    assert "002_namespace_key" in caught.value.message


@pytest.mark.servers("any")
@pytest.mark.parametrize(("name", "version"), [("999_future", "1.0.0"), ("001_b", "99.0.0")])
def test_a_newer_database_is_refused_and_names_its_program(empty_database: str, name: str, version: str) -> None:
    install(empty_database)
    rows(empty_database, f"insert into memory_plugin.schema_migrations values ('{name}', 'x', '{version}')")
    before = members(empty_database, "memory_plugin")
    error = refusal(empty_database)
    assert error.exit_code == 17
    assert f"{name}, applied by memory-plugin {version}" in error.message
    assert members(empty_database, "memory_plugin") == before


class TestExtraMigrations:
    """MEMORY_PLUGIN_MIGRATIONS_DIR."""

    pytestmark = pytest.mark.servers("any")

    @staticmethod
    def write(folder: Path, **files: str) -> dict[str, Any]:
        """Write migrations into a folder and return the option that names it."""
        for name, text in files.items():
            (folder / f"{name.lstrip('n')}.up.sql").write_text(text)
        return {"migrations_dir": str(folder)}

    def test_they_run_after_ours_and_see_our_schema_and_pgvector(self, empty_database: str, tmp_path: Path) -> None:
        text = "create table notes (id int, v vector(3)); insert into notes values (@dimensions@, '[1,2,3]');"
        result = install(
            empty_database, **self.write(tmp_path, n001_notes=text, n002_more="create index on notes (id);")
        )
        assert result.applied[-2:] == ("extra/001_notes", "extra/002_more")
        assert rows(empty_database, "select id from memory_plugin.notes") == [(1536,)]
        assert install(empty_database, migrations_dir=str(tmp_path)).applied == ()
        assert api.verify_store(settings_for(empty_database, migrations_dir=str(tmp_path))).differences == ()

    def test_an_edited_one_is_refused(self, empty_database: str, tmp_path: Path) -> None:
        install(empty_database, **self.write(tmp_path, n001_a="select 1;"))
        error = refusal(empty_database, **self.write(tmp_path, n001_a="select 2;"))
        assert (error.exit_code, "extra/001_a" in error.message) == (16, True)

    def test_a_removed_one_is_refused(self, empty_database: str, tmp_path: Path) -> None:
        install(empty_database, **self.write(tmp_path, n001_a="select 1;", n002_b="select 2;"))
        (tmp_path / "001_a.up.sql").unlink()
        error = refusal(empty_database, migrations_dir=str(tmp_path))
        assert (error.exit_code, "extra/001_a" in error.message) == (16, True)

    def test_a_boot_without_the_folder_warns(self, empty_database: str, tmp_path: Path) -> None:
        install(empty_database, **self.write(tmp_path, n001_a="select 1;"))
        assert any("extra/001_a" in line for line in install(empty_database).warnings)

    def test_a_failing_one_keeps_ours(self, empty_database: str, tmp_path: Path) -> None:
        error = refusal(empty_database, **self.write(tmp_path, n001_a="create table t (id int); select nothing;"))
        assert (error.exit_code, "extra/001_a" in error.message) == (19, True)
        assert rows(empty_database, "select to_regclass('memory_plugin.t')") == [(None,)]
        assert (sources.load().migrations[-1].name,) in rows(empty_database, NAMES)

    def test_one_without_a_transaction_goes_on_where_it_failed(self, empty_database: str, tmp_path: Path) -> None:
        start = "-- memory-plugin: no-transaction\ncreate table if not exists memory_plugin.kept (id int);\n"
        error = refusal(empty_database, **self.write(tmp_path, n001_a=start + "select * from memory_plugin.absent;"))
        assert error.exit_code == 19
        assert "its finished statements" in error.hint
        assert rows(empty_database, "select count(*) from memory_plugin.kept") == [(0,)]
        assert ("extra/001_a",) not in rows(empty_database, NAMES)
        rows(empty_database, "create table memory_plugin.absent (id int)")
        assert install(empty_database, migrations_dir=str(tmp_path)).applied == ("extra/001_a",)

    @pytest.mark.parametrize(
        ("name", "text", "named"),
        [
            ("n001_a", "begin; select 1; commit;", "extra/001_a says begin"),
            ("n001_a", "-- memory-plugin: no-transation\nselect 1;", "unknown directive: no-transation"),
            ("n001-a", "select 1;", "must be called NNN_name.up.sql"),
            ("n001_a", "select '@nobody@';", "unknown placeholder @nobody@"),
            ("n001_a", "select @nobody(1, 2)@;", "unknown placeholder @nobody(1, 2)@"),
            ("n001_a", "select @occurrences(t)@;", "unknown placeholder @occurrences(t)@"),
        ],
    )
    def test_one_that_cannot_be_run_is_refused(
        self, empty_database: str, tmp_path: Path, name: str, text: str, named: str
    ) -> None:
        error = refusal(empty_database, **self.write(tmp_path, **{name: text}))
        assert error.exit_code == 21
        assert named in error.message

    def test_two_of_one_number_are_refused(self, empty_database: str, tmp_path: Path) -> None:
        error = refusal(empty_database, **self.write(tmp_path, n001_a="select 1;", n001_b="select 1;"))
        assert error.exit_code == 21
        assert "extra/001_a and extra/001_b have the same number" in error.message
