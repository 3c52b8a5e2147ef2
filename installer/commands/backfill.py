"""`memory-plugin backfill`: bring the platform's earlier memories into the store, or check that they are there."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from memory_plugin.installer import options, report
from memory_plugin.installer.errors import MismatchError
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.transfer import backfill, comparing
from memory_plugin.installer.transfer.backfill import Doors, RefusedFile, Tally
from memory_plugin.installer.transfer.comparing import Compared
from memory_plugin.installer.transfer.earlier_table import Earlier
from memory_plugin.installer.transfer.progress import meter

_SHOWN = 10
_EPILOG = """\b
Examples:
  memory-plugin backfill --dry-run
  memory-plugin backfill --source-url postgresql://app@old.internal/app
  memory-plugin backfill --verify --sample 50"""


@click.command(name="backfill", epilog=_EPILOG)
@options.database
@click.option("--source-url", metavar="URL", help="Read agent_memories and workspaces from this database instead.")
@click.option("--dry-run", is_flag=True, help="Count by workspace and namespace; write nothing to the store.")
@click.option("--verify", is_flag=True, help="Compare contents, namespace by namespace, instead of writing.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="With --verify: compare N random namespaces.")
@click.option("--ignore-new", is_flag=True, help="With --verify: ignore memories whose id the source does not have.")
@click.option(
    "--batch-size", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Rows per transaction."
)
@click.option("--after", type=click.UUID, metavar="ID", help="Resume after this id, which an interrupted run printed.")
@click.option(
    "--refused",
    "refused_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("backfill-refused.ndjson"),
    show_default=True,
    help="File for the refused rows, each with its reason.",
)
@options.as_json
def command(
    database_url: str | None,
    source_url: str | None,
    dry_run: bool,
    verify: bool,
    sample: int | None,
    ignore_new: bool,
    batch_size: int,
    after: object,
    refused_file: Path,
    as_json: bool,
) -> None:
    """Copy memories from the platform's earlier table.

    Reads public.agent_memories, and the tree of workspaces in public.workspaces: LOCAL goes to workspace:ID, TEAM to
    team:PARENT (at the root, its own id), GLOBAL to org:ROOT. Ids, created_at and embeddings are kept. Safe to repeat
    and to interrupt: memories already there stay as they are, but gain an embedding that the source has got since.
    """
    if dry_run and verify:
        raise click.UsageError("--dry-run and --verify exclude each other")
    if not verify and (sample is not None or ignore_new):
        raise click.UsageError("--sample and --ignore-new belong to --verify")
    settings = options.settings(database_url=database_url)
    source_settings = settings if source_url is None else settings.with_url(source_url, "--source-url")
    with backfill.opened(settings, source_settings) as doors:
        earlier = backfill.look(doors)
        if verify:
            _verify(doors, earlier, as_json, size=batch_size, sample=sample, ignore_new=ignore_new)
            return
        tally = _run(
            doors, earlier, refused_file, size=batch_size, after=str(after) if after else None, dry_run=dry_run
        )
    _tell(tally, settings, dry_run, as_json)


def _run(doors: Doors, earlier: Earlier, refused_file: Path, *, size: int, after: str | None, dry_run: bool) -> Tally:
    """Run, and say where to go on when interrupted."""
    tally = Tally()
    # A dry run must not replace the file of the last real one.
    path = None if dry_run else refused_file
    with RefusedFile(path, keep=after is not None) as file, meter("backfill", earlier.rows) as shown:
        try:
            backfill.run(doors, earlier, shown, file.note, tally=tally, size=size, after=after, dry_run=dry_run)
        except BaseException:
            if tally.last_id and not dry_run:
                click.echo(
                    f"backfill: stopped; {tally.written} written so far are kept. "
                    f"Run it again from the start, or continue from there with: --after {tally.last_id}",
                    err=True,
                )
            raise
    if tally.refused and not dry_run:
        tally.refused_file = str(refused_file)
    return tally


def _tell(tally: Tally, settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Print what was done."""
    places = [
        {"workspace": workspace, "namespace": namespace, "memories": count}
        for (workspace, namespace), count in sorted(tally.places.items())
    ]
    if as_json:
        facts: dict[str, Any] = {**asdict(tally), "dry_run": dry_run, "places": places, "reasons": dict(tally.reasons)}
        report.print_json(facts)
        return
    if dry_run:
        rows = [(f"{place['workspace']} -> {place['namespace']}", f"{place['memories']}") for place in places]
        report.print_rows("memories by workspace and namespace", rows)
    would = "would be " if dry_run else ""
    counts = [
        ("read", tally.read),
        (f"{would}written", tally.written),
        (f"{would}updated", tally.updated),
        ("unchanged", tally.unchanged),
        ("refused", tally.refused),
    ]
    reasons = [(f"refused: {reason}", str(count)) for reason, count in tally.reasons.most_common()]
    report.print_rows(
        f"backfill into {settings.masked_url}",
        [(name, str(count)) for name, count in counts] + reasons,
        warnings=tally.warnings,
    )
    if tally.refused_file:
        click.echo(f"the refused rows, each with its reason: {tally.refused_file}")


def _verify(doors: Doors, earlier: Earlier, as_json: bool, *, size: int, sample: int | None, ignore_new: bool) -> None:
    """Compare, tell, and fail when the two sides differ."""
    with meter("verify", None if sample else earlier.rows) as shown:
        found = comparing.compare(doors, earlier, shown, size=size, sample=sample, ignore_new=ignore_new)
    different = [one for one in found.namespaces if not one.equal]
    if as_json:
        report.print_json(
            {
                "ok": not different,
                "namespaces": len(found.namespaces),
                "memories": sum(one.source for one in found.namespaces),
                "refused": found.refused,
                "different": [asdict(one) for one in different],
            }
        )
    else:
        for one in different:
            click.echo(f"differs: {_difference(one)}")
    if different:
        names = ", ".join(one.namespace for one in different[:_SHOWN])
        more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise MismatchError(f"{len(different)} of {len(found.namespaces)} namespaces differ: {names}{more}")
    if not as_json:
        click.echo(
            f"equal: {sum(one.source for one in found.namespaces)} memories in {len(found.namespaces)} namespaces"
            + (f"; {found.refused} rows of the source cannot be placed" if found.refused else "")
        )


def _difference(one: Compared) -> str:
    """Return a namespace's difference in words."""
    return (
        f"{one.namespace}: the source has {one.source}, the store {one.store}; "
        f"{one.missing} missing in the store, {one.extra} only in the store"
    )
