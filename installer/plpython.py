"""Build the PL/Python functions: a declaration (plpy/NAME.sql) around ordinary Python (plpy/NAME.py)."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from memory_plugin.installer import sources
from memory_plugin.installer.errors import InstallError

SOURCE_LINE = re.compile(r"^(?P<indent>[ \t]*)@source@[ \t]*$", re.MULTILINE)
_OPENING_TAG = re.compile(r"\$[A-Za-z_]*\$")


class SourceError(InstallError):
    """A PL/Python source cannot be built into a function."""

    default_hint = "correct the file under plpy/"


def names(root: Path | None = None) -> tuple[str, ...]:
    """Return the functions there are, in the order they are applied: helpers (`_`) first."""
    base = resources.files("memory_plugin.plpy") if root is None else root
    found = [entry.name.removesuffix(".sql") for entry in base.iterdir() if entry.name.endswith(".sql")]
    return tuple(sorted(found, key=lambda name: (not name.startswith("_"), name)))


def build(name: str, placeholders: Mapping[str, str] | None = None, root: Path | None = None) -> str:
    """Return the SQL that creates the function: its declaration with the Python source in place of `@source@`.

    The server adds a tab to each line of the body and runs it inside a function of its own, hence the rules: no
    `from __future__`, no string over several lines, no relative import, and never the closing dollar quote.
    Placeholders are filled in in the declaration only; the Python text is taken as it is.
    """
    base = resources.files("memory_plugin.plpy") if root is None else root
    declaration = (base / f"{name}.sql").read_text(encoding="utf-8")
    source = (base / f"{name}.py").read_text(encoding="utf-8")
    where = f"plpy/{name}"
    marks = list(SOURCE_LINE.finditer(declaration))
    if len(marks) != 1:
        raise SourceError(f"{where}.sql must hold one line @source@, and holds {len(marks)}")
    head, tail = declaration[: marks[0].start()], declaration[marks[0].end() :]
    tags = _OPENING_TAG.findall(head)
    if not tags:
        raise SourceError(f"{where}.sql must open a dollar quote before @source@")
    _check(source, f"{where}.py", tags[-1])
    indent = marks[0]["indent"]
    body = "\n".join(indent + line if line.strip() else "" for line in source.rstrip().splitlines())
    if placeholders is not None:
        head = sources.render(head, placeholders, f"{where}.sql")
        tail = sources.render(tail, placeholders, f"{where}.sql")
    return head + body + tail


def _check(source: str, where: str, tag: str) -> None:
    """Refuse a source that would not survive being put into a function's body."""
    try:
        tree = ast.parse(source, where)
    except SyntaxError as error:
        raise SourceError(f"{where} line {error.lineno}: {error.msg}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            raise SourceError(f"{where} line {node.lineno}: from __future__ has no place in a function's body")
        if isinstance(node, ast.ImportFrom) and node.level:
            raise SourceError(f"{where} line {node.lineno}: a relative import has nothing to be relative to")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        # An f-string is a STRING token up to Python 3.11, and a run of FSTRING_* tokens after it.
        if token.type == tokenize.STRING and token.start[0] != token.end[0]:
            raise SourceError(f"{where} line {token.start[0]}: the server would put a tab into this multi-line string")
        if tokenize.tok_name[token.type] == "FSTRING_MIDDLE" and token.start[0] != token.end[0]:
            raise SourceError(f"{where} line {token.start[0]}: the server would put a tab into this multi-line string")
    if tag in source:
        raise SourceError(f"{where} holds {tag}, which would end the function's body")
