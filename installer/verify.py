"""Compare a database with what this program would have made; never writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from memory_plugin.installer import access_check, catalog, inventory
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.discover import TABLES, Facts
from memory_plugin.installer.errors import VerifyFailedError
from memory_plugin.installer.inventory import Function, Inventory
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.shape import column_differences
from memory_plugin.installer.sources import EXTRA, Sources

_INSTALL = VerifyFailedError.default_hint
_BACKUP = "restore a backup: memory-plugin install does not bring back tables, columns and keys"
_STRANGER = "drop those that are not ours"
_LANGUAGE = "install the package postgresql-plpython3-N on the server again"
_REDACTION = (
    "install postgresql-plpython3-N on the server and run memory-plugin install as superuser, or: select "
    "memory_plugin.configure(redact_on_commit => false)"
)
_AGAIN = "make {name} again with its statement in: memory-plugin render {migration}"
_REFILL = "make {name} again and what it keeps true: Repair in docs/operations.md"
_TELL = 5
"""So many differences are told in one line, and so much advice."""


class Difference(NamedTuple):
    """One thing that differs, and what to do about it."""

    line: str
    advice: str = _INSTALL


@dataclass(frozen=True)
class Verdict:
    """What differs, and what works but should be seen to."""

    differences: tuple[str, ...]
    warnings: tuple[str, ...]
    functions: int
    """Functions of ours that were compared."""
    advice: tuple[str, ...] = ()
    """What to do about the differences, in this order."""

    def require(self) -> None:
        """Raise exit 23 when anything differs."""
        if self.differences:
            raise VerifyFailedError(_some(self.differences), hint=_some(self.advice))


def _some(texts: tuple[str, ...]) -> str:
    """Return the first of several texts, and how many there are more."""
    more = f" (and {len(texts) - _TELL} more)" if len(texts) > _TELL else ""
    return "; ".join(texts[:_TELL]) + more


@dataclass(frozen=True)
class _Routine:
    """One function as the catalogue has it."""

    name: str
    signature: str
    body: str
    search_path: tuple[str, ...]
    kind: str
    """As `drop` calls it: function, procedure or aggregate."""

    @property
    def drop(self) -> str:
        """Return the statement that takes it away."""
        return f"drop {self.kind} {self.signature}"


def compare(connection: Connection, facts: Facts, plan: Plan, source: Sources) -> Verdict:
    """Return what differs; the connection's transaction is the one that facts were read in."""
    if facts.ledger is None:
        line = "no store is installed: the schema memory_plugin has no ledger"
        return Verdict((line,), plan.warnings, 0, (_INSTALL,))
    wanted = inventory.read(source, plan.placeholders)
    extras = any(row.name.startswith(EXTRA) for row in facts.ledger)
    routines = _routines(connection)
    with_plpython = bool(facts.plpython_functions)
    functions = (*wanted.functions, *(inventory.plpython_functions(plan.placeholders) if with_plpython else ()))
    differences = [
        *(Difference(f"migration {migration.name} is not applied") for migration in plan.run),
        *_relations(facts, wanted),
        *_indexes(facts, wanted),
        *_triggers(connection, wanted),
        *_functions(routines, functions, exact=not extras),
    ]
    if facts.vector.installed is None:
        differences.append(Difference("the extension vector is not installed", _BACKUP))
    access, doubts = access_check.compare(connection, source)
    differences += [Difference(line) for line in access]
    warnings = [*plan.warnings, *doubts]
    if with_plpython and facts.plpython.available is None:
        line = "PL/Python functions are there, and plpython3u is no longer installed on the server"
        differences.append(Difference(line, _LANGUAGE))
    elif plan.plpython == "apply" and not with_plpython:
        warnings.append("plpython3u can be had, and the PL/Python functions are not applied: run memory-plugin install")
    if _cannot_redact(connection, facts):
        line = "redact_on_commit is on, and without the function redact every commit is refused"
        differences.append(Difference(line, _REDACTION))
    # A migration to come may make what is missing; where functions are missing too, it is because of what they use.
    advice = [] if plan.run else [found.advice for found in differences if found.advice != _INSTALL]
    if len(advice) < len(differences):
        advice.append(_INSTALL)
    return Verdict(
        tuple(found.line for found in differences), tuple(warnings), len(functions), tuple(dict.fromkeys(advice))
    )


