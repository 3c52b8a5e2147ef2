"""The console script: a group of commands, each imported when it is called."""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from typing import Any

import click

from memory_plugin import __version__
from memory_plugin.installer.errors import InstallError, UsageError, one_line
from memory_plugin.installer.saying import say

COMMANDS = (
    *("install", "status", "plan", "verify", "render", "dsn", "serve", "boot"),
    *("embedding", "backfill", "adopt-public", "export", "import", "reembed", "uninstall"),
)
# `import` is no name for a module.
_MODULES = {"adopt-public": "adopt_public", "import": "import_"}

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
    except BrokenPipeError:
        # `memory-plugin status | head`: the reader has had enough, which is no failure.
        sys.stderr.close()
        return 0
    except click.ClickException as error:
        return _fail(UsageError(error.format_message()), verbose)
    except Exception as error:
        return _fail(InstallError(f"{type(error).__name__}: {one_line(str(error))}"), verbose)
    return result if isinstance(result, int) else 0


def _fail(error: InstallError, verbose: bool) -> int:
    """Print one line, or with --verbose also where it came from, and return the exit code."""
    if verbose:
        traceback.print_exc()
    say("command_failed", error.line, exit_code=error.exit_code)
    return error.exit_code


def _verbose_first(arguments: list[str]) -> list[str]:
    """Let --verbose stand anywhere, since it is thought of after a failure; what follows `--` is not ours."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    ours = [argument for argument in arguments[:end] if argument != "--verbose"]
    return (["--verbose"] if len(ours) < end else []) + ours + arguments[end:]
