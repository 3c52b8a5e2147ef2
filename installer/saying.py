"""Write a line to standard error: as text for people, or (MEMORY_PLUGIN_LOG=json) like the sidecar's log."""

from __future__ import annotations

import os
import sys

from memory_plugin.thin_api import log


def say(event: str, line: str, *, prefix: str = "", **facts: object) -> None:
    """Say one line; `event`, the facts and no prefix are what the JSON form has."""
    if os.environ.get("MEMORY_PLUGIN_LOG", "") != "json":
        log.write(f"{prefix}{line}", sys.stderr)
        return
    level = "error" if "exit_code" in facts else "warning" if line.lower().startswith("warning:") else "info"
    log.configure("json")
    log.log(event, level=level, message=line, **facts)
