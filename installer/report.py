"""Report what was found and done: JSON for programs, tables for people at a terminal, plain lines for a log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from memory_plugin.installer.api import InstallResult, Status
from memory_plugin.installer.errors import InstallError
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.verify import Verdict

Rows = Sequence[tuple[str, str]]


def print_json(value: object) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(title: str, rows: Rows, *, warnings: Iterable[str] = (), err: bool = False) -> None:
    """Print names and values: a table at a terminal, `name: value` lines elsewhere; `err` for standard error."""
    if (sys.stderr if err else sys.stdout).isatty():
        # Text: in a plain string rich takes [words] for markup and :words: for pictures.
        table = Table(title=Text(title), show_header=False, title_justify="left")
        for name, value in rows:
            table.add_row(Text(name), Text(value))
        console = Console(stderr=err)
        console.print(table)
        for warning in warnings:
            console.print(Text.assemble(("warning:", "yellow"), f" {warning}"))
        return
    for name, value in rows:
        click.echo(f"{name}: {value}" if name else value, err=err)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=err)


def install_facts(result: InstallResult) -> dict[str, Any]:
    """Return an installation's result as JSON-ready facts."""
    return asdict(result)


def status_facts(status: Status, url: str) -> dict[str, Any]:
    """Return a status as JSON-ready facts."""
    facts, plan = status.facts, status.plan
    return {
        "state": status.state,
        "program_version": status.program_version,
        "url": url,
        "server": {
            "version": facts.server_version_text,
            "database": facts.database,
            "role": facts.role,
            "superuser": facts.superuser,
        },
        "vector": _extension(facts.vector),
        "plpython": {**_extension(facts.plpython), "functions": list(facts.plpython_functions)},
        "store": {
            "schema": facts.schema_exists,
            "tables": [table.name for table in facts.tables if table.kind in ("r", "p")],
            "functions": len(facts.functions),
            "dimensions": facts.dimensions,
            "text_search_config": facts.text_search_config,
            "unfinished_indexes": list(facts.invalid_indexes),
        },
        "ledger": None if facts.ledger is None else [asdict(row) for row in facts.ledger],
        "pending": [migration.name for migration in plan.run] if plan else None,
        "to_adopt": [migration.name for migration in plan.adopt] if plan else None,
        "earlier_in_public": [{"table": f"public.{name}", "rows": rows} for name, rows in status.earlier_in_public],
        "warnings": list(status.warnings),
        "problem": problem_facts(status.problem) if status.problem else None,
    }


def problem_facts(problem: InstallError) -> dict[str, Any]:
    """Return an error as JSON-ready facts."""
    return {"exit_code": problem.exit_code, "message": problem.message, "hint": problem.hint}


def status_rows(status: Status, url: str) -> Rows:
    """Return a status as names and values."""
    facts, plan = status.facts, status.plan
    applied = [row.name + (" (adopted)" if row.adopted else "") for row in facts.ledger or ()]
    rows = [
        ("program", f"memory-plugin {status.program_version}"),
        ("state", status.state),
        ("database", url),
        ("server", f"PostgreSQL {facts.server_version_text}"),
        ("role", f"{facts.role}{' (superuser)' if facts.superuser else ''}"),
        ("pgvector", _extension_words(facts.vector)),
        ("plpython3u", _extension_words(facts.plpython)),
        ("applied", ", ".join(applied) or "nothing"),
    ]
    if facts.dimensions is not None:
        rows.append(("embeddings", f"{facts.dimensions} dimensions"))
        rows.append(("text search", facts.text_search_config or "unknown"))
    if plan is not None:
        rows.append(("pending", ", ".join(migration.name for migration in plan.run) or "nothing"))
        if plan.adopt:
            rows.append(("to adopt", ", ".join(migration.name for migration in plan.adopt)))
    if status.problem is not None:
        rows.append(("problem", f"{status.problem} (exit code {status.problem.exit_code})"))
    return rows


def plan_facts(plan: Plan, functions: int) -> dict[str, Any]:
    """Return a plan as JSON-ready facts."""
    return {
        "adopt": [migration.name for migration in plan.adopt],
        "run": [
            {"name": migration.name, "transaction": migration.transactional, "breaking": migration.breaking}
            for migration in plan.run
        ],
        "indexes": list(plan.indexes),
        "create_vector": plan.create_vector,
        "vector_schema": plan.vector_schema,
        "dimensions": plan.dimensions,
        "text_search_config": plan.text_search_config,
        "functions": functions,
        "plpython": {"decision": plan.plpython, "reason": plan.plpython_reason},
        "warnings": list(plan.warnings),
    }


def plan_rows(plan: Plan, functions: int) -> Rows:
    """Return a plan as names and values."""
    rows = [("adopt", migration.name) for migration in plan.adopt]
    if plan.create_vector:
        rows.append(("create", f"extension vector in schema {plan.vector_schema}"))
    for migration in plan.run:
        remarks = [] if migration.transactional else ["statement by statement"]
        remarks += ["breaking"] if migration.breaking else []
        rows.append(("run", migration.name + (f" ({', '.join(remarks)})" if remarks else "")))
    if not plan.run and not plan.adopt:
        rows.append(("run", "no migration"))
    rows += [("build again", f"index {name}") for name in plan.indexes]
    rows.append(("apply", f"{functions} files of functions"))
    rows.append(("PL/Python", f"{plan.plpython}: {plan.plpython_reason}"))
    rows.append(("embeddings", f"{plan.dimensions} dimensions, pgvector in schema {plan.vector_schema}"))
    rows.append(("text search", plan.text_search_config))
    return rows


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON-ready facts."""
    return {"ok": not verdict.differences, **asdict(verdict)}


def _extension(extension: Any) -> dict[str, Any]:
    """Return an extension as JSON-ready facts."""
    return {key: value for key, value in asdict(extension).items() if key != "name"}


def _extension_words(extension: Any) -> str:
    """Return an extension's standing in words."""
    if extension.installed is not None:
        return f"{extension.installed} in schema {extension.schema}"
    if extension.available is not None:
        return f"not created ({extension.available} is on the server)"
    return "not installed on the server"
