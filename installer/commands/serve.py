"""`memory-plugin serve`: install, then serve /v1; with --embedded on a server of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import click

from memory_plugin.installer import api, embedded, options, pgprograms, sidecar
from memory_plugin.installer.errors import UsageError
from memory_plugin.installer.saying import say
from memory_plugin.installer.settings import Settings, from_env
from memory_plugin.thin_api import log, server

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@click.command(name="serve", epilog="\b\nExample:\n  memory-plugin serve --embedded --data-dir ./memory-data")
@click.option(
    "--embedded", "use_embedded", is_flag=True, help="Use a PostgreSQL of its own, started if it is not running."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where the embedded server keeps its data.  [default: ~/.local/share/memory-plugin; root: /var/lib/...]",
)
@click.option(
    "--postgres-version",
    type=click.Choice([str(version) for version in pgprograms.VERSIONS]),
    help=f"PostgreSQL version for fresh embedded data.  [default: {pgprograms.DEFAULT_VERSION}]",
)
@options.database
@click.option("--listen", metavar="ADDR", help="HOST:PORT, or :PORT for every interface.  [default: 127.0.0.1:9100]")
@options.wishes
def command(
    use_embedded: bool,
    data_dir: Path | None,
    postgres_version: str | None,
    database_url: str | None,
    listen: str | None,
    **wishes: Any,
) -> int:
    """Install, then serve the /v1 API.

    Runs until SIGTERM, SIGINT or SIGHUP. MEMORY_PLUGIN_SKIP_MIGRATE=1 skips the installation.
    """
    if use_embedded and database_url:
        raise UsageError("--embedded and --database-url exclude each other")
    if not use_embedded and (data_dir or postgres_version):
        raise UsageError("--data-dir and --postgres-version go with --embedded")
    environ = dict(os.environ)
    if use_embedded:
        # The embedded server it is, whatever the environment names.
        environ.update(DATABASE_URL="", MEMORY_PLUGIN_DATABASE_URL="")
        _forget_libpq_variables()
    settings = from_env(environ, database_url=database_url, listen_addr=listen, **wishes)
    # Before anything is started or written; an embedded server's URL is not known yet, and its own.
    known = settings.with_url("postgresql:///") if use_embedded else settings
    sidecar.settings_of(sidecar.environment(os.environ, known))
    sidecar.refuse_taken(settings.listen_addr)
    # The sidecar has its own ways to stop; until it runs, these must not leave an embedded server behind.
    for number in ENDING:
        # A hangup that nohup ignores stays ignored.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave)
    with ExitStack() as stack:
        psql_line = ""
        database = None
        if use_embedded:
            version = int(postgres_version) if postgres_version else None
            waiting = embedded.start(data_dir, version, report=lambda line: say("embedded", line))
            database = stack.enter_context(waiting)
            settings = settings.with_url(database.url)
            psql_line = database.psql_line
            say("embedded", f"PostgreSQL {database.version}, data in {database.data_dir}")
        return _serve(settings, psql_line, database)


def _serve(settings: Settings, psql_line: str, database: embedded.EmbeddedServer | None) -> int:
    """Install, say where everything is, and serve, an embedded server kept up meanwhile."""
    api.install(settings, report=lambda line: say("install", line))
    sidecar_settings = sidecar.settings_of(sidecar.environment(os.environ, settings))
    if not psql_line and settings.url_source != "--database-url":
        # Works as printed where the variables are set, and keeps the password out of the log.
        psql_line = f'psql "$({_program()} dsn --show-password)"'
    if sidecar_settings.log_format == "text":
        # For people; a machine that reads the log as JSON finds the address in its first line.
        for line in _signposts(settings, psql_line):
            log.write(line, sys.stdout)
    with database.kept_up(lambda line: say("embedded", line)) if database else nullcontext():
        return server.run(sidecar_settings)


def _forget_libpq_variables() -> None:
    """Take PGHOSTADDR, PGOPTIONS and the like from our environment and so from the sidecar's.

    They are about another server, and libpq would follow them wherever a URL does not say otherwise.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _program() -> str:
    """Return how a shell calls this program: by its name, else by its path."""
    beside = Path(sys.executable).with_name("memory-plugin")
    if shutil.which("memory-plugin") or not beside.exists():
        return "memory-plugin"
    return shlex.quote(str(beside))


def _signposts(settings: Settings, psql_line: str) -> list[str]:
    """Return the lines that tell where the service is; each works as printed."""
    base = sidecar.base_url(settings.listen_addr)
    lines = [f"base URL  {base}", f"psql      {psql_line}", f"curl      curl -sS {base}/v1/health"]
    return lines if psql_line else [lines[0], lines[2]]


def _leave(number: int, frame: FrameType | None) -> None:
    """Unwind, so that what was started is stopped; a second signal does not interrupt that."""
    for other in ENDING:
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(0)
