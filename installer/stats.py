"""What `status` says of a store's contents: reads `memory_plugin.stats()` and puts it into words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory_plugin.installer import rules
from memory_plugin.installer.errors import InstallError
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.waiting import reading

# It reads every row once; whoever asks how a database stands does not want to be what it suffers from.
LIMIT_SECONDS = 15
# Whoever may put another in its place is not to run it with the rights of whoever asks, perhaps a superuser. Ours runs
# with its owner's, and so does all that it calls.
_OURS = """
select from pg_catalog.pg_proc as p
where p.oid = pg_catalog.to_regprocedure('memory_plugin.stats()') and p.prosecdef
"""


@dataclass(frozen=True)
class Stats:
    """The object that stats() returned, or why there is none."""

    facts: Mapping[str, Any] | None
    problem: str = ""


def read(settings: Settings) -> Stats:
    """Count what the store holds, in a read-only transaction of at most LIMIT_SECONDS; never raises."""
    try:
        with reading(settings, "stats") as connection:
            connection.execute(f"set local statement_timeout = '{LIMIT_SECONDS}s'".encode())
            if connection.execute(_OURS).fetchone() is None:
                return Stats(None, "the function memory_plugin.stats() is not there, or is not ours")
            row = connection.execute("select memory_plugin.stats()").fetchone()
    except InstallError as error:
        return Stats(None, error.message)
    return Stats(row[0] if row and isinstance(row[0], dict) else None)


def rows(stats: Stats) -> Sequence[tuple[str, str]]:
    """Return the counts and sizes as names and values for people."""
    facts = stats.facts
    if facts is None:
        return [("contents", f"not counted: {stats.problem}")] if stats.problem else []
    namespaces, memories = facts["namespaces"], facts["memories"]
    kinds = ", ".join(f"{memories[kind]:,} {kind}" for kind in rules.KINDS)
    return [
        ("capabilities", ", ".join(facts["capabilities"] or ())),
        ("namespaces", f"{namespaces['live']:,}"),
        ("memories", f"{memories['live']:,} ({kinds})"),
        ("pinned", f"{memories['pinned']:,}"),
        ("without embedding", f"{memories['without_embedding']:,}"),
        *change_rows(facts.get("reembedding")),
        ("expired, not yet swept", f"{memories['expired']:,} memories, {namespaces['expired']:,} namespaces"),
        ("tables", _sizes(facts["bytes"])),
        ("indexes", _sizes(facts["index_bytes"])),
    ]


def change_rows(change: Mapping[str, Any] | None) -> Sequence[tuple[str, str]]:
    """Return a row that says of a change of the model that is not ended how far it is, and what goes on or back."""
    if change is None:
        return []
    to = f"to {change['model']} ({change['dimensions']} dimensions)"
    if change["stage"] == "swapped":
        how = "done: memory-plugin reembed --finish drops the former vectors"
    else:
        refused = f", {change['refused']:,} refused" if change["refused"] else ""
        again = f"memory-plugin reembed --model {shlex.quote(change['model'])} --dimensions {change['dimensions']}"
        how = f"{change['done']:,} of {change['memories']:,} memories{refused}: {again} goes on"
    return [("change of the model", f"{to}, {how}, --abort goes back")]


def size(number: int) -> str:
    """Return a number of bytes as people write it, in powers of 1024."""
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"


def _sizes(sizes: Mapping[str, int] | None) -> str:
    """Return sizes, their sum first and then the largest first."""
    if not sizes:
        return "none"
    largest_first = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    parts = ", ".join(f"{name} {size(number)}" for name, number in largest_first)
    return f"{size(sum(sizes.values()))}: {parts}"
