"""One line to standard error for each thing that an operator should know; never content, names or secrets.

As text for people, or (MEMORY_PLUGIN_LOG=json) as one JSON object with ts, level, event and the facts.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from contextlib import suppress
from datetime import datetime, timezone
from time import monotonic
from typing import TextIO

# Of failed requests. An outage under load has thousands a second, which all say the same.
FAILURES_A_SECOND = 100

FORMATS = ("text", "json")

# Longest wait for a pipe that is full.
PATIENCE_S = 0.2

_format = "text"
_patience = PATIENCE_S
_lock = threading.Lock()
_second = 0.0
_count = 0
_left_out = 0


def configure(form: str) -> None:
    """Write lines in this format from now on, one of FORMATS."""
    global _format
    _format = form


def log(event: str, *, level: str = "info", **facts: object) -> None:
    """Write one line: time, level (info, warning or error), event, and the facts."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    if _format == "json":
        line = json.dumps({"ts": now, "level": level, "event": event, "program": "memory-plugin", **facts}, default=str)
    else:
        pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
        line = f"{now} memory-plugin {'' if level == 'info' else level.upper() + ' '}{event}{pairs}"
    write(line, sys.stderr)


def write(line: str, stream: TextIO | None) -> None:
    """Write one line to standard output or error; where those do not take it, it is lost.

    A full disk, nobody at the pipe's other end, or nobody who reads there, is no reason to serve nobody.
    """
    # None: the file was closed before the program began.
    if stream is None:
        return
    with suppress(OSError, ValueError):
        try:
            number = stream.fileno()
        except OSError:
            # No file of the system's: a test's.
            stream.write(f"{line}\n")
            return
        # Past Python's buffer, which keeps what could not be written and fails again at the program's end.
        data = f"{line}\n".encode(stream.encoding, "backslashreplace")
        # One write for all but long lines, so that lines of several threads do not mix.
        for start in range(0, len(data), select.PIPE_BUF):
            if not _has_room(number):
                return
            os.write(number, data[start : start + select.PIPE_BUF])


def _has_room(number: int) -> bool:
    """Tell whether a write of PIPE_BUF does not block, after a wait, unless the last one was in vain."""
    global _patience
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    found = bool(poll.poll(_patience * 1000))
    _patience = PATIENCE_S if found else 0
    return found


def log_failure(**facts: object) -> None:
    """Write the line of a failed request; beyond FAILURES_A_SECOND only how many there were."""
    global _second, _count, _left_out
    with _lock:
        now = monotonic()
        left_out = 0
        if now - _second >= 1:
            _second, _count = now, 0
            left_out, _left_out = _left_out, 0
        _count += 1
        if _count > FAILURES_A_SECOND:
            _left_out += 1
            return
    if left_out:
        log("failed_too", level="error", count=left_out)
    log("failed", level="error", **facts)


class Handler(logging.Handler):
    """Writes what the server's own logger says as lines of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, of its message the first line: below that may be anything."""
        level = record.levelname.lower() if record.levelno < logging.ERROR else "error"
        log("server", level=level, message=record.getMessage().partition("\n")[0])


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if text and not set(text) & set(' "=') else '"' + text.replace('"', "'") + '"'
