"""`memory-plugin verify`: compare a database with what this program installs."""

from __future__ import annotations

from typing import Any

import click

from memory_plugin.installer import api, options, report

_EPILOG = """\b
Example:
  memory-plugin verify --database-url postgresql://app@db.internal/app"""


@click.command(name="verify", epilog=_EPILOG)
@options.database
@options.wishes
@options.as_json
def command(as_json: bool, **given: Any) -> None:
    """Compare a database with what this program installs. Never writes.

    Compares tables, columns, types, indexes, triggers, each function's body and search_path, owners, row-level
    security and grants. Exits with 23 if anything differs.
    """
    settings = options.settings(**given)
    verdict = api.verify_store(settings)
    if as_json:
        report.print_json(report.verdict_facts(verdict))
    else:
        rows = [("differs", difference) for difference in verdict.differences]
        summary = f"{len(rows)} differences" if rows else "as this program installs it"
        rows.append(("verify", f"{summary}; {verdict.functions} functions compared"))
        report.print_rows("verify", rows, warnings=verdict.warnings)
    verdict.require()
