"""`memory-plugin reembed`: change the embedding model while the store goes on serving."""

from __future__ import annotations

import click

from memory_plugin.installer import options
from memory_plugin.installer.commands.embedding import KEY, ca_file_option, read_authorities, read_key
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import UsageError
from memory_plugin.installer.reembedding import Change, State, alone, session
from memory_plugin.installer.reembedding_wish import Wish
from memory_plugin.installer.saying import say
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.transfer.progress import meter

_EPILOG = """\b
Examples:
  memory-plugin reembed --model nomic-embed-text --dimensions 768
  memory-plugin reembed --finish
  memory-plugin reembed --abort"""


@click.command(name="reembed", epilog=_EPILOG)
@options.database
@click.option("--model", metavar="NAME", help="The model to change to.")
@click.option("--dimensions", type=click.IntRange(1, 4000), metavar="N", help="The new model's dimensions.")
@click.option("--url", metavar="URL", help="Its service, if not the current one.")
@click.option(
    "--key-file",
    "--api-key-file",
    "key_file",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help=f"File with the key for that service, - for standard input; else {KEY}, else the stored key for that server.",
)
@ca_file_option
@click.option("--send-dimensions", is_flag=True, help="Name the dimensions in each request.")
@click.option("--text-prefix", default="", metavar="TEXT", help="Text that the model expects before a memory.")
@click.option("--query-prefix", default="", metavar="TEXT", help="Text that the model expects before a query.")
@click.option("--leave-refused", is_flag=True, help="Swap even if the new model refuses some memories.")
@click.option("--finish", is_flag=True, help="Drop the former vectors, kept since the change.")
@click.option(
    "--abort", is_flag=True, help="Go back to the former vectors and drop the new ones; possible until --finish."
)
def command(
    database_url: str | None,
    model: str | None,
    dimensions: int | None,
    url: str | None,
    key_file: str | None,
    ca_file: str | None,
    send_dimensions: bool,
    text_prefix: str,
    query_prefix: str,
    leave_refused: bool,
    finish: bool,
    abort: bool,
) -> None:
    """Change the embedding model while the store keeps serving.

    Gives every memory a vector of the new model, then searches by those. Writes go on meanwhile. Interrupted, the same
    command resumes, with another --url or key if one is given. The former vectors are kept until --finish; until then
    --abort goes back to them.
    """
    if finish and abort:
        raise click.UsageError("--finish and --abort exclude each other")
    if (finish or abort) != (model is None and dimensions is None):
        raise click.UsageError("give --model and --dimensions, or --finish, or --abort")
    settings = options.settings(database_url=database_url)
    if finish or abort:
        with alone(settings), session(settings) as connection:
            _end(_change(settings, connection), finish=finish)
        return
    if model is None or dimensions is None:
        raise click.UsageError("--model and --dimensions go together")
    key, authorities = read_key(key_file), read_authorities(ca_file)
    wish = Wish(model, dimensions, url, key, send_dimensions, text_prefix, query_prefix, authorities)
    with alone(settings), session(settings) as connection:
        _run(_change(settings, connection), wish, leave_refused=leave_refused)


def _change(settings: Settings, connection: Connection) -> Change:
    """Return the work on an open connection, telling what it does on standard error."""
    return Change(
        settings,
        lambda line: say("reembed", line, prefix="reembed: "),
        lambda total: meter("reembed", total, "memories"),
        connection,
    )


def _run(change: Change, wish: Wish, *, leave_refused: bool) -> None:
    """Begin or go on, to the swap and what is to be done after it."""
    state = change.look()
    if state is not None and (state.model, state.dimensions) != (wish.model, wish.dimensions):
        raise UsageError(
            f"a change to {_named(state)} is {'done' if state.stage == 'swapped' else 'under way'}",
            hint="end that change first: memory-plugin reembed --abort, or --finish if it is done",
        )
    if state is None:
        state = change.start(wish)
    elif state.stage == "filling":
        change.renew(wish)
    if state.stage == "filling":
        change.fill(state, leave_refused=leave_refused)
    left = change.rest()
    waiting = f"; {left} of the last moments still wait for it" if left else ""
    click.echo(
        f"in force: {_named(state)}{waiting}. The former vectors are kept: memory-plugin reembed --finish drops them, "
        "--abort goes back to them"
    )


def _end(change: Change, *, finish: bool) -> None:
    """Drop the one or the other vectors."""
    state = change.look()
    if state is None:
        raise UsageError("no change of the model is under way", hint="begin one with --model and --dimensions")
    if finish:
        if state.stage != "swapped":
            raise UsageError(f"the change to {_named(state)} is not done yet", hint="run it to its end, or --abort it")
        change.finish()
        click.echo(f"finished: the vectors of the model before {_named(state)} are dropped")
        return
    change.abort(state)
    click.echo(f"aborted: the vectors of {_named(state)} are dropped, those before them are in force")


def _named(state: State) -> str:
    """Return a model in words."""
    return f"{state.model} ({state.dimensions} dimensions)"
