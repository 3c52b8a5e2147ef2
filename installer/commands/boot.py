"""`memory-plugin boot -- COMMAND`: a tenant image's entrypoint, with the store installed and the sidecar beside it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

import click

from memory_plugin.installer import api, options, sidecar
from memory_plugin.installer.boot_decision import BUNDLED, EXTERNAL, decide, is_required, listen_addr
from memory_plugin.installer.errors import InstallError, ServerUnreachableError, SidecarFailedError
from memory_plugin.installer.failure import known
from memory_plugin.installer.saying import say
from memory_plugin.installer.settings import Settings, from_env
from memory_plugin.installer.supervisor import StoppedError, Supervisor
from memory_plugin.thin_api import log

RETRY_SECONDS = 0.5
LEFT_SECONDS = 3.0
"""Longest wait for an address that is taken: the sidecar of a boot that was killed is about to end."""


@click.command(name="boot", context_settings={"ignore_unknown_options": True})
@click.option(
    "--gate-seconds",
    type=click.FloatRange(1, 600),
    default=30.0,
    show_default=True,
    help="Longest wait for the database server, and then for a healthy sidecar.",
)
@options.wishes
@click.argument("arguments", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
def command(gate_seconds: float, arguments: tuple[str, ...], **wishes: Any) -> int:
    """Install, start the sidecar, then run COMMAND.

    The entrypoint of a tenant image: waits until the sidecar is healthy, runs COMMAND, and exits with its status.
    docs/operations.md has the table of what starts when.

    \b
    Example:
      memory-plugin boot -- /app/server --port 8080
    """
    environ = dict(os.environ)
    supervisor = Supervisor(_report)
    try:
        try:
            decision = decide(os.environ)
            if decision.way == EXTERNAL:
                _report(f"no sidecar: {decision.reason}")
            elif decision.way != BUNDLED:
                _report(f"no memory: {decision.reason}")
                environ["MEMORY_PLUGIN_URL"] = ""
            else:
                environ["MEMORY_PLUGIN_URL"] = _open_gate(supervisor, gate_seconds, **wishes)
        except StoppedError as stopped:
            supervisor.stop_sidecar()
            return 128 + stopped.number
        # Whatever it is: a fault of ours is no reason to keep the command from running.
        except Exception as error:
            supervisor.stop_sidecar()
            if is_required(os.environ):
                raise
            if click.get_current_context().find_root().obj["verbose"]:
                log.write(traceback.format_exc().rstrip(), sys.stderr)
            _report(f"WARNING: RUNNING WITHOUT MEMORY: {known(error)}")
            environ["MEMORY_PLUGIN_URL"] = ""
        status = supervisor.run(arguments, environ)
        supervisor.stop_sidecar()
        return status
    finally:
        supervisor.close()


def _open_gate(supervisor: Supervisor, seconds: float, **wishes: Any) -> str:
    """Install, start the sidecar, wait for 200; return its URL. Raises the InstallError that says why not."""
    settings = from_env(os.environ, listen_addr=listen_addr(os.environ), **wishes)
    run = secrets.token_hex(16)
    environ = {**sidecar.environment(os.environ, settings), "MEMORY_PLUGIN_RUN_ID": run}
    sidecar.settings_of(environ)
    supervisor.wait_until(lambda: not sidecar.is_taken(settings.listen_addr), LEFT_SECONDS)
    sidecar.refuse_taken(settings.listen_addr)
    _install(supervisor, settings, seconds)
    try:
        supervisor.start_sidecar(lambda: _start(environ))
    except OSError as error:
        raise SidecarFailedError(f"it cannot be started: {(error.strerror or str(error)).lower()}") from None
    url = sidecar.base_url(settings.listen_addr)
    why = supervisor.wait_until(lambda: sidecar.is_healthy(url, run), seconds)
    if why.startswith("died"):
        raise SidecarFailedError(f"it ended with status {why.split()[1]} on {settings.listen_addr}")
    if why:
        with supervisor.interruptible():
            raise _why_late(settings, url, seconds)
    return url


def _install(supervisor: Supervisor, settings: Settings, seconds: float) -> None:
    """Install; a server that does not answer yet is asked again for so long, any other failure is final."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with supervisor.interruptible():
                api.install(settings, report=_report)
                if settings.skip_migrate:
                    # Nothing has looked at the database yet.
                    api.is_healthy(settings)
            return
        except ServerUnreachableError:
            if time.monotonic() + RETRY_SECONDS > deadline:
                raise
        supervisor.wait_until(lambda: False, RETRY_SECONDS)


def _start(environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # A session of its own: a Ctrl-C at the terminal is for the command, the sidecar ends after it.
    return subprocess.Popen(
        [sys.executable, "-m", "memory_plugin.thin_api"],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _why_late(settings: Settings, url: str, seconds: float) -> InstallError:
    """Say what an operator needs to know, rather than that time ran out: ask the database itself."""
    try:
        if api.is_healthy(settings):
            return SidecarFailedError(
                f"{url}/v1/health did not answer 200 in {seconds:g} s though the database answers the same question"
            )
    except InstallError as error:
        return error
    return SidecarFailedError(
        f"the database takes more than {api.HEALTH_SECONDS:g} s for the question of /v1/health",
        hint="look for a lock on its tables (pg_locks), or for a server that is overloaded",
    )


def _report(line: str) -> None:
    say("boot", line, prefix="memory-plugin boot: ")
