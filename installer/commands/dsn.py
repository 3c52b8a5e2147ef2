"""`memory-plugin dsn`: print the connection string in force."""

from __future__ import annotations

import json

import click

from memory_plugin.installer import conninfo, dsn, options


@click.command(name="dsn", epilog="\b\nExample:\n  memory-plugin dsn --database-url postgresql://app@db.internal/app")
@options.database
@click.option("--show-password", is_flag=True, help="Print the password instead of ***.")
@options.as_json
def command(database_url: str | None, show_password: bool, as_json: bool) -> None:
    """Print the database URL in force, search_path included.

    Taken from --database-url, else from MEMORY_PLUGIN_DATABASE_URL as given, else from DATABASE_URL with
    search_path=memory_plugin,public added. Does not connect.
    """
    settings = options.settings(database_url=database_url)
    url = settings.conninfo if show_password else settings.masked_url
    if not as_json:
        click.echo(url)
        return
    _, search_path = dsn.split_options(conninfo.parse(settings.conninfo).get("options") or "")
    facts = {"url": url, "source": settings.url_source, "explicit": settings.explicit, "search_path": search_path}
    click.echo(json.dumps(facts))
