"""Compare a database with what this program would have made of it; nothing here writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from memory_plugin.installer import access_check, catalog, inventory
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.discover import TABLES, Facts
from memory_plugin.installer.errors import VerifyFailedError
from memory_plugin.installer.inventory import Function, Inventory
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.shape import column_differences
from memory_plugin.installer.sources import EXTRA, Sources


@dataclass(frozen=True)
class Verdict:
    """What differs, and what works but should be seen to."""

    differences: tuple[str, ...]
    warnings: tuple[str, ...]
    functions: int
    """Functions of ours that were compared."""

    def require(self) -> None:
        """Raise exit 23 when anything differs."""
        if self.differences:
            more = f" (and {len(self.differences) - 5} more)" if len(self.differences) > 5 else ""
            raise VerifyFailedError("; ".join(self.differences[:5]) + more)


@dataclass(frozen=True)
class _Routine:
    """One function as the catalogue has it."""

    name: str
    signature: str
    body: str
    search_path: tuple[str, ...]
    language: str


def compare(connection: Connection, facts: Facts, plan: Plan, source: Sources) -> Verdict:
    """Return what differs; the connection's transaction is the one that facts were read in."""
    if facts.ledger is None:
        return Verdict(("no store is installed: the schema memory_plugin has no ledger",), plan.warnings, 0)
    wanted = inventory.read(source, plan.placeholders)
    extras = any(row.name.startswith(EXTRA) for row in facts.ledger)
    routines = _routines(connection)
    with_plpython = bool(facts.plpython_functions)
    functions = (*wanted.functions, *(inventory.plpython_functions(plan.placeholders) if with_plpython else ()))
    differences = [
        *(f"migration {migration.name} is not applied" for migration in plan.run),
        *_relations(facts, wanted),
        *_indexes(connection, facts, wanted),
        *_triggers(connection, wanted),
        *_functions(routines, functions, exact=not extras),
    ]
    if facts.vector.installed is None:
        differences.append("the extension vector is not installed")
    access, doubts = access_check.compare(connection, source)
    differences += access
    warnings = [*plan.warnings, *doubts]
    if with_plpython and facts.plpython.available is None:
        differences.append("PL/Python functions are there, and plpython3u is no longer installed on the server")
    elif plan.plpython == "apply" and not with_plpython:
        warnings.append("plpython3u can be had, and the PL/Python functions are not applied: run memory-plugin install")
    return Verdict(tuple(differences), tuple(warnings), len(functions))


def _relations(facts: Facts, wanted: Inventory) -> Iterable[str]:
    """Yield missing tables, types and columns."""
    present = {table.name for table in facts.tables}
    yield from (f"table {name} is missing" for name in sorted(wanted.tables - present))
    yield from (f"type {name} is missing" for name in sorted(wanted.types - set(facts.types)))
    for name in TABLES:
        table = facts.table(name)
        if table is not None:
            yield from (f"{words} is missing" for words in column_differences(table))
    for table_name, column in sorted(wanted.added_columns):
        table = facts.table(table_name)
        if table is not None and table.column(column) is None:
            yield f"column {table_name}.{column} is missing"
    records = facts.table("memory_records")
    yield from (
        f"the primary key of {table.name} is missing"
        for table in facts.tables
        if table.name in wanted.tables and not table.primary_key and table is not records
    )
    if records is not None and records.primary_key != ("namespace", "id"):
        yield f"the primary key of memory_records is ({', '.join(records.primary_key)}), not (namespace, id)"


def _indexes(connection: Connection, facts: Facts, wanted: Inventory) -> Iterable[str]:
    """Yield missing and unfinished indexes."""
    present = {str(row[0]) for row in connection.execute(catalog.INDEXES).fetchall()}
    yield from (f"index {name} is missing" for name in sorted(wanted.indexes - present))
    yield from (f"index {name} is unfinished (invalid)" for name in facts.invalid_indexes)


def _triggers(connection: Connection, wanted: Inventory) -> Iterable[str]:
    """Yield triggers without which a copy falls behind what it copies."""
    present = {str(row[0]) for row in connection.execute(catalog.TRIGGERS).fetchall()}
    yield from (f"trigger {name} is missing or disabled" for name in sorted(wanted.triggers - present))


def _functions(routines: list[_Routine], wanted: tuple[Function, ...], *, exact: bool) -> Iterable[str]:
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
            yield f"function {name} is missing"
        elif len(found) != len(declared):
            signatures = ", ".join(routine.signature for routine in found)
            yield f"function {name} is there {len(found)} times, not {len(declared)}: {signatures}"
        else:
            if Counter(r.body for r in found) != Counter(f.body for f in declared if f.body is not None):
                yield f"function {name} has another body"
            if Counter(r.search_path for r in found) != Counter(f.search_path for f in declared):
                yield f"function {name} has another search_path"
    if exact:
        strangers = sorted(routine.signature for name, found in there.items() if name not in ours for routine in found)
        yield from (f"function {signature} is not ours" for signature in strangers)


def _routines(connection: Connection) -> list[_Routine]:
    """Read the functions in the schema, extension members left out."""
    return [
        _Routine(str(name), str(signature), str(body), inventory.split_path(str(path or "")), str(language))
        for name, signature, body, path, language in connection.execute(catalog.ROUTINES).fetchall()
    ]
