"""One line to standard error for each thing that an operator should know; never content, names or secrets."""

from __future__ import annotations

import sys
import threading
from datetime import datetime, timezone
from time import monotonic

# Of failed requests. An outage under load has thousands a second, which all say the same.
FAILURES_A_SECOND = 100

_lock = threading.Lock()
_second = 0.0
_count = 0
_left_out = 0


def log(event: str, **facts: object) -> None:
    """Write one line: time, event, and the facts as key=value."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    pairs = "".join(f" {key}={_shown(value)}" for key, value in facts.items())
    # One write, so that lines of several threads do not mix.
    sys.stderr.write(f"{now} memory-plugin {event}{pairs}\n")
    sys.stderr.flush()


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
        log("failed_too", count=left_out)
    log("failed", **facts)


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if text and not set(text) & set(' "=') else '"' + text.replace('"', "'") + '"'
