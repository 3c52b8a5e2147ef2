"""Decide, from facts alone, what an installation would do, or why it must not begin. No I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from memory_plugin import __version__
from memory_plugin.installer import access_check, inventory, sources
from memory_plugin.installer.discover import LEDGER, TABLES, Facts, LedgerRow
from memory_plugin.installer.errors import (
    BadSettingError,
    DatabaseNewerError,
    DimensionsDifferError,
    ForeignSchemaError,
    MigrationChangedError,
    MissingPrivilegeError,
    PlpythonMissingError,
    VectorMissingError,
    VectorTooOldError,
    quoted,
    standby_error,
)
from memory_plugin.installer.settings import Settings
from memory_plugin.installer.shape import missing_from_shape
from memory_plugin.installer.sources import Migration, Sources
from memory_plugin.installer.version import number

MIN_POSTGRES = 15
MIN_VECTOR = "0.7.0"
"""halfvec came with it, and the copy of the embeddings that is searched is of halfvec."""
GOOD_VECTOR = "0.8.4"
ITERATIVE_VECTOR = "0.8.0"
DEFAULT_DIMENSIONS = 1536
DEFAULT_TEXT_SEARCH_CONFIG = "english"
BOOTSTRAP = "000_schema_bootstrap"
# Names that the database gives are written into SQL between quotes and between $function$.
_ENDS_A_LITERAL = re.compile(r"['$\\]")
FIRST_SHAPE = "001_memory_v2"


@dataclass(frozen=True)
class Plan:
    """What an installation would do to a database."""

    adopt: tuple[Migration, ...]
    """Recorded as applied without being run: the tables are there from an earlier boot."""
    run: tuple[Migration, ...]
    indexes: tuple[str, ...]
    """Built again: a migration that has run made them, and they are missing or unfinished."""
    create_vector: bool
    vector_schema: str
    """Where the vector extension is or will be, quoted."""
    dimensions: int
    text_search_config: str
    plpython: str
    """What happens to the PL/Python functions: apply, keep, drop or skip."""
    plpython_reason: str
    warnings: tuple[str, ...]

    @property
    def placeholders(self) -> dict[str, str]:
        """Return the values that the SQL files are rendered with."""
        return sources.placeholders(self.vector_schema, self.dimensions, self.text_search_config)


def make(facts: Facts, source: Sources, settings: Settings, plpython_names: Sequence[str] = ()) -> Plan:
    """Return the plan, or raise the error that says why there is none."""
    _check_server(facts)
    rows = {row.name: row for row in facts.ledger or ()}
    warnings = [*_check_ledger(rows, source)]
    require_store(facts)
    adopt = _adoptable(facts, source, rows)
    run = tuple(m for m in source.migrations if m.name not in rows and m not in adopt)
    _check_rights(facts, run or adopt)
    warnings += _check_vector(facts, source)
    plpython, reason = _plpython(facts, settings.plpython, plpython_names)
    vector_schema = facts.vector.schema or "memory_plugin"
    dimensions = _dimensions(facts, settings.dimensions)
    text_search_config = _text_search_config(facts, settings.text_search_config)
    values = sources.placeholders(vector_schema, dimensions, text_search_config)
    return Plan(
        adopt=adopt,
        run=run,
        indexes=() if run or adopt else _indexes(facts, inventory.read(source, values).indexes),
        create_vector=facts.vector.installed is None,
        vector_schema=vector_schema,
        dimensions=dimensions,
        text_search_config=text_search_config,
        plpython=plpython,
        plpython_reason=reason,
        warnings=tuple(warnings),
    )


def vector_warnings(version: str) -> tuple[str, ...]:
    """Return what a pgvector version that works is still known to get wrong."""
    warnings: list[str] = []
    if number(version) < number(ITERATIVE_VECTOR):
        warnings.append(
            f"pgvector {version} has no iterative index scan (it came with 0.8.0): searches by embedding find "
            "as much, but go row by row through a large namespace when their filters leave the graph too few"
        )
    if number(version) < number(GOOD_VECTOR):
        warnings.append(
            f"pgvector {version}: 0.8.2 fixes a memory overflow in parallel HNSW builds, 0.8.3 and 0.8.4 fix HNSW "
            f"vacuum; upgrade to {GOOD_VECTOR} or newer"
        )
    return tuple(warnings)


def public_warnings(found: Sequence[tuple[str, int | None]], limit: int) -> tuple[str, ...]:
    """Return what to say of tables that an earlier boot left in `public`."""
    if not found:
        return ()
    told: list[str] = []
    for name, rows in found:
        count = "rows unknown" if rows is None else f"more than {limit} rows" if rows > limit else f"{rows} rows"
        told.append(f"public.{name} ({count})")
    return (
        f"an earlier boot left {' and '.join(told)}; this store does not read them: "
        "memory-plugin adopt-public moves their rows",
    )


def _check_server(facts: Facts) -> None:
    """Refuse a server that cannot hold a store."""
    if facts.major < MIN_POSTGRES:
        raise BadSettingError(
            f"the server is PostgreSQL {facts.server_version_text}",
            hint=f"PostgreSQL {MIN_POSTGRES} or newer is needed",
        )
    if facts.in_recovery:
        raise standby_error()
    if facts.encoding != "UTF8":
        raise BadSettingError(
            f"the database {facts.database} has the encoding {facts.encoding}",
            hint="use a database made with encoding UTF8",
        )


def _check_ledger(rows: dict[str, LedgerRow], source: Sources) -> list[str]:
    """Refuse a database that is newer, or whose past is not what this program knows; return warnings."""
    known = {migration.name: migration for migration in source.migrations}
    highest = max(migration.number for migration in source.own)
    warnings: list[str] = []
    for row in sorted(rows.values(), key=lambda row: row.name):
        migration = known.get(row.name)
        if migration is not None:
            if migration.sha256 != row.sha256:
                raise MigrationChangedError(
                    f"{row.name} has sha256 {migration.sha256[:12]} here and {row.sha256[:12]} where it was applied, "
                    f"by memory-plugin {row.program_version}"
                )
        elif row.name.startswith(sources.EXTRA):
            if source.extra_dir:
                raise MigrationChangedError(
                    f"{row.name} was applied and is no longer in MEMORY_PLUGIN_MIGRATIONS_DIR", hint="put the file back"
                )
            warnings.append(f"{row.name} was applied, and MEMORY_PLUGIN_MIGRATIONS_DIR is not set now")
        elif (number(row.name) or (0,))[0] > highest or number(row.program_version) > number(__version__):
            raise DatabaseNewerError(
                f"it has {row.name}, applied by memory-plugin {row.program_version}; this is {__version__}"
            )
        else:
            raise MigrationChangedError(
                f"{row.name}, applied by memory-plugin {row.program_version}, is missing from this one, {__version__}"
            )
    return warnings


def require_store(facts: Facts) -> None:
    """Refuse a schema memory_plugin that someone else made for something else, or whose tables are others'."""
    _check_schema(facts)
    if facts.ledger is not None and any(row.name == FIRST_SHAPE for row in facts.ledger):
        return
    missing = missing_from_shape(facts)
    if missing:
        raise ForeignSchemaError(
            f"its tables lack: {'; '.join(missing)}",
            hint="give the tables the shape of sql/migrations/001_memory_v2.up.sql, or move them to another schema",
        )


