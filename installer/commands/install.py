"""`memory-plugin install`: bring a database to this program's state."""

from __future__ import annotations

from typing import Any

import click

from memory_plugin.installer import api, options, report

_EPILOG = """\b
Example:
  memory-plugin install --database-url postgresql://app@db.internal/app --dimensions 768"""


@click.command(name="install", epilog=_EPILOG)
@options.database
@options.wishes
@options.as_json
def command(as_json: bool, **given: Any) -> None:
    """Install or upgrade the store in a database.

    Safe to repeat, and to run on many machines at once: each migration is applied once, in a transaction where
    possible. MEMORY_PLUGIN_SKIP_MIGRATE=1 leaves the database untouched.
    """
    settings = options.settings(**given)
    result = api.install(settings, None if as_json else click.echo)
    if as_json:
        report.print_json(report.install_facts(result))
        return
    if not result.skipped:
        click.echo(
            f"ready: {settings.masked_url}, pgvector {result.vector_version} in schema {result.vector_schema}, "
            f"{result.dimensions} dimensions"
        )
