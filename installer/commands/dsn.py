"""`memory-plugin dsn`: print the connection string in force."""

from __future__ import annotations

import json
import os

import click

from memory_plugin.installer import conninfo, dsn
from memory_plugin.installer.settings import from_env


@click.command(name="dsn")
@click.option("--database-url", metavar="URL", help="Use this connection string in place of the environment's.")
@click.option("--show-password", is_flag=True, help="Print the password instead of ***.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(database_url: str | None, show_password: bool, as_json: bool) -> None:
    """Print the database URL in force, its search_path included.

    From --database-url, else MEMORY_PLUGIN_DATABASE_URL as given, else DATABASE_URL with
    search_path=memory_plugin,public. Does not connect.
    """
    settings = from_env(os.environ, database_url=database_url)
    url = settings.conninfo if show_password else settings.masked_url
    if not as_json:
        click.echo(url)
        return
    _, search_path = dsn.split_options(conninfo.parse(settings.conninfo).get("options") or "")
    facts = {"url": url, "source": settings.url_source, "explicit": settings.explicit, "search_path": search_path}
    click.echo(json.dumps(facts))
