"""`memory-plugin uninstall`: take the store away, and nothing else."""

from __future__ import annotations

import click

from memory_plugin.installer import options, report, waiting
from memory_plugin.installer.commands.export import write_file
from memory_plugin.installer.errors import UsageError
from memory_plugin.installer.transfer import removing, store
from memory_plugin.installer.transfer.removing import Holding

_EPILOG = """\b
Examples:
  memory-plugin uninstall
  memory-plugin uninstall --yes --export memories.ndjson.gz"""


@click.command(name="uninstall", epilog=_EPILOG)
@options.database
@click.option("--yes", is_flag=True, help="Drop it; without this, only list what would go.")
@click.option(
    "--export", "export_file", metavar="FILE", help="Export everything first, embeddings and expired memories included."
)
def command(database_url: str | None, yes: bool, export_file: str | None) -> None:
    """Drop the schema memory_plugin with every memory in it.

    Without --yes, only lists what would go and what depends on it. Refuses if other objects depend on the store, or if
    the schema holds objects that are not the store's. pgvector moves to public if it lives in memory_plugin and others
    use it. The roles memory_plugin_* stay.
    """
    settings = options.settings(database_url=database_url)
    # The only copy there will be: nothing else may stand in it.
    memories_to_stdout = export_file == "-"
    with store.session(settings, "uninstall") as connection:
        if yes:
            waiting.begin_locked(connection, settings)
        else:
            connection.read_only = True
            waiting.prepare_transaction(connection, settings)
        holding = removing.look(connection)
        if holding is None:
            told = "there is nothing to remove: this database has no schema memory_plugin"
            click.echo(told, err=memories_to_stdout)
            return
        report.print_rows(f"uninstall from {settings.masked_url}", _rows(holding), err=memories_to_stdout)
        removing.refuse(holding)
        if not yes:
            raise UsageError("nothing was dropped", hint="add --yes to drop it, and --export FILE to keep the memories")
        removing.lock(connection, holding)
        if export_file is not None:
            store.begin(connection, settings)
            done = write_file(connection, export_file, embeddings=True, everything=True)
            click.echo(f"exported {done.namespaces} namespaces and {done.memories} memories to {export_file}", err=True)
        removing.remove(connection, holding)
        connection.commit()
    click.echo("dropped: the schema memory_plugin", err=memories_to_stdout)


def _rows(holding: Holding) -> list[tuple[str, str]]:
    """Return what goes, what moves, what stays and what stands in the way."""
    rows = [
        ("drops", f"schema memory_plugin: {', '.join(holding.relations) or 'no table'}"),
        ("drops", f"{holding.functions} functions"),
    ]
    if holding.memories is not None:
        rows.append(("drops", f"{holding.memories} memories, {holding.bytes / 1e6:,.1f} MB"))
    if holding.vector is not None and holding.vector_users:
        rows.append(("moves", f"extension vector {holding.vector} to schema public, as others use it"))
        rows += [("keeps", one) for one in holding.vector_users]
    elif holding.vector is not None:
        rows.append(("drops", f"extension vector {holding.vector}, which nobody else uses"))
    rows += [("is not ours", one) for one in holding.strangers]
    rows += [("depends on the store", one) for one in holding.dependents]
    rows.append(("keeps", f"roles {', '.join(removing.ROLES)}, which other databases of the server may use"))
    return rows
