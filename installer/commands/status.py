"""`memory-plugin status`: tell how a database stands."""

from __future__ import annotations

from typing import Any

import click

from memory_plugin.installer import api, options, report, stats

_EPILOG = """\b
Example:
  memory-plugin status --database-url postgresql://app@db.internal/app --json"""


@click.command(name="status", epilog=_EPILOG)
@options.database
@options.wishes
@options.as_json
def command(as_json: bool, **given: Any) -> None:
    """Show the state of a database and what its store holds. Never writes.

    A reason why `install` would refuse is shown as `problem`; it does not make this command fail.
    """
    settings = options.settings(**given)
    found = api.status(settings)
    # Before the first installation there is nothing to count, and that is no problem.
    contents = stats.read(settings) if found.facts.ledger else stats.Stats(None)
    if as_json:
        report.print_json({**report.status_facts(found, settings.masked_url), "stats": contents.facts})
    else:
        rows = (*report.status_rows(found, settings.masked_url), *stats.rows(contents))
        report.print_rows("memory-plugin", rows, warnings=found.warnings)
