"""The SQL that travels in the package: migrations and functions, read, ordered and rendered."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from memory_plugin.installer import rules, statements
from memory_plugin.installer.errors import BadSettingError

EXTRA = "extra/"
"""What the ledger name of an operator's own migration starts with."""

_UP_FILE = re.compile(r"(?P<name>(?P<number>\d{3,})_[a-z0-9_]+)\.up\.sql")
_DIRECTIVE = re.compile(r"--\s*memory-plugin:\s*(.*?)\s*")
_DIRECTIVES = frozenset({"no-transaction", "breaking"})
_PLACEHOLDER = re.compile(r"@([a-z_]+(?::[a-z_]+)?)(?:\(([^@]*)\))?@")


@dataclass(frozen=True)
class Migration:
    """One change of state: its ledger name, its text and how it must be run."""

    name: str
    number: int
    text: str
    sha256: str
    """Of the file's bytes, before placeholders are filled in."""
    transactional: bool = True
    breaking: bool = False

    @property
    def extra(self) -> bool:
        """Tell whether an operator's own folder holds it."""
        return self.name.startswith(EXTRA)


@dataclass(frozen=True)
class FunctionSource:
    """One file of functions, re-applied on every install."""

    name: str
    text: str


@dataclass(frozen=True)
class Sources:
    """Everything this program would put into a database, in the order it is applied."""

    migrations: tuple[Migration, ...]
    retired: str
    """Statements that drop what earlier versions had and this one has not; may be empty."""
    functions: tuple[FunctionSource, ...]
    extra_dir: bool = False
    """True when an operator's own folder of migrations was given."""
    access: str = ""
    """Who may do what, applied after the functions."""
    downs: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What undoes a migration, by its name; the installer itself never does."""

    @property
    def own(self) -> tuple[Migration, ...]:
        """Return the migrations of the package itself."""
        return tuple(migration for migration in self.migrations if not migration.extra)


def load(extra_dir: Path | None = None, root: Path | None = None) -> Sources:
    """Read the package's SQL (or the SQL under root) and an operator's own migrations, which come last."""
    base = resources.files("memory_plugin.sql") if root is None else root
    files = _files(base / "migrations")
    extra_files = {} if extra_dir is None else _files(extra_dir)
    found, extras = _migrations(files, prefix=""), _migrations(extra_files, prefix=EXTRA)
    functions = _files(base / "functions")
    retired = functions.pop("_retired.sql", b"").decode()
    return Sources(
        migrations=(*found, *extras),
        retired=retired,
        functions=tuple(
            FunctionSource(name.removesuffix(".sql"), text.decode())
            for name, text in sorted(functions.items(), key=lambda item: _function_order(item[0]))
        ),
        access=(base / "access.sql").read_text(),
        extra_dir=extra_dir is not None,
        downs={**_downs(files, prefix=""), **_downs(extra_files, prefix=EXTRA)},
    )


def render(text: str, placeholders: Mapping[str, str], where: str) -> str:
    """Fill in the placeholders of text; `where` names the file in the error for one that nobody knows."""

    def value(match: re.Match[str]) -> str:
        name, arguments = match.groups()
        try:
            if arguments is not None:
                # Which may hold placeholders in turn.
                return _PLACEHOLDER.sub(value, rules.EXPRESSIONS[name].format(*arguments.split(", ")))
            return placeholders[name]
        except (KeyError, IndexError):
            known = ", ".join(f"@{name}@" for name in sorted(placeholders))
            raise BadSettingError(
                f"{where} holds the unknown placeholder {match.group()}", hint=f"the known ones: {known}"
            ) from None

    return _PLACEHOLDER.sub(value, text)


def placeholders(vector_schema: str, dimensions: int, text_search_config: str) -> dict[str, str]:
    """Return the values that rendering needs; vector_schema comes already quoted."""
    return {
        "extschema:vector": vector_schema,
        "dimensions": str(dimensions),
        "text_search_config": text_search_config,
        **rules.CONSTANTS,
    }


def _function_order(name: str) -> tuple[int, str]:
    """Sort private helpers first, then the typed functions, then the JSON functions over them."""
    return (0 if name.startswith("_") else 2 if name.startswith("v1_") else 1, name)


def _files(folder: object) -> dict[str, bytes]:
    """Return name -> bytes of every .sql file of a folder, in a wheel or on disk."""
    try:
        entries = list(folder.iterdir())  # type: ignore[attr-defined]
        return {entry.name: entry.read_bytes() for entry in entries if entry.name.endswith(".sql")}
    except OSError as error:
        raise BadSettingError(f"cannot read the SQL files of {folder}: {error.strerror}") from None


def _downs(files: Mapping[str, bytes], prefix: str) -> dict[str, str]:
    """Return the down files by the name of the migration that they undo."""
    ending = ".down.sql"
    return {
        prefix + name.removesuffix(ending): content.decode(errors="replace")
        for name, content in files.items()
        if name.endswith(ending)
    }


def _migrations(files: Mapping[str, bytes], prefix: str) -> tuple[Migration, ...]:
    """Return the up files as migrations in order, refusing what would be passed over in silence."""
    found: list[Migration] = []
    for file_name, content in files.items():
        if file_name.endswith(".down.sql"):
            continue
        match = _UP_FILE.fullmatch(file_name)
        if match is None:
            raise BadSettingError(f"the migration {prefix}{file_name} must be called NNN_name.up.sql")
        found.append(_migration(prefix + match["name"], int(match["number"]), content))
    ordered = sorted(found, key=lambda migration: (migration.number, migration.name))
    for earlier, later in itertools.pairwise(ordered):
        if earlier.number == later.number:
            raise BadSettingError(f"the migrations {earlier.name} and {later.name} have the same number")
    return tuple(ordered)


def _migration(name: str, number: int, content: bytes) -> Migration:
    """Read one file: its directives stand in the comments it begins with."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise BadSettingError(f"the migration {name} is not UTF-8 text") from None
    directives: set[str] = set()
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        match = _DIRECTIVE.fullmatch(line)
        if match:
            directives |= set(re.split(r"[\s,]+", match.group(1)))
    unknown = ", ".join(sorted(directives - _DIRECTIVES))
    if unknown:
        raise BadSettingError(f"the migration {name} has an unknown directive: {unknown}")
    control = statements.controls_transaction(text)
    if control:
        raise BadSettingError(
            f"the migration {name} says {control}", hint="the installer opens and ends the transactions itself"
        )
    return Migration(
        name=name,
        number=number,
        text=text,
        sha256=hashlib.sha256(content).hexdigest(),
        transactional="no-transaction" not in directives,
        breaking="breaking" in directives,
    )
