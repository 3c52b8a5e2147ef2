"""What an operator has set, from the environment and the command line, checked and frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memory_plugin.installer import dsn
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.thin_api import settings as thin

MAX_DIMENSIONS = 4000
PLPYTHON_CHOICES = ("auto", "require", "off")
# Options that are not called as their field is.
_OPTIONS = {"listen_addr": "--listen", "lock_timeout_s": "--lock-timeout"}
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})
# A configuration's name is put into SQL: plain identifiers only, with or without a schema.
_TEXT_SEARCH_CONFIG = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?")


@dataclass(frozen=True)
class Settings:
    """Everything the installer needs to know; made by `from_env`, narrowed with `dataclasses.replace`."""

    database_url: str | None = None
    """The libpq connection string in force (search_path translated); None when nothing was set."""
    explicit: bool = False
    """True when the URL came from MEMORY_PLUGIN_DATABASE_URL, which is used as given."""
    url_source: str = ""
    """Which setting the URL came from: a variable's name, `--database-url`, or empty."""
    listen_addr: str = thin.DEFAULT_LISTEN
    skip_migrate: bool = False
    migrations_dir: Path | None = None
    dimensions: int | None = None
    """Wanted embedding dimensions; None keeps the store's own, or the default for a fresh store."""
    text_search_config: str | None = None
    """Wanted text search configuration; None keeps the store's own, or the default for a fresh store."""
    plpython: str = "auto"
    lock_timeout_s: float = 25.0
    connect_timeout_s: float = 5.0

    @property
    def conninfo(self) -> str:
        """Return the connection string in force, or raise BadSettingError when none was set."""
        if not self.database_url:
            raise BadSettingError(
                "neither MEMORY_PLUGIN_DATABASE_URL nor DATABASE_URL is set",
                hint="set DATABASE_URL, give --database-url, or use memory-plugin serve --embedded",
            )
        return self.database_url

    @property
    def masked_url(self) -> str:
        """Return the connection string in force with its password hidden, for people."""
        return dsn.mask(self.conninfo)

    def with_url(self, url: str, source: str = "--database-url") -> Settings:
        """Return these settings with another connection string, as from this option."""
        return replace(self, database_url=dsn.in_force(url, source), explicit=False, url_source=source)


def from_env(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Read the settings; an override that is None counts as not given.

    Overrides are fields of Settings, already typed or as text from the command line. Raises BadSettingError (exit 21)
    naming the variable and its rule.
    """
    given = {key: value for key, value in overrides.items() if value is not None}
    unknown = set(given) - set(Settings.__dataclass_fields__)
    if unknown:
        raise TypeError(f"no such setting: {', '.join(sorted(unknown))}")
    url, explicit, source = _database_url(environ, given.pop("database_url", None))

    def pick(field: str, variable: str, default: str) -> tuple[str, str]:
        """Return where a value came from and the value as text."""
        if field in given:
            return _OPTIONS.get(field, "--" + field.replace("_", "-")), str(given.pop(field)).strip()
        return variable, environ.get(variable, default).strip() or default

    values: dict[str, Any] = {
        "listen_addr": _listen_addr(*pick("listen_addr", "MEMORY_PLUGIN_LISTEN_ADDR", thin.DEFAULT_LISTEN)),
        "skip_migrate": _flag(*pick("skip_migrate", "MEMORY_PLUGIN_SKIP_MIGRATE", "")),
        "migrations_dir": _directory(*pick("migrations_dir", "MEMORY_PLUGIN_MIGRATIONS_DIR", "")),
        "dimensions": _dimensions(*pick("dimensions", "MEMORY_PLUGIN_DIMENSIONS", "")),
        "text_search_config": _text_search_config(*pick("text_search_config", "MEMORY_PLUGIN_TEXT_SEARCH_CONFIG", "")),
        "plpython": _plpython(*pick("plpython", "MEMORY_PLUGIN_PLPYTHON", "auto")),
        "lock_timeout_s": _seconds(*pick("lock_timeout_s", "MEMORY_PLUGIN_LOCK_TIMEOUT", "25")),
    }
    return Settings(**{"database_url": url, "explicit": explicit, "url_source": source, **values, **given})


def split_listen_addr(text: str) -> tuple[str, int]:
    """Return host and port of an address to listen on, as the sidecar reads it; raises ValueError."""
    host, port = thin.listen_address(text)
    # Without a host the Go plugin listened on every interface, and deployments rely on it.
    return host or "0.0.0.0", port  # noqa: S104


def _database_url(environ: Mapping[str, str], option: str | None) -> tuple[str | None, bool, str]:
    """Return the URL in force, whether it is explicit, and where it came from."""
    if option is not None and option.strip():
        return dsn.in_force(option, "--database-url"), False, "--database-url"
    for variable in ("MEMORY_PLUGIN_DATABASE_URL", "DATABASE_URL"):
        if environ.get(variable, "").strip():
            return dsn.in_force(environ[variable], variable), variable != "DATABASE_URL", variable
    return None, False, ""


def _bad(source: str, value: str, rule: str) -> BadSettingError:
    """Return the error for a value that breaks a rule."""
    return BadSettingError(f"{source} {rule} (it is {value!r})")


def _listen_addr(source: str, value: str) -> str:
    try:
        thin.listen_address(value)
    except thin.SettingsError:
        raise _bad(source, value, thin.LISTEN_RULE) from None
    return value


def _flag(source: str, value: str) -> bool:
    if value.lower() not in _YES | _NO:
        raise _bad(source, value, "must be 1 or 0")
    return value.lower() in _YES


def _directory(source: str, value: str) -> Path | None:
    if not value:
        return None
    try:
        path = Path(value).expanduser()
        if path.is_dir():
            return path
    except RuntimeError:
        raise _bad(source, value, "must be a folder that exists, and whose ~ is known") from None
    except OSError as error:
        raise _bad(source, value, f"must be a folder that can be read: {(error.strerror or '').lower()}") from None
    raise _bad(source, value, "must be a folder that exists")


def _dimensions(source: str, value: str) -> int | None:
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= MAX_DIMENSIONS:
        raise _bad(source, value, f"must be a whole number from 1 to {MAX_DIMENSIONS}")
    return int(value)


def _text_search_config(source: str, value: str) -> str | None:
    if not value:
        return None
    if not _TEXT_SEARCH_CONFIG.fullmatch(value):
        raise _bad(source, value, "must be the name of a text search configuration, such as english or simple")
    return value


def _plpython(source: str, value: str) -> str:
    if value.lower() not in PLPYTHON_CHOICES:
        raise _bad(source, value, "must be auto, require or off")
    return value.lower()


def _seconds(source: str, value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", value) or float(value) <= 0:
        raise _bad(source, value, "must be a number of seconds above 0 and below 1000000")
    return float(value)
