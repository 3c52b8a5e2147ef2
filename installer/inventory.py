"""What the SQL sources say a store holds: tables, types, indexes, functions. Reads text, not a database."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from memory_plugin.installer import plpython, sources, statements
from memory_plugin.installer.sources import Migration, Sources

_IF_NOT_EXISTS = r"(?:if\s+not\s+exists\s+)?"
_CREATE_TABLE = re.compile(rf"\bcreate\s+table\s+{_IF_NOT_EXISTS}memory_plugin\.(\w+)", re.IGNORECASE)
_CREATE_TYPE = re.compile(r"\bcreate\s+type\s+memory_plugin\.(\w+)", re.IGNORECASE)
_CREATE_INDEX = re.compile(
    rf"\bcreate\s+(?:unique\s+)?index\s+(?:concurrently\s+)?{_IF_NOT_EXISTS}(\w+)\s+on\b", re.IGNORECASE
)
_CREATE_TRIGGER = re.compile(r"\bcreate\s+trigger\s+(\w+)", re.IGNORECASE)
# A statement that makes several fills in names and events, which stand in it as pairs of literals.
_FORMAT_TRIGGER = re.compile(r"\bcreate\s+trigger\s+%I", re.IGNORECASE)
_TRIGGER_PAIR = re.compile(r"\(\s*'(\w+)',\s*'(?:before|after|instead\s+of)\b", re.IGNORECASE)
_DROP = re.compile(
    r"\bdrop\s+(?:table|type|index)\s+(?:concurrently\s+)?(?:if\s+exists\s+)?memory_plugin\.(\w+)", re.IGNORECASE
)
# An index that becomes a constraint takes the constraint's name.
_USING_INDEX = re.compile(r"\busing\s+index\s+(?!tablespace\b)(\w+)", re.IGNORECASE)
_ADD_COLUMN = re.compile(rf"\badd\s+column\s+{_IF_NOT_EXISTS}(\w+)", re.IGNORECASE)
_DROP_COLUMN = re.compile(r"\bdrop\s+column\s+(?:if\s+exists\s+)?(\w+)", re.IGNORECASE)
_ALTER_TABLE = re.compile(r"\balter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?memory_plugin\.(\w+)", re.IGNORECASE)
_FUNCTION = re.compile(r"\bcreate\s+(?:or\s+replace\s+)?(?:function|procedure)\s+memory_plugin\.(\w+)", re.IGNORECASE)
_RETIRED = re.compile(r"\bdrop\s+function\s+if\s+exists\s+memory_plugin\.(\w+)", re.IGNORECASE)
_BODY = re.compile(r"\bas\s+(?P<tag>\$\w*\$)(?P<body>.*?)(?P=tag)", re.IGNORECASE | re.DOTALL)
_PATH = re.compile(r"\bset\s+search_path\s*(?:=|to)\s*([^\n]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Function:
    """One function as its source declares it."""

    name: str
    body: str | None
    """The text between the dollar quotes."""
    search_path: tuple[str, ...]


@dataclass(frozen=True)
class Inventory:
    """Everything of ours that a finished installation leaves in the schema."""

    tables: frozenset[str]
    types: frozenset[str]
    indexes: frozenset[str]
    added_columns: frozenset[tuple[str, str]]
    """(table, column) of the columns that came after the first shape."""
    functions: tuple[Function, ...]
    triggers: frozenset[str] = frozenset()
    made_by: Mapping[str, str] = field(default_factory=dict)
    """The migration whose text makes a type, by its name."""


def read(source: Sources, placeholders: Mapping[str, str]) -> Inventory:
    """Return what the package's own sources make; an operator's own migrations are not counted."""
    return _read(source, tuple(sorted(placeholders.items())))


# Plan, look and verdict of one installation each ask, and taking all of the SQL apart takes longer than all they do.
@lru_cache(maxsize=4)
def _read(source: Sources, values: tuple[tuple[str, str], ...]) -> Inventory:
    placeholders = dict(values)
    tables, types, indexes = {"schema_migrations"}, set[str](), set[str]()
    columns: set[tuple[str, str]] = set()
    triggers: set[str] = set()
    made_by: dict[str, str] = {}
    for migration in source.own:
        for statement in statements.split(statements.without_comments(migration.text)):
            dropped = set(_DROP.findall(statement)) | set(_USING_INDEX.findall(statement))
            tables, types, indexes = tables - dropped, types - dropped, indexes - dropped
            tables |= set(_CREATE_TABLE.findall(statement))
            new_types, new_indexes = _CREATE_TYPE.findall(statement), _CREATE_INDEX.findall(statement)
            new_triggers = _CREATE_TRIGGER.findall(statement)
            if _FORMAT_TRIGGER.search(statement):
                new_triggers += _TRIGGER_PAIR.findall(statement)
            types, indexes, triggers = types.union(new_types), indexes.union(new_indexes), triggers.union(new_triggers)
            made_by |= dict.fromkeys(new_types, migration.name)
            for table in _ALTER_TABLE.findall(statement)[:1]:
                columns |= {(table, column) for column in _ADD_COLUMN.findall(statement)}
                columns -= {(table, column) for column in _DROP_COLUMN.findall(statement)}
    functions = [
        function
        for file in source.functions
        for function in functions_of(sources.render(file.text, placeholders, file.name))
    ]
    return Inventory(
        frozenset(tables),
        frozenset(types),
        frozenset(indexes),
        frozenset(columns),
        tuple(functions),
        frozenset(triggers),
        made_by,
    )


def plpython_functions(placeholders: Mapping[str, str]) -> tuple[Function, ...]:
    """Return the PL/Python functions as they would be applied."""
    return tuple(f for name in plpython.names() for f in functions_of(plpython.build(name, placeholders)))


def retired(source: Sources) -> frozenset[str]:
    """Return the names of the functions that an earlier version had."""
    return frozenset(_RETIRED.findall(statements.without_comments(source.retired)))


def making(source: Sources, index: str) -> Migration:
    """Return the migration that makes an index, cut down to that statement and the later ones that alter it."""
    alters = re.compile(rf"\balter\s+index\s+(?:if\s+exists\s+)?memory_plugin\.{index}\b", re.IGNORECASE)
    maker, wanted = None, list[str]()
    for migration in source.own:
        for statement in statements.split(migration.text):
            bare = statements.without_comments(statement)
            if index in _CREATE_INDEX.findall(bare):
                maker, wanted = migration, [statement]
            elif maker is not None and alters.search(bare):
                wanted.append(statement)
    if maker is None:
        raise LookupError(f"no migration makes the index {index}")
    return replace(maker, text=";\n".join(wanted))


def functions_of(text: str) -> Iterator[Function]:
    """Yield every function that a rendered text creates."""
    for statement in statements.split(text):
        body = _BODY.search(statement)
        head = statements.without_comments(statement[: body.start()] if body else statement)
        name = _FUNCTION.search(head)
        if name is None:
            continue
        path = _PATH.search(head)
        yield Function(
            name=name.group(1),
            body=body["body"] if body else None,
            search_path=split_path(path.group(1)) if path else (),
        )


def split_path(text: str) -> tuple[str, ...]:
    """Return the schemas of a search_path, without quotes."""
    return tuple(part.strip().strip('"') for part in text.strip().rstrip(";").split(",") if part.strip())
