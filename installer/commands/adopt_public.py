"""`memory-plugin adopt-public`: move rows that an earlier boot left in `public` into the store."""

from __future__ import annotations

from dataclasses import asdict

import click

from memory_plugin.installer import options, report, waiting
from memory_plugin.installer.errors import ConflictError
from memory_plugin.installer.transfer import adopting, store
from memory_plugin.installer.transfer.adopting import Adoption

_SHOWN = 20
_EPILOG = """\b
Examples:
  memory-plugin adopt-public --dry-run
  memory-plugin adopt-public --drop"""


@click.command(name="adopt-public", epilog=_EPILOG)
@options.database
@click.option("--dry-run", is_flag=True, help="Show what would be moved and what stands in the way; write nothing.")
@click.option("--drop", is_flag=True, help="Also drop the two tables in public, empty by then.")
@options.as_json
def command(database_url: str | None, dry_run: bool, drop: bool, as_json: bool) -> None:
    """Move an earlier boot's rows from public into the store.

    Moves public.memory_namespaces and public.memory_records in one transaction, and leaves these tables empty. If a row
    differs from the store's or breaks a rule, nothing is moved and each such row is listed.
    """
    settings = options.settings(database_url=database_url)
    with store.session(settings, "adopt-public") as connection:
        if not dry_run:
            waiting.begin_locked(connection, settings)
        done = adopting.move(connection, store.begin(connection, settings), drop=drop, dry_run=dry_run)
        if dry_run or done.conflicts:
            connection.rollback()
        else:
            connection.commit()
    _tell(done, dry_run, drop, as_json)


def _tell(done: Adoption, dry_run: bool, drop: bool, as_json: bool) -> None:
    """Print what was done, and fail when something stood in the way."""
    if as_json:
        report.print_json({**asdict(done), "dry_run": dry_run})
    elif done.conflicts:
        for what, why in done.conflicts:
            click.echo(f"conflict: {what}: {why}")
    elif not done.found:
        click.echo("there is nothing to adopt: public has neither memory_namespaces nor memory_records")
    else:
        verb = "would be moved" if dry_run else "moved"
        same = f" ({done.already_there} are in the store already)" if done.already_there else ""
        click.echo(f"{verb}: {done.namespaces} namespaces and {done.memories} memories{same}")
        if not dry_run:
            tables = ", ".join(f"public.{table}" for table in done.found)
            click.echo(f"{'dropped' if drop else 'left empty'}: {tables}")
    if done.conflicts:
        shown = "; ".join(f"{what}: {why}" for what, why in done.conflicts[:_SHOWN])
        more = f"; and {len(done.conflicts) - _SHOWN} more" if len(done.conflicts) > _SHOWN else ""
        raise ConflictError(f"{shown}{more}")
