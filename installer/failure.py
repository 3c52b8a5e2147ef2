"""Explain why a statement of one of our files failed."""

from __future__ import annotations

import psycopg

from memory_plugin.installer.connect import server_error
from memory_plugin.installer.errors import (
    InstallError,
    LockTimeoutError,
    MigrationFailedError,
    MissingPrivilegeError,
    ServerUnreachableError,
)
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.waiting import Watch


def statement_failure(
    error: psycopg.Error, settings: Settings, what: str, watch: Watch, kept: str = ""
) -> InstallError:
    """Return our error for a statement of `what`; `kept` says what stays done, when that is not nothing."""
    ours = server_error(error, settings, what)
    if isinstance(ours, LockTimeoutError):
        waited = f"{what} waited {settings.lock_timeout_s:g} s"
        return LockTimeoutError(f"{waited} for {watch.blockers or 'an unidentified session'}")
    if isinstance(ours, MissingPrivilegeError | ServerUnreachableError):
        return ours
    return MigrationFailedError(ours.detail, hint=f"mend the cause and run this again: {kept}" if kept else None)