def _cannot_redact(connection: Connection, facts: Facts) -> bool:
    """Tell whether the store is to redact and has nothing to do it with."""
    # What a damaged store has not, the other differences name.
    if "redact" in facts.functions or "_redacts_on_commit" not in facts.functions or facts.table("settings") is None:
        return False
    return connection.execute(catalog.REDACTS_ON_COMMIT).fetchone() == (True,)


def _relations(facts: Facts, wanted: Inventory) -> Iterator[Difference]:
    """Yield missing tables, types, columns and primary keys."""
    present = {table.name for table in facts.tables}
    for name in sorted(wanted.tables - present):
        yield Difference(f"table {name} is missing", _BACKUP)
    for name in sorted(wanted.types - set(facts.types)):
        yield Difference(f"type {name} is missing", _AGAIN.format(name=name, migration=wanted.made_by[name]))
    for name in TABLES:
        table = facts.table(name)
        if table is not None:
            yield from (Difference(f"{words} is missing", _BACKUP) for words in column_differences(table))
    for table_name, column in sorted(wanted.added_columns):
        table = facts.table(table_name)
        if table is not None and table.column(column) is None:
            yield Difference(f"column {table_name}.{column} is missing", _BACKUP)
    records = facts.table("memory_records")
    for table in facts.tables:
        if table.name in wanted.tables and not table.primary_key and table is not records:
            yield Difference(f"the primary key of {table.name} is missing", _BACKUP)
    if records is not None and records.primary_key != ("namespace", "id"):
        keys = ", ".join(records.primary_key)
        yield Difference(f"the primary key of memory_records is ({keys}), not (namespace, id)", _BACKUP)


def _indexes(facts: Facts, wanted: Inventory) -> Iterator[Difference]:
    """Yield missing and unfinished indexes."""
    for name in sorted(wanted.indexes - set(facts.indexes)):
        yield Difference(f"index {name} is missing")
    for name in facts.invalid_indexes:
        # Whoever made it chose the name, and the operator runs what is printed.
        quoted = sql.Identifier("memory_plugin", name).as_string()
        advice = _INSTALL if name in wanted.indexes else f"drop index concurrently {quoted}"
        yield Difference(f"index {name} is unfinished (invalid)", advice)


def _triggers(connection: Connection, wanted: Inventory) -> Iterator[Difference]:
    """Yield triggers without which a copy falls behind what it copies."""
    present = {str(row[0]) for row in connection.execute(catalog.TRIGGERS).fetchall()}
    for name in sorted(wanted.triggers - present):
        yield Difference(f"trigger {name} is missing or disabled", _REFILL.format(name=name))


def _functions(routines: list[_Routine], wanted: tuple[Function, ...], *, exact: bool) -> Iterator[Difference]:
    """Yield functions that are missing, changed, unpinned or not ours."""
    there: dict[str, list[_Routine]] = defaultdict(list)
    for routine in routines:
        there[routine.name].append(routine)
    ours: dict[str, list[Function]] = defaultdict(list)
    for function in wanted:
        ours[function.name].append(function)
    for name, declared in sorted(ours.items()):
        found = there.get(name, [])
        if not found:
            yield Difference(f"function {name} is missing")
        elif len(found) != len(declared):
            signatures = ", ".join(routine.signature for routine in found)
            line = f"function {name} is there {len(found)} times, not {len(declared)}: {signatures}"
            bodies = {function.body for function in declared}
            left = [routine.drop for routine in found if routine.body not in bodies]
            known = len(left) == len(found) - len(declared)
            yield Difference(line, "; ".join(left) if known else f"{_STRANGER}: {name}")
        else:
            if Counter(r.body for r in found) != Counter(f.body for f in declared if f.body is not None):
                yield Difference(f"function {name} has another body")
            if Counter(r.search_path for r in found) != Counter(f.search_path for f in declared):
                yield Difference(f"function {name} has another search_path")
    if exact:
        strangers = [routine for name, found in there.items() if name not in ours for routine in found]
        for routine in sorted(strangers, key=lambda routine: routine.signature):
            yield Difference(f"{routine.kind} {routine.signature} is not ours", routine.drop)


def _routines(connection: Connection) -> list[_Routine]:
    """Read the functions in the schema, extension members left out."""
    return [
        _Routine(str(name), str(signature), str(body), inventory.split_path(str(path or "")), str(kind))
        for name, signature, body, path, kind in connection.execute(catalog.ROUTINES).fetchall()
    ]
