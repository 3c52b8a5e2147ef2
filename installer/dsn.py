"""The rules for the database URL: which search_path it carries, what is translated for libpq, what is hidden. No I/O.

The URL derived from DATABASE_URL carries `search_path=memory_plugin,public`, whatever search_path it had for the
platform itself. An explicit MEMORY_PLUGIN_DATABASE_URL is used as given. One from the command line keeps the
search_path it names, and gets ours when it names none. The Go driver knows a `search_path` parameter and libpq does
not: it becomes `options=-c search_path=...`, merged with the options that are there.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from psycopg import Error, pq

from memory_plugin.installer import conninfo
from memory_plugin.installer.conninfo import MASK, Conninfo, ConninfoError
from memory_plugin.installer.errors import BadSettingError

SEARCH_PATH = "memory_plugin,public"
EXPLICIT = "MEMORY_PLUGIN_DATABASE_URL"
PLATFORM = "DATABASE_URL"
# `ssl` is no keyword of libpq, but its URL parser reads ssl=true as sslmode=require.
_KNOWN = frozenset(option.keyword.decode() for option in pq.Conninfo.parse(b"")) | {"ssl"}
# Knobs of the platform's own drivers and their pools, which mean nothing to us: a URL that boots the platform boots us.
_DRIVERS_OWN = frozenset(
    {
        "binary_parameters",
        "default_query_exec_mode",
        "description_cache_capacity",
        "disable_prepared_binary_result",
        "pool_health_check_period",
        "pool_max_conn_idle_time",
        "pool_max_conn_lifetime",
        "pool_max_conn_lifetime_jitter",
        "pool_max_conns",
        "pool_min_conns",
        "pool_min_idle_conns",
        "prefer_simple_protocol",
        "statement_cache_capacity",
        "statement_cache_mode",
    }
)
# Settings of the server that the Go drivers take as parameters of the URL, and libpq among the options.
_SERVERS_OWN = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
    "datestyle",
    "extra_float_digits",
    "default_transaction_isolation",
    "default_transaction_read_only",
)
# Shorter secrets are hidden where they stand as a password, not wherever their letters occur.
_SHORTEST_SCRUBBED = 3


def in_force(url: str, source: str) -> str:
    """Return the connection string to use for a URL that came from `source` (a variable's or option's name).

    Raises BadSettingError, which never quotes the URL.
    """
    try:
        given = conninfo.parse(url)
    except ConninfoError as error:
        raise BadSettingError(f"{source} {error}") from None
    given = _translated(given.without(*_DRIVERS_OWN))
    unknown = sorted({param.keyword for param in given.params} - _KNOWN - {"search_path"})
    if unknown:
        names = ", ".join(name if re.fullmatch(r"\w{1,40}", name) else MASK for name in unknown)
        raise BadSettingError(
            f"{source} has parameters that libpq does not know: {names}",
            hint="remove them; a setting of the server is passed as options=-c%20name=value",
        )
    options, own_path = split_options(given.get("options") or "")
    path = own_path if own_path is not None else given.get("search_path") or None
    if source == PLATFORM or (path is None and source != EXPLICIT):
        path = SEARCH_PATH
    if path != own_path or given.get("search_path") is not None:
        given = given.without("search_path")
        if path is not None:
            given = given.without("options").plus("options", join_options(options, path))
    _check_with_libpq(given, source)
    return str(given)


def _translated(given: Conninfo) -> Conninfo:
    """Move the server's settings from the URL's parameters into the options."""
    for name in _SERVERS_OWN:
        value = given.get(name)
        if value is not None:
            options = f"{given.get('options') or ''} -c {name}={_escaped(value)}".strip()
            given = given.without(name, "options").plus("options", options)
    return given


def without_search_path(url: str) -> str:
    """Return a connection string without its search_path, other options kept.

    PgBouncer refuses startup parameters that it does not track, and our functions pin their own path.
    """
    given = conninfo.parse(url)
    options, path = split_options(given.get("options") or "")
    if path is None:
        return str(given.without("search_path"))
    given = given.without("search_path", "options")
    return str(given.plus("options", options) if options else given)


def split_options(options: str) -> tuple[str, str | None]:
    """Split the server's command-line options into those that set no search_path, and the search_path set last."""
    kept: list[str] = []
    path: str | None = None
    # Words are split as the server does: at white space, a backslash taking the next character as it is.
    words = iter(re.findall(r"(?:[^\s\\]|\\.|\\$)+", options, re.DOTALL))
    for raw in words:
        written = [raw]
        setting = _unescape(raw)
        if setting == "-c":
            written += [following] if (following := next(words, None)) else []
            setting = _unescape(written[-1])
        elif setting.startswith(("-c", "--")):
            setting = setting[2:]
        else:
            setting = ""
        name, equals, value = setting.partition("=")
        if equals and name.strip().lower().replace("-", "_") == "search_path":
            path = value
        else:
            kept += written
    return " ".join(kept), path


def join_options(options: str, path: str) -> str:
    """Return the options with a search_path set after them."""
    return f"{options} -c search_path={_escaped(path)}".strip()


def mask(url: str) -> str:
    """Return a connection string for people, with every secret as ***."""
    try:
        return _mask_patterns(str(conninfo.parse(url).masked()))
    except ConninfoError:
        # What cannot be read cannot be trusted to have its password where we think it is.
        scheme, separator, _ = url.strip().partition("://")
        return f"{scheme}://{MASK}" if separator and re.fullmatch(r"[\w+]{1,30}", scheme) else MASK


def scrub(text: str, *urls: str | None) -> str:
    """Return text without the passwords of the given connection strings, nor any that looks like one in a URL."""
    secrets: set[str] = set()
    for url in filter(None, urls):
        try:
            found = conninfo.parse(url).secrets()
        except ConninfoError:
            found = {url.strip(), *re.findall(r"://[^:/@]*:(.*)@", url, re.DOTALL)}
        secrets |= {form for secret in found for form in _spellings(secret)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SCRUBBED:
            text = text.replace(secret, MASK)
    return _mask_patterns(text)


def _mask_patterns(text: str) -> str:
    """Hide passwords by where they stand: in a URL's userinfo, after password=."""
    text = re.sub(r"(\w://[^:/@\s]*:)[^@/\s]+@", rf"\1{MASK}@", text)
    return re.sub(r"(?i)\b((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&'\"]+)", rf"\1{MASK}", text)


def _spellings(secret: str) -> set[str]:
    """Return the ways a secret may be written in a message."""
    escaped = secret.replace("\\", "\\\\").replace("'", "\\'")
    # A secret from the environment may hold bytes that are no text.
    encoded = {quote(secret, safe=safe, errors="surrogateescape") for safe in ("", "/")}
    return {secret, *encoded, escaped, repr(secret)[1:-1]}


def _escaped(value: str) -> str:
    """Return a value as one word of the server's command line."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def _unescape(word: str) -> str:
    """Return an option's word without its backslashes."""
    return re.sub(r"\\(.)", r"\1", word, flags=re.DOTALL)


def _check_with_libpq(given: Conninfo, source: str) -> None:
    """Let libpq read the result, and pass on its complaint without what it quotes."""
    try:
        pq.Conninfo.parse(str(given).encode())
    except Error as error:
        reason = re.sub(r'".*"', "...", str(error), flags=re.DOTALL)
        raise BadSettingError(f"{source} is not a valid connection string: {reason}") from None
