"""`memory-plugin status`: tell how a database stands."""

from __future__ import annotations

from typing import Any

import click

from memory_plugin.installer import api, options, report

_EPILOG = """\b
Example:
  memory-plugin status --database-url postgresql://app@db.internal/app --json"""


@click.command(name="status", epilog=_EPILOG)
@options.database
@options.wishes
@options.as_json
def command(as_json: bool, **given: Any) -> None:
    """Tell how a database stands. Never writes.

    What would make `install` refuse is told as `problem`, and is no failure of this command.
    """
    settings = options.settings(**given)
    found = api.status(settings)
    if as_json:
        report.print_json(report.status_facts(found, settings.masked_url))
    else:
        report.print_rows("memory-plugin", report.status_rows(found, settings.masked_url), warnings=found.warnings)
