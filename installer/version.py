"""Compare versions, of extensions and of this program."""

from __future__ import annotations

import re


def number(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: '0.8.5' -> (0, 8, 5); what has none sorts before everything."""
    match = re.match(r"\d+(\.\d+)*", text.strip())
    return tuple(int(part) for part in match.group().split(".")) if match else ()
