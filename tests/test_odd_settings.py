"""What a database has set for SQL written by others does not change what the commands do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.backfilling import make_source
from fixtures.installing import DATA, connected, rows
from memory_plugin.installer import cli

CONTENT = "tabs\tand \\slashes\\ and 'quotes'\nπ"
SETTINGS = ("quote_all_identifiers = on", "standard_conforming_strings = off")


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_command_works_where_the_database_has_an_odd_setting(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    rows(
        empty_database,
        "do $$ begin execute format('alter database %I set " + setting + "', current_database()); end $$",
    )
    url = empty_database
    given, taken = tmp_path / "given.ndjson", tmp_path / "taken.ndjson"
    line = {"type": "memory", "namespace": "team:a", "content": CONTENT, "kind": "fact", "source": "user"}
    given.write_text(json.dumps(line) + "\n")

    def run(*words: str) -> str:
        """Run a command that must end well."""
        code = cli.run([*words, "--database-url", url])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    run("plan")
    run("install")
    run("verify")
    run("install")
    run("import", str(given))
    with connected(url) as connection:
        connection.execute("set search_path = public, memory_plugin")
        connection.execute((DATA / "earlier_shape.sql").read_bytes())
    run("adopt-public", "--drop")
    make_source(url, memories=3)
    run("backfill", "--refused", str(tmp_path / "refused.ndjson"))
    run("backfill", "--verify")
    run("status")
    run("export", str(taken))
    exported = [json.loads(one) for one in taken.read_text().splitlines()]
    assert CONTENT in [one.get("content") for one in exported]
    assert len([one for one in exported if one["type"] == "memory"]) >= 6
    run("verify")
    run("uninstall", "--yes")
    assert rows(url, "select to_regnamespace('memory_plugin')") == [(None,)]
