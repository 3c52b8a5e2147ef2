"""What other programs call: install, look, verify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from psycopg import IsolationLevel, errors

from memory_plugin import __version__
from memory_plugin.installer import access_check, apply, discover, foreign_code, plpython, sources, verify, waiting
from memory_plugin.installer import plan as planning
from memory_plugin.installer.connect import open_connection
from memory_plugin.installer.discover import Facts
from memory_plugin.installer.errors import InstallError, MissingPrivilegeError, VerifyFailedError, quoted
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.verify import Verdict

HEALTH_SECONDS = 2.0
_LOOKING = "looking at the database"


@dataclass(frozen=True)
class InstallResult:
    """What an installation did and what it found."""

    applied: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    functions: int = 0
    """Files of functions that were applied."""
    vector_schema: str = ""
    vector_version: str = ""
    dimensions: int = 0
    text_search_config: str = ""
    plpython: bool = False
    """True when the PL/Python functions are there."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: bool = False
    """True when MEMORY_PLUGIN_SKIP_MIGRATE kept the database from being touched."""


@dataclass(frozen=True)
class Status:
    """How a database stands: facts, and the plan for it or the reason why there is none."""

    facts: Facts
    plan: Plan | None
    problem: InstallError | None
    warnings: tuple[str, ...]
    earlier_in_public: tuple[tuple[str, int | None], ...]
    program_version: str = __version__

    @property
    def state(self) -> str:
        """Return the state in one word: absent, adoptable, pending, installed or refused."""
        if self.plan is None:
            return "refused"
        if self.plan.adopt:
            return "adoptable"
        if not self.plan.run:
            return "installed"
        return "pending" if self.facts.ledger else "absent"


def install(settings: Settings, report: Callable[[str], None] | None = None) -> InstallResult:
    """Bring the database to this program's state; safe to repeat and to run many times at once.

    `report` gets a line for each step. Raises InstallError, whose `exit_code` says which failure it is.
    """
    say = report or (lambda line: None)
    if settings.skip_migrate:
        say("skipped: MEMORY_PLUGIN_SKIP_MIGRATE is set")
        return InstallResult(skipped=True)
    source = sources.load(settings.migrations_dir)
    connection = open_connection(settings, "install")
    try:
        with waiting.naming(connection, settings, _LOOKING):
            waiting.prepare_transaction(connection, settings)
            public = planning.public_warnings(discover.earlier_in_public(connection), discover.COUNT_LIMIT)
            connection.rollback()
        work = apply.Apply(connection, settings, source, say)
        plan = work.run()
        with waiting.naming(connection, settings, _LOOKING):
            # One moment: a rival may be at work.
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            waiting.prepare_transaction(connection, settings)
            after = discover.facts(connection)
            left = verify.compare(connection, after, plan, source).differences
            strangers = access_check.strangers(connection)
            connection.rollback()
    finally:
        connection.close()
    warnings = (*plan.warnings, *public, *strangers, *_left(left))
    for warning in warnings:
        say(f"warning: {warning}")
    return InstallResult(
        applied=tuple(work.outcome.applied),
        adopted=tuple(work.outcome.adopted),
        functions=work.outcome.functions,
        vector_schema=after.vector.schema or "",
        vector_version=after.vector.installed or "",
        dimensions=plan.dimensions,
        text_search_config=plan.text_search_config,
        plpython=work.outcome.plpython,
        warnings=warnings,
        notes=tuple(work.outcome.notes),
    )


def _left(differences: tuple[str, ...]) -> tuple[str, ...]:
    """Return the warning about what no installation brings back."""
    if not differences:
        return ()
    more = f" and {len(differences) - 1} more" if len(differences) > 1 else ""
    return (
        f"the store is not as this program installs it: {differences[0]}{more}; memory-plugin verify says what to do",
    )


def is_healthy(settings: Settings) -> bool:
    """Ask the database what /v1/health asks it; False when that takes longer than HEALTH_SECONDS.

    Needs no more than the sidecar's own rights. Raises InstallError for a server, login or database that cannot serve.
    """
    with waiting.reading(settings, "health") as connection:
        connection.execute(f"set local statement_timeout = {round(HEALTH_SECONDS * 1000)}")
        try:
            connection.execute("select memory_plugin.v1_health()")
        except (errors.QueryCanceled, errors.LockNotAvailable):
            return False
        except (errors.InvalidSchemaName, errors.UndefinedFunction, errors.UndefinedTable) as error:
            raise VerifyFailedError(
                f"it holds no store of this program's ({error.diag.message_primary})",
                hint="run memory-plugin install first, or leave out MEMORY_PLUGIN_SKIP_MIGRATE",
            ) from None
        except errors.InsufficientPrivilege as error:
            raise MissingPrivilegeError(
                error.diag.message_primary or "",
                hint=f"have an administrator run: grant memory_plugin_api to {quoted(connection.info.user)}",
            ) from None
    return True


def status(settings: Settings) -> Status:
    """Look at the database in a read-only transaction; what would make `install` refuse is told, not raised."""
    source = sources.load(settings.migrations_dir)
    with waiting.reading(settings, "status") as connection:
        facts = discover.facts(connection)
        public = discover.earlier_in_public(connection)
        plan: Plan | None = None
        problem: InstallError | None = None
        try:
            made = planning.make(facts, source, settings, plpython.names())
            foreign_code.refuse(connection, facts, source, made)
            plan = made
        except InstallError as error:
            problem = error
    warnings = (*(plan.warnings if plan else ()), *planning.public_warnings(public, discover.COUNT_LIMIT))
    return Status(facts=facts, plan=plan, problem=problem, warnings=warnings, earlier_in_public=public)


def verify_store(settings: Settings) -> Verdict:
    """Compare the database with what this program installs, in a read-only transaction."""
    source = sources.load(settings.migrations_dir)
    with waiting.reading(settings, "verify") as connection:
        facts = discover.facts(connection)
        # A store is judged by what it holds: only `install` has wishes.
        plan = planning.make(facts, source, replace(settings, plpython="auto"), plpython.names())
        return verify.compare(connection, facts, plan, source)
