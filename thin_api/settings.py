"""The sidecar's settings, from its environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from memory_plugin.thin_api.auth import RULE
from memory_plugin.thin_api.log import FORMATS

DEFAULT_LISTEN = "127.0.0.1:9100"
LISTEN_RULE = "must be HOST:PORT or :PORT, with a port from 1 to 65535, an IPv6 address in brackets"
DEFAULT_MAX_BODY = 1024 * 1024
DEFAULT_POOL_SIZE = 8
MAX_POOL_SIZE = 32
DEFAULT_SWEEP_SECONDS = 30
DEFAULT_EMBED_SECONDS = 5
KEEPALIVES = {"keepalives_idle": "15", "keepalives_interval": "5", "keepalives_count": "3"}
EXIT_SETTING = 21
"""The exit status for a setting that cannot be used."""
RUN_HEADER = "X-Memory-Plugin-Run"
"""The header of /v1/health in which a sidecar that was given a run says whose it is."""


class SettingsError(ValueError):
    """A setting that cannot be used; the text names it and the rule."""


@dataclass(frozen=True)
class Settings:
    """The sidecar's settings. `host` is an address or a name; "" means every interface."""

    # Not shown: it may hold a password.
    conninfo: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 9100
    max_body: int = DEFAULT_MAX_BODY
    pool_size: int = DEFAULT_POOL_SIZE
    # 0: no upkeep here.
    sweep_seconds: int = DEFAULT_SWEEP_SECONDS
    # 0: no embedding from here.
    embed_seconds: int = DEFAULT_EMBED_SECONDS
    log_format: str = "text"
    # "": everybody who reaches the address is served.
    token: str = field(default="", repr=False)
    # Which start of the service this is, for whoever started it; "": nobody asked.
    run: str = ""


def from_env(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from MEMORY_PLUGIN_* and DATABASE_URL; raise SettingsError for one that cannot be used."""
    given = (
        environ.get("MEMORY_PLUGIN_CONNINFO")
        or environ.get("MEMORY_PLUGIN_DATABASE_URL")
        or environ.get("DATABASE_URL")
    )
    if not given:
        raise SettingsError("no database: set MEMORY_PLUGIN_DATABASE_URL or DATABASE_URL")
    host, port = listen_address(environ.get("MEMORY_PLUGIN_LISTEN_ADDR") or DEFAULT_LISTEN)
    return Settings(
        conninfo=conninfo(given),
        host=host,
        port=port,
        max_body=_number(environ, "MEMORY_PLUGIN_MAX_BODY", DEFAULT_MAX_BODY, 1, 256 * 1024 * 1024),
        pool_size=_number(environ, "MEMORY_PLUGIN_POOL_SIZE", DEFAULT_POOL_SIZE, 1, MAX_POOL_SIZE),
        sweep_seconds=_number(environ, "MEMORY_PLUGIN_SWEEP_SECONDS", DEFAULT_SWEEP_SECONDS, 0, 86400),
        embed_seconds=_number(environ, "MEMORY_PLUGIN_EMBED_SECONDS", DEFAULT_EMBED_SECONDS, 0, 86400),
        log_format=_log_format(environ.get("MEMORY_PLUGIN_LOG") or "text"),
        token=_token(environ.get("MEMORY_PLUGIN_TOKEN") or ""),
        run=_run(environ.get("MEMORY_PLUGIN_RUN_ID") or ""),
    )


def listen_address(text: str) -> tuple[str, int]:
    """Split `host:port`, `:port` (every interface, "") or `[address]:port`, for both programs."""
    found = re.fullmatch(r"(?:\[([^\]\s/@]+)\]|([^:\[\]\s/@]*)):([0-9]{1,5})", text.strip())
    if found is None or not 0 < int(found[3]) < 65536:
        raise SettingsError(f"MEMORY_PLUGIN_LISTEN_ADDR {LISTEN_RULE} (it is {text!r})")
    return found[1] or found[2], int(found[3])


def conninfo(given: str) -> str:
    """Return a libpq connection string for the sidecar: without search_path, in UTF-8, named.

    The functions pin their own search_path, and PgBouncer refuses startup parameters that it does not know. A
    connection whose other end went away without a word is found out within half a minute, unless the string says else.
    """
    if re.match(r"postgres(ql)?://([^/?]*@[^/?]*@|[^/?]*/[^?]*@)", given):
        # libpq would take a piece of the password for the host or the database, and logs tell those.
        raise SettingsError("the database URL cannot be used: in user, password and database write @ as %40, / as %2F")
    try:
        parameters = conninfo_to_dict(_without_url_search_path(given))
    except (ProgrammingError, UnicodeEncodeError):
        # libpq quotes what it did not understand, which may be a piece of a password.
        raise SettingsError("the database URL cannot be used: not a URL or connection string of libpq's") from None
    options = _without_option(str(parameters.pop("options", "") or ""))
    if options:
        parameters["options"] = options
    parameters["client_encoding"] = "UTF8"
    parameters.setdefault("fallback_application_name", "memory-plugin")
    for name, seconds in KEEPALIVES.items():
        parameters.setdefault(name, seconds)
    return make_conninfo("", **parameters)


def described(settings: Settings) -> str:
    """Return where the database is, without user or password: host:port/dbname, or the name of libpq's service."""
    parameters = conninfo_to_dict(settings.conninfo)
    service = parameters.get("service") or os.environ.get("PGSERVICE")
    if service and not parameters.get("host"):
        # What its file says only libpq knows.
        return f"service {service}"
    host = parameters.get("host") or parameters.get("hostaddr") or os.environ.get("PGHOST") or "local"
    port = parameters.get("port") or os.environ.get("PGPORT") or "5432"
    name = parameters.get("dbname") or os.environ.get("PGDATABASE") or parameters.get("user") or "default"
    return f"{host}:{port}/{name}"


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise SettingsError(f"MEMORY_PLUGIN_LOG must be {' or '.join(FORMATS)}, not {text!r}")
    return text


def _token(text: str) -> str:
    if text and not RULE.fullmatch(text):
        # Not quoted: it is a secret all the same.
        raise SettingsError("MEMORY_PLUGIN_TOKEN must be 16 to 512 characters of ASCII without spaces")
    return text


def _run(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]{0,64}", text):
        raise SettingsError("MEMORY_PLUGIN_RUN_ID must be at most 64 letters and digits")
    return text


def _number(environ: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environ.get(name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,12}", text) or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _without_url_search_path(given: str) -> str:
    """Drop the URL parameter search_path, which other drivers take and libpq refuses; clean `options` in place."""
    if not re.match(r"postgres(ql)?://", given):
        return given
    head, mark, query = given.partition("?")
    kept = []
    for pair in query.split("&") if mark else []:
        key, _, value = pair.partition("=")
        if key == "search_path":
            continue
        if key == "options":
            value = _without_option(unquote(value))
            if not value:
                continue
            pair = f"options={quote(value, safe='')}"
        kept.append(pair)
    return f"{head}?{'&'.join(kept)}" if kept else head


def _without_option(options: str) -> str:
    """Drop search_path from the command-line options of a session, in each way that they can be written."""
    value = r"(?:\\.|[^\s\\])*"
    return re.sub(rf"(?i)(?:^|(?<=\s))(?:-c\s*|--)search[_-]path={value}\s*", "", options).strip()
