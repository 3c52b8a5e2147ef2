"""`memory-plugin render`: print the SQL that an installation runs."""

from __future__ import annotations

import re

import click

from memory_plugin.installer import options, plan, script, sources
from memory_plugin.installer.errors import quoted

_EPILOG = """\b
Examples:
  memory-plugin render --vector-schema public > store.sql
  psql --no-psqlrc --file=store.sql app
  memory-plugin render --down 013"""


@click.command(name="render", epilog=_EPILOG)
@click.argument("migration", required=False)
@click.option(
    "--vector-schema",
    default="memory_plugin",
    show_default=True,
    metavar="NAME",
    help="Schema that holds pgvector, or will.",
)
@click.option(
    "--down", is_flag=True, help="Print what undoes MIGRATION instead. Undo the newest first; see docs/operations.md."
)
@options.wishes
def command(migration: str | None, vector_schema: str, down: bool, **given: str | None) -> None:
    """Print the SQL that `install` would run, for psql.

    Name a MIGRATION to print only that one. Does not connect. The PL/Python functions are included only with
    --plpython require.
    """
    if down and migration is None:
        raise click.UsageError("--down needs the MIGRATION that it is to undo")
    settings = options.settings(**given)
    source = sources.load(settings.migrations_dir)
    values = sources.placeholders(
        _quoted(vector_schema),
        settings.dimensions or plan.DEFAULT_DIMENSIONS,
        settings.text_search_config or plan.DEFAULT_TEXT_SEARCH_CONFIG,
    )
    if migration is not None:
        click.echo((script.down if down else script.one)(source, migration, values), nl=False)
    else:
        click.echo(script.whole(source, values, with_plpython=settings.plpython == "require"), nl=False)


def _quoted(name: str) -> str:
    """Quote a schema's name where it needs it."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else quoted(name)
