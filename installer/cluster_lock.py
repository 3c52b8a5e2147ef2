"""The lock that a server holds for as long as any of its processes lives, so that none is started beside it.

Nothing else tells of a server in another container, whose number, memory and socket cannot be seen from here: a second
one would destroy the data.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from memory_plugin.installer.errors import EmbeddedServerError

# How long processes are waited for that hold a server's lock and show no server: it begins, or what is left of it ends.
LINGER_S = 10


def take(handle: int, wait: Callable[[], None]) -> None:
    """Lock a file for ourselves; while somebody else has it, call `wait`, which may raise, and look again."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            wait()


def is_held(cluster: Path) -> bool:
    """Tell whether any process of a server that was launched lives, in whatever container."""
    try:
        with _handle(cluster) as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@contextlib.contextmanager
def taken(cluster: Path) -> Iterator[int]:
    """Yield the lock's handle, locked, for the server to inherit; wait until an earlier server is gone."""
    deadline = time.monotonic() + LINGER_S

    def wait() -> None:
        # The backends of a server that was killed take a moment to notice.
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"{cluster} is in use by a server of another container or PID namespace, or by what is left"
                " of one that was killed",
                hint="stop it where it runs, or choose another --data-dir: one folder is for one container",
            ) from None
        time.sleep(0.05)

    with _handle(cluster) as handle:
        take(handle, wait)
        yield handle


@contextlib.contextmanager
def _handle(cluster: Path) -> Iterator[int]:
    """Open what the server's lock is on: a folder that every cluster has."""
    handle = os.open(cluster / "base", os.O_RDONLY)
    _handles.add(handle)
    try:
        yield handle
    finally:
        # Not unlocked: the lock may be a server's by now.
        os.close(handle)
        _handles.discard(handle)


def _close_handles() -> None:
    """Close what was open when this process, a worker of the sidecar, was forked: it would hold the lock for ever."""
    while _handles:
        with contextlib.suppress(OSError):
            os.close(_handles.pop())


_handles: set[int] = set()
os.register_at_fork(after_in_child=_close_handles)
