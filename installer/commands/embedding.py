"""`memory-plugin embedding`: the service that the database fetches embeddings from."""

from __future__ import annotations

import os
from typing import Any

import click
import psycopg

from memory_plugin.installer import embedding_provider, options, report, stats
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.transfer import store

KEY = "MEMORY_PLUGIN_EMBEDDING_KEY"
_EPILOG = f"""\b
Examples:
  {KEY}=… memory-plugin embedding configure --url https://api.openai.com --model text-embedding-3-small
  memory-plugin embedding configure --url http://127.0.0.1:11434 --model all-minilm --dimensions 384
  memory-plugin embedding test"""


ca_file_option = click.option(
    "--ca-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="CA certificates (PEM) to trust instead of the database server's.",
)


@click.group(name="embedding", epilog=_EPILOG)
def command() -> None:
    """Set, show or test the service that embeds text."""


@command.command()
@options.database
@click.option("--url", required=True, help="The service; one without a path gets /v1/embeddings.")
@click.option("--model", required=True, help="The model to ask it for.")
@click.option("--dimensions", type=int, help="The model's dimensions; must be the store's, as it is by default.")
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, allow_dash=True),
    help=f"File with the service's key, - for standard input; else {KEY}, else the stored one.",
)
@click.option("--batch-size", type=int, help="Texts per request, 1 to 2048 [64].")
@click.option("--timeout-ms", type=int, help="Time limit of a request, 100 to 60000 [30000].")
@click.option("--query-timeout-ms", type=int, help="Time limit of a search's request, 50 to 700 [700].")
@click.option("--max-characters", type=int, help="Longest text to send; the rest is cut off [16000].")
@click.option("--send-dimensions", is_flag=True, default=None, help="Name the dimensions in each request.")
@click.option("--text-prefix", help="Text that the model expects before a memory.")
@click.option("--query-prefix", help="Text that the model expects before a query.")
@ca_file_option
@click.option("--force", is_flag=True, help="Allow a model other than the one that made the stored embeddings.")
@click.option("--no-test", is_flag=True, help="Store the settings without testing the service.")
@options.as_json
def configure(
    database_url: str | None,
    key_file: str | None,
    ca_file: str | None,
    force: bool,
    no_test: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Set the embedding service, after testing it.

    The service must give one correct embedding first. Its key is stored where only the owner can read it, and is never
    shown. Without a key, the stored one is kept for the same server; another server is sent none.
    """
    wishes = {name: value for name, value in given.items() if value is not None}
    wishes["api_key"] = read_key(key_file)
    wishes["ca_certificate"] = read_authorities(ca_file)
    settings = options.settings(database_url=database_url)
    with store.session(settings, "embedding configure") as connection:
        connection.add_notice_handler(_echo_warning)
        store.begin(connection, settings)
        found = embedding_provider.configure(connection, wishes, check=not no_test, force=force)
        store.begin(connection, settings)
        now = embedding_provider.provider(connection)
    _print({**(now or {}), "test": found}, as_json=as_json)


@command.command()
@options.database
@options.as_json
def show(database_url: str | None, as_json: bool) -> None:
    """Show the embedding service (not its key) and its progress."""
    settings = options.settings(database_url=database_url)
    with store.session(settings, "embedding show") as connection:
        connection.read_only = True
        store.begin(connection, settings)
        now = embedding_provider.provider(connection)
    _print(now, as_json=as_json)


@command.command()
@options.database
@options.as_json
def test(database_url: str | None, as_json: bool) -> None:
    """Ask the service for one embedding.

    The request comes from the database server. Shows whether it succeeds, with the right dimensions, and how long it
    takes.
    """
    settings = options.settings(database_url=database_url)
    with store.session(settings, "embedding test") as connection:
        store.begin(connection, settings)
        found = embedding_provider.check(connection)
    _print(found, as_json=as_json)


def read_key(file: str | None) -> str | None:
    """Return the key in a file, else that of the environment, else None."""
    if not file:
        return os.environ.get(KEY, "").strip() or None
    key = _read(file, "--key-file").strip()
    if not key:
        raise BadSettingError("--key-file: the file is empty")
    return key


def read_authorities(file: str | None) -> str | None:
    """Return the certificates in a file, or None."""
    return _read(file, "--ca-file") if file else None


def _read(name: str, option: str) -> str:
    """Return a file's text."""
    try:
        with click.open_file(name, encoding="utf-8") as opened:
            text: str = opened.read()
        return text
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise BadSettingError(f"{option}: cannot read {name}: {why}") from None


def _echo_warning(diagnostic: psycopg.errors.Diagnostic) -> None:
    """Pass a warning of the server on."""
    if diagnostic.severity_nonlocalized == "WARNING":
        click.echo(f"warning: {diagnostic.message_primary}", err=True)


def _print(facts: dict[str, Any] | None, *, as_json: bool) -> None:
    """Print facts, nested ones with their name in front."""
    if as_json:
        report.print_json(facts)
    else:
        rows: list[tuple[str, str]] = []
        if facts is None or facts.keys() == {"reembedding"}:
            rows.append(("provider", "none: memory-plugin embedding configure sets one"))
        for name, value in (facts or {}).items():
            if name == "reembedding":
                rows += stats.change_rows(value)
            elif isinstance(value, dict):
                rows += [(f"{name} {inner}", _text(one)) for inner, one in value.items()]
            elif value is not None:
                rows.append((name, _text(value)))
        report.print_rows("embedding", rows)


def _text(value: object) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "-"
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"
