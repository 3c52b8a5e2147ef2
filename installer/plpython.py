"""Build the PL/Python functions: a declaration (plpy/NAME.sql) around ordinary Python (plpy/NAME.py)."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import re
import tokenize
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from memory_plugin.installer import sources
from memory_plugin.installer.errors import InstallError

SOURCE_LINE = re.compile(r"^(?P<indent>[ \t]*)@source(?::(?P<name>\w+))?@[ \t]*$", re.MULTILINE)
MARK = "@mark@"
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
    """Return the SQL that creates the function: its declaration with Python sources in place of their lines.

    `@source@` stands for NAME.py, `@source:other@` for other.py, and `@mark@` for a digest of all sources of the
    folder: what a session keeps for several functions is worth only as much as the code that made it.
    The server adds a tab to each line of the body and runs it inside a function of its own, hence the rules: no
    `from __future__`, no string over several lines, no relative import, and never the closing dollar quote.
    Placeholders are filled in in the declaration only; the Python text is taken as it is.
    """
    base = resources.files("memory_plugin.plpy") if root is None else root
    declaration = (base / f"{name}.sql").read_text(encoding="utf-8")
    where = f"plpy/{name}"
    marks = list(SOURCE_LINE.finditer(declaration))
    if not marks or len({mark["name"] for mark in marks}) < len(marks):
        raise SourceError(f"{where}.sql must hold a line @source@ or @source:other@, each once; it holds {len(marks)}")
    tags = _OPENING_TAG.findall(declaration[: marks[0].start()])
    if not tags:
        raise SourceError(f"{where}.sql must open a dollar quote before @source@")
    texts = [(base / f"{mark['name'] or name}.py").read_text(encoding="utf-8") for mark in marks]
    everything = (entry.read_bytes() for entry in sorted(base.iterdir(), key=str) if entry.name.endswith(".py"))
    digest = hashlib.sha256(b"\0".join(everything)).hexdigest()[:16]

    def rendered(text: str) -> str:
        """Fill in what stands around the sources."""
        text = text.replace(MARK, digest)
        return text if placeholders is None else sources.render(text, placeholders, f"{where}.sql")

    built, done = "", 0
    for mark, text in zip(marks, texts, strict=True):
        _check(text, f"plpy/{mark['name'] or name}.py", tags[-1])
        body = "\n".join(mark["indent"] + line if line.strip() else "" for line in text.rstrip().splitlines())
        built += rendered(declaration[done : mark.start()]) + body
        done = mark.end()
    return built + rendered(declaration[done:])


# Several functions are built around one source, and reading a source takes longer than all else in building.
@functools.cache
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
