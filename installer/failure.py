"""Explain why a statement of one of our files failed, and what nobody foresaw."""

from __future__ import annotations

import os

import psycopg

from memory_plugin.installer import dsn
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


def known(error: Exception) -> InstallError:
    """Return an error as one of ours, without the passwords of the environment's URLs."""
    if isinstance(error, InstallError):
        return error
    # The text of these quotes what it is about, a letter of a password perhaps.
    text = error.reason if isinstance(error, UnicodeDecodeError | UnicodeEncodeError) else str(error)
    urls = (os.environ.get(name) for name in ("MEMORY_PLUGIN_DATABASE_URL", "DATABASE_URL"))
    return InstallError(f"{type(error).__name__}: {dsn.scrub(text, *urls)}")
