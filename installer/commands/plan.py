"""`memory-plugin plan`: tell what `install` would do."""

from __future__ import annotations

from typing import Any

import click

from memory_plugin.installer import api, options, report, sources

_EPILOG = """\b
Example:
  memory-plugin plan --database-url postgresql://app@db.internal/app"""


@click.command(name="plan", epilog=_EPILOG)
@options.database
@options.wishes
@options.as_json
def command(as_json: bool, **given: Any) -> None:
    """Show what `install` would do. Never writes.

    Exits with the code that `install` would fail with, where that can be known beforehand.
    """
    settings = options.settings(**given)
    found = api.status(settings)
    plan = found.plan
    if plan is None:
        raise found.problem or RuntimeError("neither a plan nor a problem")
    functions = len(sources.load().functions)
    if as_json:
        report.print_json({**report.plan_facts(plan, functions), "warnings": list(found.warnings)})
    else:
        report.print_rows("install would", report.plan_rows(plan, functions), warnings=found.warnings)
