"""Open connections for the installer, and turn the driver's errors into ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from memory_plugin.installer import conninfo, dsn
from memory_plugin.installer.errors import (
    BadSettingError,
    InstallError,
    LockTimeoutError,
    LoginRefusedError,
    MissingPrivilegeError,
    ServerUnreachableError,
    one_line,
    quoted,
    standby_error,
)
from memory_plugin.installer.settings import Settings

Connection = psycopg.Connection[tuple[object, ...]]

KEEPALIVES = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
"""A connection whose other end went away without a word is found out within a minute, unless the URL says else."""

# libpq gives no SQLSTATE for a refused login: the server's words are all there is, and only English ones are known.
_NOT_NOW = re.compile(
    r"too many (clients|connections)|connection slots|starting up|shutting down|in recovery mode|not yet accepting"
)
_REFUSED = re.compile(
    r"authentication failed|no password supplied|password is required|no pg_hba\.conf entry|no such (user|database)"
    r"|not (currently accepting|permitted to log in)|(role|database) .* does not exist|permission denied for database"
    r"|pg_hba\.conf rejects|must not be empty|valid client certificate|connect to invalid database|(SSL|TLS) required"
)
_TOO_FEW = re.compile(r"too many connections for (role|database) ")
# What the server says has two blanks after its first word, in every language; libpq by itself says nothing like it.
_ANSWERED = re.compile(r"failed: [^:\n]+:  ")
# What asking again does not change: libpq refuses a value, or what the URL asks of SSL is not to be had.
_BAD_VALUE = re.compile(
    r'invalid "?\w+"? value|invalid integer value|bad value for|invalid port number|weak sslmode'
    r"|invalid value for parameter|unrecognized configuration parameter|unsupported startup parameter"
    r"|authentication method requirement .* failed|GSSAPI encryption required"
)
_NO_SERVICE = re.compile(r"service file .* not found|definition of service .* not found|in service file")
_NO_USER = re.compile(r"local user with ID \d+ does not exist|could not look up local user ID")
_NO_SSL = re.compile(r"server does not support SSL|channel binding required, but SSL not in use")
_BAD_CERTIFICATE = re.compile(
    r"certificate verify failed|does not match host name|certificate file .* does not exist"
    r"|could not read .*certificate"
)
_TAKES_NONE = "The server answers and takes no connection"
_NO_DATABASE = re.compile(r'database "?(?P<name>[^"]*)"? does not exist|no such database: (?P<other>\S+)')


def open_connection(settings: Settings, purpose: str, *, autocommit: bool = False) -> Connection:
    """Connect for `purpose` (it shows in pg_stat_activity), or raise exit 10, 11 or 21.

    The search_path stays out of the startup packet, which PgBouncer may refuse: every statement here is qualified.
    """
    url = dsn.without_search_path(settings.conninfo)
    given = conninfo.parse(url)
    keepalives: dict[str, Any] = {name: value for name, value in KEEPALIVES.items() if given.get(name) is None}
    try:
        connection = psycopg.connect(
            url,
            autocommit=autocommit,
            connect_timeout=max(1, round(settings.connect_timeout_s)),
            application_name=f"memory-plugin {purpose}",
            # Not what PGCLIENTENCODING says: memories pass through as the bytes they are, and JSON is UTF-8.
            client_encoding="utf8",
            prepare_threshold=None,
            **keepalives,
        )
    except psycopg.Error as error:
        raise connection_error(error, settings) from None
    except UnicodeError:
        # Of Python's own look for the host's address.
        source = settings.url_source or "the database URL"
        raise BadSettingError(
            f"{source} has a host that is no name: between its dots stand 1 to 63 characters each"
        ) from None
    # Said outright, because a role or database may have other defaults.
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.read_only = False
    return connection


def connection_error(error: psycopg.Error, settings: Settings) -> InstallError:
    """Return our error for a connection that could not be made."""
    text = _detail(error, settings)
    if _BAD_VALUE.search(text):
        return BadSettingError(text, hint="correct that parameter of DATABASE_URL")
    if _NO_SERVICE.search(text):
        return BadSettingError(text, hint="correct the service in DATABASE_URL, or its file (PGSERVICEFILE)")
    if _NO_USER.search(text):
        return BadSettingError(text, hint="name a user in DATABASE_URL")
    if (error.sqlstate or "").startswith("28") or error.sqlstate == "3D000":
        return _login_refused(text)
    if _TOO_FEW.search(text):
        hint = "raise the CONNECTION LIMIT: install needs two connections at once, and three while it waits"
        return ServerUnreachableError(text, stem=_TAKES_NONE, hint=hint)
    if _NOT_NOW.search(text):
        hint = "the server is there and takes no connection now: run this again"
        return ServerUnreachableError(text, stem=_TAKES_NONE, hint=hint)
    if _NO_SSL.search(text):
        hint = "set sslmode in DATABASE_URL to disable, or to prefer, or turn on ssl at the server"
        return BadSettingError(text, hint=hint)
    if _BAD_CERTIFICATE.search(text):
        return BadSettingError(text, hint="check host, sslmode and sslrootcert in DATABASE_URL")
    if _REFUSED.search(text):
        return _login_refused(text)
    if _ANSWERED.search(str(error)):
        # It may pass: a server that starts, or is full, says so in a language of its own.
        hint = f"run this again if it is starting or full; else {LoginRefusedError.default_hint}"
        return ServerUnreachableError(text, stem=_TAKES_NONE, hint=hint)
    return ServerUnreachableError(text)


def server_error(error: psycopg.Error, settings: Settings, doing: str, blockers: str = "") -> InstallError:
    """Return our error for a statement that failed while `doing` something; `blockers` are whom it waited for."""
    text = f"{doing}: {_detail(error, settings)}"
    state = error.sqlstate or ""
    # Behind a pooler, which does not pass on what the server says of itself, its words are all there is.
    if state in ("0A000", "25006") and "during recovery" in text:
        return standby_error()
    if state == "55P03":
        return LockTimeoutError(f"{doing} waited {settings.lock_timeout_s:g} s for {blockers}" if blockers else text)
    if state == "42501":
        return MissingPrivilegeError(text)
    if state == "25006":
        return MissingPrivilegeError(text, hint="the server or this role's settings allow reading only")
    if state.startswith(("08", "57P")) or (not state and isinstance(error, psycopg.OperationalError)):
        hint = "run this again: what was applied is kept"
        return ServerUnreachableError(f"the connection was lost while {text}", hint=hint)
    # A full disk, no memory, a file that cannot be read, no transaction id left: no fault of ours to report.
    servers_own = state.startswith(("53", "58")) or state == "54000"
    advice = "mend that at the server, then run this again" if servers_own else None
    return InstallError(f"{text}{f' (SQLSTATE {state})' if state else ''}", hint=advice)


@contextmanager
def set_back(connection: Connection, names: Iterable[str]) -> Iterator[None]:
    """Set these settings of the session back at the end: behind a pooler the server's connection lives on with them.

    Best effort: on a connection that is lost there is nothing to set back.
    """
    try:
        yield
    finally:
        for name in names:
            with suppress(psycopg.Error):
                connection.execute(f"reset {name}".encode())


def _login_refused(text: str) -> LoginRefusedError:
    """Return the refusal; a database that is not there gets its own advice."""
    match = _NO_DATABASE.search(text)
    if match:
        name = match["name"] or match["other"]
        return LoginRefusedError(text, hint=f"correct the database in DATABASE_URL, or: create database {quoted(name)}")
    return LoginRefusedError(text)


def _detail(error: psycopg.Error, settings: Settings) -> str:
    """Return what the server or libpq said, on one line and without the password."""
    text = error.diag.message_primary or str(error)
    return re.sub(r"^connection (failed|is bad): ", "", one_line(dsn.scrub(text, settings.database_url)))
