"""The tables of docs/operations.md against the code they describe."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path

import click

from fixtures.sidecars import PROGRAM, clean_env
from memory_plugin.installer import cli, errors

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    """Return the text of one section."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_exit_code_is_listed_with_its_sentence_and_advice() -> None:
    classes = [
        error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, errors.InstallError)
    ]
    wanted = {f"| {c.exit_code} | {(c.__doc__ or '').splitlines()[0]} | {c.default_hint} |" for c in classes}
    listed = {line for line in section("Exit codes").splitlines() if re.match(r"\| [1-9]", line)}
    assert listed == wanted
    assert len({c.exit_code for c in classes}) == len(classes)


def test_every_variable_that_the_program_reads_is_listed() -> None:
    sources = [path.read_text() for room in ("installer", "thin_api") for path in (ROOT / room).rglob("*.py")]
    read = set(re.findall(r"\bMEMORY_(?:PLUGIN|V2)_[A-Z_]+[A-Z]\b", "\n".join(sources))) | {"DATABASE_URL"}
    listed = set(re.findall(r"^\| `([A-Z_0-9]+)` \|", section("Environment"), re.MULTILINE))
    assert listed == read


def test_every_test_that_the_table_of_boots_names_is_there() -> None:
    sources = [path.read_text() for path in (ROOT / "tests").glob("test_boot*.py")]
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(sources), re.MULTILINE))
    rows = [line.split("|")[1:-1] for line in section("Boot").splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row[-1])
        assert named, row
        assert set(named) <= defined


def test_the_roles_are_told_what_access_sql_lists() -> None:
    access = (ROOT / "sql" / "access.sql").read_text()
    text = section("Roles")
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `")}
    for role, listed in (("memory_plugin_reader", "v_reader"), ("memory_plugin_api", "v_owners")):
        (found,) = re.findall(rf"{listed} constant name\[\] := array\[([^\]]*)\]", access)
        names = [name for name in re.findall(r"'(\w+)'", found) if not name.startswith("_")]
        assert names
        assert all(f"`{name}`" in rows[role] for name in names)
    secured = set(
        re.findall(r"'memory_plugin\.(\w+)'::regclass", access.split("Row-level security")[1].split("$access$")[1])
    )
    sentence = text.split("Row-level security is forced on ")[1].split(". ")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == secured


def test_every_command_that_moves_data_and_each_of_its_options_is_told() -> None:
    text = section("Moving data in and out")
    context = click.Context(cli.group)
    wanted: set[str] = set()
    for name in ("backfill", "adopt-public", "export", "import", "uninstall"):
        command = cli.group.get_command(context, name)
        assert command is not None
        assert f"| `{name}" in text
        wanted |= {option for one in command.params if isinstance(one, click.Option) for option in one.opts}
    told = set(re.findall(r"--[a-z][a-z-]+", text))
    assert told - wanted == set()
    assert wanted - told == {"--database-url"}


def test_the_tenants_image_starts_its_command_through_the_program() -> None:
    (image,) = re.findall(r"```dockerfile\n(.*?)```", section("Boot"), re.DOTALL)
    entry = {key: json.loads(value) for key, value in re.findall(r"^(ENTRYPOINT|CMD) (.*)$", image, re.MULTILINE)}
    program, *arguments = entry["ENTRYPOINT"]
    assert program == PROGRAM.name
    done = subprocess.run(
        [PROGRAM, *arguments, "echo", *entry["CMD"]],
        env=clean_env(MEMORY_PLUGIN_DISABLE="1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == entry["CMD"]