def _check_schema(facts: Facts) -> None:
    """Refuse a schema without any of our tables that holds something."""
    if facts.ledger is not None or not facts.schema_exists:
        return
    if any(facts.table(name) for name in TABLES):
        if facts.table(LEDGER) is not None:
            raise ForeignSchemaError(f"its table {LEDGER} has not the columns of ours")
        return
    strangers = [*(table.name for table in facts.tables), *facts.functions, *facts.types]
    if strangers:
        shown = ", ".join(sorted(set(strangers))[:5])
        raise ForeignSchemaError(f"it holds {len(set(strangers))} things that are not ours and no ledger: {shown}")


def _adoptable(facts: Facts, source: Sources, rows: dict[str, LedgerRow]) -> tuple[Migration, ...]:
    """Return the migrations whose work an earlier program did; `require_store` has found that it did."""
    if FIRST_SHAPE in rows or not any(facts.table(name) for name in TABLES):
        return ()
    if not all(facts.table(name) for name in TABLES):
        # A boot that died between the two tables: 001 makes the one that is missing.
        return ()
    return tuple(m for m in source.own if m.name in (BOOTSTRAP, FIRST_SHAPE) and m.name not in rows)


def _indexes(facts: Facts, wanted: frozenset[str]) -> tuple[str, ...]:
    """Return those of the wanted indexes that are missing or unfinished."""
    return tuple(sorted(wanted - set(facts.indexes) | wanted & set(facts.invalid_indexes)))


def _check_rights(facts: Facts, changes: Sequence[Migration]) -> None:
    """Refuse early what the server would refuse half-way."""
    if not facts.schema_exists:
        if not facts.can_create_schema:
            # Not a schema made for the role, which an owner who is no member of it may not make.
            raise MissingPrivilegeError(
                f"role {facts.role} may not create a schema in database {facts.database}",
                hint=f"have its owner run: grant create on database {quoted(facts.database)} to {quoted(facts.role)}",
            )
    elif not (facts.schema_usable and facts.can_create_in_schema):
        # With a grant alone it could not let our roles use the schema.
        fresh = f"have a superuser run: alter schema memory_plugin owner to {quoted(facts.role)}"
        held = "connect as its owner, or as a member of the role that owns the store's tables"
        raise MissingPrivilegeError(
            f"role {facts.role} may not create in the schema memory_plugin", hint=held if facts.tables else fresh
        )
    foreign = [table.name for table in facts.tables if table.name in (*TABLES, LEDGER) and not table.owned]
    if foreign and changes:
        raise MissingPrivilegeError(
            f"role {facts.role} does not own {', '.join(f'memory_plugin.{name}' for name in foreign)}",
            hint="connect as the owner of the schema memory_plugin",
        )


