"""One line to standard error for each thing that an operator should know; never content, names or secrets."""

from __future__ import annotations

import sys
from datetime import datetime, timezone


def log(event: str, **facts: object) -> None:
    """Write one line: time, event, and the facts as key=value."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
    # One write, so that lines of several threads do not mix.
    sys.stderr.write(f"{now} memory-plugin {event}{pairs}\n")
    sys.stderr.flush()


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if text and not set(text) & set(' "=') else '"' + text.replace('"', "'") + '"'
