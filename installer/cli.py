"""The console script: a group of commands, each imported when it is called."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from memory_plugin import __version__
from memory_plugin.installer import output
from memory_plugin.installer.errors import InstallError, UsageError, one_line
from memory_plugin.installer.saying import say
from memory_plugin.installer.supervisor import StoppedError
from memory_plugin.thin_api import log

COMMANDS = (
    *("install", "status", "plan", "verify", "render", "dsn", "serve", "boot"),
    *("embedding", "backfill", "adopt-public", "export", "import", "reembed", "uninstall"),
)
# `import` is no name for a module.
_MODULES = {"adopt-public": "adopt_public", "import": "import_"}

_LISTINGS = ("status", "plan", "render", "dsn")
_AFTER_BROKEN_PIPE = "look at what was done with memory-plugin status, or run this again without the pipe"

_EPILOG = """\b
Examples:
  memory-plugin install --database-url postgresql://app@db.internal/app
  memory-plugin serve --embedded

Every failure is one line on standard error and an exit code of its own; docs/operations.md lists them."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order an operator meets them."""
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where a signal ended it, say so and exit as a shell would have it."""
        try:
            return super().invoke(ctx)
        except StoppedError as stopped:
            # Not further: click takes it for a Ctrl-C.
            name, status = signal.Signals(stopped.number).name, 128 + stopped.number
            line = f"memory-plugin: ended by {name}; a statement under way was cancelled -- run this again"
            say("command_failed", line, exit_code=status)
            raise click.exceptions.Exit(status) from None
        except BrokenPipeError:
            # Not further: click ends the program without a word. What only lists has no more to do.
            output.give_up()
            if ctx.invoked_subcommand in _LISTINGS:
                raise click.exceptions.Exit(0) from None
            told = "the reader of what this prints has gone before its end"
            raise InstallError(stem="Output could not be written", detail=told, hint=_AFTER_BROKEN_PIPE) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None for a name there is not."""
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name)
        found: click.Command = import_module(f"memory_plugin.installer.commands.{module}").command
        return found


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="memory-plugin", message="%(prog)s %(version)s")
@click.option("--verbose", is_flag=True, help="Print the traceback of a failure.")
@click.pass_context
def group(ctx: click.Context, verbose: bool) -> None:
    """Memory for AI agents that lives inside the tenant's own Postgres."""
    ctx.obj = {"verbose": verbose}


def main(arguments: list[str] | None = None) -> None:
    """Run the console script and exit with the code of what happened."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    verbose = "--verbose" in _verbose_first(arguments)[:1]
    try:
        with _stoppable():
            result: Any = group.main(args=_verbose_first(arguments), prog_name="memory-plugin", standalone_mode=False)
    except InstallError as error:
        return _fail(error, verbose)
    except click.UsageError as error:
        # What click before 8.2 has no error for, and prints itself.
        if error.ctx is not None and isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            click.echo(error.ctx.get_help(), err=True)
            return UsageError.exit_code
        path = error.ctx.command_path if error.ctx else "memory-plugin"
        return _fail(UsageError(error.format_message(), hint=f"see {path} --help"), verbose)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _fail(UsageError(error.format_message()), verbose)
    except Exception as error:
        return _fail(_known(error), verbose)
    return result if isinstance(result, int) else 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what SIGINT does: the driver cancels its statement, and what was begun is undone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What nohup ignores stays ignored.
    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) != signal.SIG_IGN]

    def stop(number: int, frame: object) -> None:
        # What unwinds now must not be interrupted in its turn.
        for one in numbers:
            signal.signal(one, signal.SIG_IGN)
        raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(error: InstallError, verbose: bool) -> int:
    """Print one line, or with --verbose also where it came from, and return the exit code."""
    if verbose:
        log.write(traceback.format_exc().rstrip(), sys.stderr)
    say("command_failed", error.line, exit_code=error.exit_code)
    return error.exit_code


def _known(error: Exception) -> InstallError:
    """Return an error that nobody foresaw as one of ours, without passwords."""
    try:
        # Here, since it imports the driver, which may be what fails.
        from memory_plugin.installer.failure import known
    except ImportError as missing:
        return InstallError(f"{type(missing).__name__}: {one_line(str(missing))}")
    return known(error)


def _verbose_first(arguments: list[str]) -> list[str]:
    """Let --verbose stand anywhere, since it is thought of after a failure; what follows `--` is not ours."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--verbose"]
    return (["--verbose"] if len(ours) < end else []) + ours + arguments[end:]
