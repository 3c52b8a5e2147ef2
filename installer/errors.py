"""The installer's failures: one class per exit code, each a single line that ends with what to do next."""

from __future__ import annotations

import re
from typing import ClassVar

from psycopg import sql

PROGRAM = "memory-plugin"


class InstallError(Exception):
    """Unexpected failure."""

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run the command again with --verbose, and report what it prints"

    def __init__(self, detail: str = "", *, hint: str | None = None, stem: str | None = None) -> None:
        """Take what is particular to this failure and, when better than the usual, what to do next and its sentence."""
        self.stem = stem or (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")
        self.detail = one_line(detail)
        self.hint = one_line(self.default_hint if hint is None else hint)
        super().__init__(f"{self.stem}: {self.detail}" if self.detail else self.stem)

    @property
    def message(self) -> str:
        """Return what went wrong, without the advice."""
        return str(self.args[0])

    @property
    def line(self) -> str:
        """Return the one line for standard error."""
        return f"{PROGRAM}: {self.message} -- {self.hint}" if self.hint else f"{PROGRAM}: {self.message}"

    def __str__(self) -> str:
        """Return message and advice, as the log of a tenant's boot should show them."""
        return f"{self.message} -- {self.hint}" if self.hint else self.message


class UsageError(InstallError):
    """Wrong use of the command."""

    exit_code = 2
    default_hint = "see memory-plugin --help"


class ServerUnreachableError(InstallError):
    """No Postgres server answers."""

    exit_code = 10
    default_hint = "check host and port in DATABASE_URL, and that the server is running"


class LoginRefusedError(InstallError):
    """The server refuses the login."""

    exit_code = 11
    default_hint = "check user, password and database in DATABASE_URL, and the server's pg_hba.conf"


class VectorMissingError(InstallError):
    """The pgvector extension is not installed on the server."""

    exit_code = 12
    default_hint = "install the package postgresql-N-pgvector (N: the server's major version), then run this again"


class VectorTooOldError(InstallError):
    """The pgvector extension is too old."""

    exit_code = 13
    default_hint = "install a newer postgresql-N-pgvector, then: alter extension vector update"


class ExtensionForbiddenError(InstallError):
    """This role may not create the extension."""

    exit_code = 14
    default_hint = "have a database administrator run: create extension vector schema public"


class PlpythonMissingError(InstallError):
    """PL/Python is required and cannot be had."""

    exit_code = 15
    default_hint = "install postgresql-plpython3-N and connect as superuser, or set MEMORY_PLUGIN_PLPYTHON=auto"


class MigrationChangedError(InstallError):
    """A migration that was applied has been changed or removed."""

    exit_code = 16
    default_hint = "put the released file back; a change of state is always a new migration"


class DatabaseNewerError(InstallError):
    """The database was installed by a newer program."""

    exit_code = 17
    default_hint = "upgrade memory-plugin to at least the version the database names"


class LockTimeoutError(InstallError):
    """A lock was not obtained in time."""

    exit_code = 18
    default_hint = (
        "wait for the other installation or the long transaction to end, then run this again; "
        "if the program behind it no longer runs: select pg_terminate_backend(PID)"
    )


class MigrationFailedError(InstallError):
    """A migration failed and was rolled back."""

    exit_code = 19
    default_hint = "mend the cause and run this again; what was applied before it is kept"


class DimensionsDifferError(InstallError):
    """The store holds embeddings of other dimensions."""

    exit_code = 20
    default_hint = "leave out --dimensions, or set it to what the store holds"


class BadSettingError(InstallError):
    """A setting is not valid."""

    exit_code = 21
    default_hint = "correct it and run this again"


class MissingPrivilegeError(InstallError):
    """A privilege is missing."""

    exit_code = 22
    default_hint = "connect as the owner of the schema memory_plugin, or as the database's owner"


class SidecarFailedError(InstallError):
    """The sidecar did not come up."""

    exit_code = 26
    default_hint = "its own lines above say why; check MEMORY_PLUGIN_LISTEN_ADDR and that nothing else listens there"


class VerifyFailedError(InstallError):
    """The database is not as this program installs it."""

    exit_code = 23
    default_hint = "run memory-plugin install, then memory-plugin verify, which says what to do about the rest"


class EmbeddedServerError(InstallError):
    """The embedded server failed."""

    exit_code = 24
    default_hint = "see the server's log, or give a server of your own with --database-url"


class ForeignSchemaError(InstallError):
    """The schema memory_plugin is not a store that this program can adopt."""

    exit_code = 25
    default_hint = "use another database, or move what the schema holds to a schema of its own"


class MismatchError(InstallError):
    """The store does not hold what its source holds."""

    exit_code = 27
    default_hint = "run memory-plugin backfill again, and look into its file of refused rows"


class ImportRefusedError(InstallError):
    """The file breaks a rule, and nothing was imported."""

    exit_code = 28
    default_hint = "mend the lines named and run this again"


class ConflictError(InstallError):
    """Rows stand in the way, and nothing was changed."""

    exit_code = 29
    default_hint = "look at both and remove or change one of them, then run this again"


class DependentsError(InstallError):
    """Objects outside the schema memory_plugin depend on it, and nothing was dropped."""

    exit_code = 30
    default_hint = "drop or change them, then run this again"


class ProviderError(InstallError):
    """The embedding provider did not give a right embedding."""

    exit_code = 31
    default_hint = "check url, model and key (memory-plugin embedding show), and that the database's server reaches it"


def standby_error() -> BadSettingError:
    """Return the error for a server that takes no writes."""
    return BadSettingError("the server is a standby, which takes no writes", hint="give the primary's address")


def quoted(name: str) -> str:
    """Return a role's or database's name as the SQL of a hint writes it."""
    return sql.Identifier(name).as_string()


def one_line(text: str) -> str:
    """Return text with every run of white space as one space."""
    return re.sub(r"\s+", " ", text).strip()
