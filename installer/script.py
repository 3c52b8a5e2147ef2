"""Write the SQL that an installation would run, for a DBA who runs it with psql."""

from __future__ import annotations

from collections.abc import Mapping

from memory_plugin import __version__
from memory_plugin.installer import plpython, sources, statements
from memory_plugin.installer.apply import COMMENT_LEDGER, CREATE_LEDGER, CREATE_VECTOR
from memory_plugin.installer.errors import UsageError
from memory_plugin.installer.functions import FUNCTION_SETTINGS
from memory_plugin.installer.plan import BOOTSTRAP, FIRST_SHAPE
from memory_plugin.installer.sources import Migration, Sources
from memory_plugin.installer.waiting import LOCK_KEY


def whole(source: Sources, placeholders: Mapping[str, str], *, with_plpython: bool = False) -> str:
    """Return the script for an empty database: migrations, ledger rows, functions."""
    parts = [
        f"-- memory-plugin {__version__}: installs the store into an empty database.\n"
        "-- Run it with: psql --no-psqlrc --file=THIS.sql DATABASE. It stops at the first error.\n"
        "-- A store that is there already is brought up to date by `memory-plugin install`, not by this script.\n"
        "\\set ON_ERROR_STOP on\n"
        "set statement_timeout = 0;"
    ]
    parts += [_migration(migration, placeholders) for migration in source.migrations]
    parts.append(_functions(source, placeholders, with_plpython=with_plpython))
    return "\n\n".join(parts) + "\n"


def one(source: Sources, name: str, placeholders: Mapping[str, str]) -> str:
    """Return the script for a single migration, chosen by its name or number."""
    return f"\\set ON_ERROR_STOP on\n\n{_migration(_chosen(source, name), placeholders)}\n"


def down(source: Sources, name: str, placeholders: Mapping[str, str]) -> str:
    """Return the script that undoes a single migration, chosen by its name or number."""
    migration = _chosen(source, name)
    if migration.name not in source.downs:
        raise UsageError(f"the migration {migration.name} has no down file")
    body = sources.render(source.downs[migration.name], placeholders, f"{migration.name}.down.sql").strip()
    path = "set local search_path = pg_catalog, pg_temp;"
    return f"\\set ON_ERROR_STOP on\n\n-- undo {migration.name}\n{_begin()}\n{path}\n{body}\ncommit;\n"


def _chosen(source: Sources, name: str) -> Migration:
    """Return the migration of that name or number."""
    for migration in source.migrations:
        if name in (migration.name, f"{migration.number:03}"):
            return migration
    known = ", ".join(migration.name for migration in source.migrations)
    raise UsageError(f"there is no migration {name}", hint=f"there are: {known}")


def _migration(migration: Migration, placeholders: Mapping[str, str]) -> str:
    """Return one migration with its ledger row, in a transaction where it may be in one."""
    body = sources.render(migration.text, placeholders, migration.name).strip()
    before = ""
    if migration.name == FIRST_SHAPE:
        before = CREATE_VECTOR.format(schema=placeholders["extschema:vector"]) + "\n"
    after = f"\n{CREATE_LEDGER.strip()}\n{COMMENT_LEDGER}" if migration.name == BOOTSTRAP else ""
    path = f"memory_plugin, {placeholders['extschema:vector']}, pg_temp" if migration.extra else "pg_catalog, pg_temp"
    row = (
        "insert into memory_plugin.schema_migrations (name, sha256, program_version)\n"
        f"values ('{migration.name}', '{migration.sha256}', '{__version__}');"
    )
    if not migration.transactional:
        # Statement by statement: psql is in autocommit, as the installer is.
        text = ";\n\n".join(statements.split(body))
        return f"-- {migration.name}\nset search_path = {path};\n{text};\n\nreset search_path;\n{row}"
    return f"-- {migration.name}\n{_begin()}\nset local search_path = {path};\n{before}{body}{after}\n{row}\ncommit;"


def _functions(source: Sources, placeholders: Mapping[str, str], *, with_plpython: bool) -> str:
    """Return every function, and who may do what, in one transaction."""
    texts = [source.retired, *(file.text for file in source.functions)]
    rendered = [sources.render(text, placeholders, "sql/functions").strip() for text in texts if text.strip()]
    if with_plpython:
        rendered.append("create extension if not exists plpython3u;")
        rendered += [plpython.build(name, placeholders).strip() for name in plpython.names()]
    # Last, as its grants are on what is there.
    rendered.append(sources.render(source.access, placeholders, "sql/access.sql").strip())
    return f"-- functions\n{_begin()}\n{FUNCTION_SETTINGS}\n\n" + "\n\n".join(rendered) + "\n\ncommit;"


def _begin() -> str:
    """Return the statements that open a transaction holding the installer's lock."""
    return f"begin;\nselect pg_catalog.pg_advisory_xact_lock({LOCK_KEY});"
