"""What is installed with the package is all that it imports: no module of it leans on the developers' own tools."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
ROOMS = ("memory_plugin", "installer", "thin_api", "plpy", "sql")


def project() -> dict[str, object]:
    """Return the project's table."""
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


def names(requirements: object) -> set[str]:
    """Return the modules that requirements bring."""
    assert isinstance(requirements, list)
    return {re.split(r"[\[<>=!~; ]", str(one), maxsplit=1)[0].replace("-", "_").lower() for one in requirements}


def imported(path: Path) -> set[str]:
    """Return the top-level modules that a file imports, wherever in it; what only a type checker reads is left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_the_standard_library_itself_and_the_runtime_dependencies(room: str) -> None:
    table = project()
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict)
    # plpy is what PL/Python calls its own; it is there inside the server.
    allowed = names(table["dependencies"]) | names(extras["embedded"]) | {"memory_plugin", "plpy"}
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    strangers = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path) - allowed - set(sys.stdlib_module_names)
    }
    assert strangers == set()


def test_the_developers_programs_import_what_the_project_names_and_nothing_that_merely_comes_with_it() -> None:
    table = project()
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict)
    files = [path for room in ("tests", "bench", "torture") for path in (ROOT / room).rglob("*.py")]
    allowed = names(table["dependencies"]).union(*map(names, extras.values()), sys.stdlib_module_names)
    # Their own modules and ours; and two that are called otherwise than the package that brings them.
    allowed |= {"memory_plugin", "plpy", "fixtures", "mem0", "langgraph"} | {path.stem for path in files}
    assert {f"{path.relative_to(ROOT)}: {name}" for path in files for name in imported(path) - allowed} == set()