def _check_vector(facts: Facts, source: Sources) -> tuple[str, ...]:
    """Refuse a pgvector that is absent, too old or out of reach; return warnings."""
    vector = facts.vector
    if vector.schema is not None and _ENDS_A_LITERAL.search(vector.schema):
        raise BadSettingError(
            f"pgvector is in the schema {vector.schema}, which has a quote, a $ or a backslash in its name",
            hint="have its owner rename it: alter schema ... rename to ...",
        )
    package = f"postgresql-{facts.major}-pgvector"
    if vector.installed is None:
        if vector.available is None:
            raise VectorMissingError(
                f"the package is {package} (Debian, Ubuntu) or pgvector_{facts.major} (RPM)",
                hint=f"install it on the database server, or use the image pgvector/pgvector:pg{facts.major}",
            )
        if number(vector.available) < number(MIN_VECTOR):
            raise VectorTooOldError(
                f"the server has {vector.available} and {MIN_VECTOR} is needed", hint=f"install a newer {package}"
            )
        # Only a warning: managed services let roles create extensions that the catalogue says they may not.
        doubt = f"by the catalogue, role {facts.role} may not create the extension vector"
        return (*(() if vector.creatable else (doubt,)), *vector_warnings(vector.available))
    if number(vector.installed) < number(MIN_VECTOR):
        newer = number(vector.available or "") >= number(MIN_VECTOR)
        update = "alter extension vector update"
        raise VectorTooOldError(
            f"the database has {vector.installed} and {MIN_VECTOR} is needed",
            hint=f"run: {update}" if newer else f"install a newer {package}, then run: {update}",
        )
    if not vector.usable:
        raise MissingPrivilegeError(
            f"role {facts.role} may not use the schema {vector.schema}, where pgvector is",
            hint=f"have its owner run: grant usage on schema {vector.schema} to {quoted(facts.role)}",
        )
    lacking = access_check.vector_grants(facts.vector_refused, source, facts.role)
    if lacking:
        raise MissingPrivilegeError(
            f"role {facts.role} may not use functions or types of pgvector, as public may elsewhere",
            hint=f"have their owner or a superuser run: {lacking}",
        )
    return vector_warnings(vector.installed)


def _dimensions(facts: Facts, wanted: int | None) -> int:
    """Return the store's dimensions, or the wanted ones for a fresh store."""
    held = facts.dimensions
    if held is None:
        return wanted or DEFAULT_DIMENSIONS
    if held < 1:
        raise DimensionsDifferError(
            "memory_records.embedding has no fixed number of dimensions",
            hint="alter table memory_plugin.memory_records alter column embedding type vector(N), then run this again",
        )
    if wanted is not None and wanted != held:
        raise DimensionsDifferError(f"it holds {held} dimensions, and {wanted} were asked for")
    return held


def _text_search_config(facts: Facts, wanted: str | None) -> str:
    """Return the store's text search configuration, or the wanted one for a fresh store."""
    name = wanted.removeprefix("pg_catalog.") if wanted else None
    if facts.text_search_config is not None:
        if _ENDS_A_LITERAL.search(facts.text_search_config):
            raise ForeignSchemaError(
                "its text search configuration has a quote, a $ or a backslash in its name",
                hint="have its owner rename it: alter text search configuration ... rename to ...",
            )
        if name is not None and name != facts.text_search_config:
            raise BadSettingError(
                f"the store holds text search configuration {facts.text_search_config}, and {name} was asked for",
                hint="leave MEMORY_PLUGIN_TEXT_SEARCH_CONFIG unset, or set it to what the store holds",
            )
        return facts.text_search_config
    name = name or DEFAULT_TEXT_SEARCH_CONFIG
    if name not in facts.text_search_configs:
        raise BadSettingError(
            f"the server has no text search configuration {name}",
            hint=f"it has: {', '.join(facts.text_search_configs[:40])}; one outside pg_catalog is written schema.name",
        )
    return name


def _plpython(facts: Facts, mode: str, names: Sequence[str]) -> tuple[str, str]:
    """Return what happens to the PL/Python functions, and why in a few words."""
    present = [name for name in names if name in facts.plpython_functions]
    if not names:
        return "skip", "this program has none"
    if mode == "off":
        return ("drop" if present else "skip"), "MEMORY_PLUGIN_PLPYTHON=off"
    language = facts.plpython
    if language.installed is None and language.available is None:
        reason = f"plpython3u is not installed on the server (package postgresql-plpython3-{facts.major})"
    elif not facts.superuser:
        reason = f"role {facts.role} is not a superuser, and plpython3u is untrusted"
    else:
        return "apply", f"plpython3u {language.installed or language.available}"
    if len(present) == len(names):
        return "keep", f"left as they are: {reason}"
    if mode == "require":
        raise PlpythonMissingError(reason)
    return ("keep" if present else "skip"), reason
