"""Standard output that is closed, full, or left by its reader."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from memory_plugin.installer.errors import BadSettingError


@contextmanager
def binary() -> Iterator[BinaryIO]:
    """Yield standard output for bytes that must arrive; raises BadSettingError where they cannot."""
    if sys.stdout is None:
        raise BadSettingError("cannot write standard output: it is closed", hint="name a file instead of -")
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        give_up()
        told = f"cannot write standard output: {error.strerror}"
        raise BadSettingError(told, hint="let its reader read to the end, or name a file instead of -") from None


def give_up() -> None:
    """Let what is still to be written go nowhere: the interpreter would fail once more with it at its end."""
    # A test's standard output is no file.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
