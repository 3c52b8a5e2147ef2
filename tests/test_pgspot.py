"""pgspot, which looks for what lets another role take over an installation's SQL, finds nothing in the rendered SQL."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from memory_plugin.installer import cli, statements

# The script runs in an empty database: whoever runs it owns the schema, and nobody else may create in it. It does so
# within a DO block, where pgspot does not look for what is created.
OWN_SCHEMA = "create schema memory_plugin;\n"
PINNED = "set search_path = pg_catalog, pg_temp;\n"
# Its PL/pgSQL parser knows no composite variables.
UNREADABLE = ("is not a known variable", "record variable cannot be part of multiple-item INTO list")


def pgspot(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("pgspot")
    # The path is pinned in what it is told of PL/Python too; the language itself is unknown to it.
    return subprocess.run(
        [program, "--ignore-lang", "plpython3u", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    """The SQL of a whole installation, without whole-line comments: its parser stumbles over one within a literal."""
    assert cli.run(["render", "--plpython", "require"]) == 0
    return re.sub(r"^\s*--.*\n|^\\.*\n", "", capsys.readouterr().out, flags=re.MULTILINE)


def test_the_whole_script_is_clean(script: str, tmp_path: Path) -> None:
    file = tmp_path / "store.sql"
    file.write_text(OWN_SCHEMA + script)
    done = pgspot("--no-plpgsql", file)
    assert done.returncode == 0, done.stdout
    assert "Errors: 0 Warnings: 0 Unknown: 0" in done.stdout


def test_every_block_and_function_is_clean_within(script: str, tmp_path: Path) -> None:
    files = []
    for statement in statements.split(script):
        if re.match(r"do |create or replace (function|procedure)", statement):
            files.append(tmp_path / f"{len(files):03}.sql")
            files[-1].write_text(OWN_SCHEMA + PINNED + statement + ";\n")
    assert len(files) > 80
    reports = pgspot(*files).stdout.split(f"{tmp_path}/")[1:]
    assert len(reports) == len(files)
    unread = 0
    for report in reports:
        text = files[int(report[:3])].read_text()
        if any(excuse in report for excuse in UNREADABLE):
            # Its definition has been looked at above, path and all.
            assert "create or replace function" in text, report
            unread += 1
        else:
            assert re.search(r"\n Errors: 0 Warnings: 0 Unknown: 0 \n\s*(TOTAL.*)?\s*$", report), f"{report}\n{text}"
    assert unread < len(files) / 10


@pytest.mark.parametrize(
    ("hostile", "code"),
    [
        ("create function memory_plugin.f() returns int language sql security definer as 'select 1'", "PS003"),
        (
            "create function memory_plugin.f() returns int language sql security definer "
            "set search_path = pg_catalog, public, pg_temp as 'select 1'",
            "PS004",
        ),
        ("do $$ begin perform set_config('a', 'b', true); end $$", "PS016"),
    ],
)
def test_it_finds_what_it_is_there_for(tmp_path: Path, hostile: str, code: str) -> None:
    file = tmp_path / "hostile.sql"
    file.write_text(f"{OWN_SCHEMA}{hostile};\n")
    done = pgspot(file)
    assert done.returncode == 1
    assert code in done.stdout
