"""The syntax of connection strings: URLs and key=value pairs, taken apart and put together without loss, no I/O.

Follows libpq's own reading (conninfo_uri_parse_options, conninfo_parse), because libpq connects in the end. What the Go
driver accepts and libpq does not is translated where the meaning is plain: an unencoded `@` in a password, a blank or
`=` in a parameter's value, `+` for a blank. An error never quotes the string: any part of it may be a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_to_bytes

MASK = "***"
SECRET_KEYWORDS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9.-]*)(\+[A-Za-z0-9_.-]+)?://")
_PORT = re.compile(r"[0-9]{0,5}")
_ENCODE_HINT = "write @ : / ? # in a user name or password as %40 %3A %2F %3F %23"


class ConninfoError(ValueError):
    """A connection string that cannot be read; the message is safe to print."""


@dataclass(frozen=True)
class Param:
    """One parameter: its decoded keyword and value, and the source text that stands for it."""

    keyword: str
    value: str
    raw: str


@dataclass(frozen=True)
class Conninfo:
    """A connection string in parts; `str()` gives back what was read."""

    is_url: bool
    prefix: str
    """Scheme and userinfo with its `@`; empty for key=value pairs."""
    password: str
    """The password of the userinfo, as written; empty when there is none."""
    place: str
    """Hosts, ports and database of a URL; empty for key=value pairs."""
    params: tuple[Param, ...]

    def get(self, keyword: str) -> str | None:
        """Return a parameter's value; the last one counts, as in libpq."""
        return next((param.value for param in reversed(self.params) if param.keyword == keyword), None)

    def without(self, *keywords: str) -> Conninfo:
        """Return a copy that lacks the named parameters."""
        return replace(self, params=tuple(param for param in self.params if param.keyword not in keywords))

    def plus(self, keyword: str, value: str) -> Conninfo:
        """Return a copy with one more parameter at the end."""
        raw = f"{keyword}={quote(value, safe='-_.,')}" if self.is_url else f"{keyword}={_quoted(value)}"
        return replace(self, params=(*self.params, Param(keyword, value, raw)))

    def masked(self) -> Conninfo:
        """Return a copy for people: every secret replaced."""
        prefix = self.prefix
        if self.password:
            prefix = f"{prefix[: -len(self.password) - 1]}{MASK}@"
        params = tuple(
            Param(p.keyword, MASK, f"{p.keyword}={MASK}") if p.keyword.lower() in SECRET_KEYWORDS else p
            for p in self.params
        )
        return replace(self, prefix=prefix, password=MASK if self.password else "", params=params)

    def secrets(self) -> set[str]:
        """Return every secret, as written and decoded."""
        found = {self.password, unquote_to_bytes(self.password).decode("utf-8", "replace")}
        for param in self.params:
            if param.keyword.lower() in SECRET_KEYWORDS:
                found |= {param.value, param.raw.partition("=")[2].strip()}
        return found - {""}

    def __str__(self) -> str:
        if not self.is_url:
            return " ".join(param.raw for param in self.params)
        query = "&".join(param.raw for param in self.params)
        return f"{self.prefix}{self.place}?{query}" if query else f"{self.prefix}{self.place}"


def parse(text: str) -> Conninfo:
    """Take a connection string apart; raise ConninfoError when it is neither a URL nor key=value pairs."""
    text = text.strip()
    if re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
        raise ConninfoError("has a control character in it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConninfoError("has bytes in it that are not UTF-8") from None
    scheme = _SCHEME.match(text)
    if scheme is None:
        if "=" not in text or re.match(r"[^=\s]*://", text):
            raise ConninfoError("must begin with postgres:// or postgresql://, or be key=value pairs")
        return Conninfo(is_url=False, prefix="", password="", place="", params=tuple(_parse_pairs(text)))
    if scheme.group(1).lower() not in ("postgres", "postgresql"):
        raise ConninfoError("must begin with postgres:// or postgresql://")
    # `postgresql+psycopg://` names a Python driver to SQLAlchemy; the server is the same.
    return _parse_url(scheme.group(1).lower() + "://", text[scheme.end() :])


def _parse_url(scheme: str, rest: str) -> Conninfo:
    """Take apart what follows `scheme://`."""
    userinfo, at, rest = _split_userinfo(rest)
    userinfo = re.sub(r"[@?#\s]", lambda match: quote(match.group(), safe=""), userinfo)
    place, _, query = rest.partition("?")
    _check_hosts(place.partition("/")[0])
    params = tuple(_parse_query_item(item) for item in query.split("&") if item)
    for part in (userinfo, place):
        _decode(part)
    return Conninfo(True, f"{scheme}{userinfo}{at}", userinfo.partition(":")[2], place, params)


def _split_userinfo(rest: str) -> tuple[str, str, str]:
    """Split at the `@` that ends the userinfo, which is the last one before host and query begin."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    end = authority.rfind("@")
    if end < 0:
        # libpq looks for the first @ as far as the first slash, past any ? or # in the password.
        end = rest.partition("/")[0].find("@")
    return (rest[:end], "@", rest[end + 1 :]) if end >= 0 else ("", "", rest)


def _check_hosts(hosts: str) -> None:
    """Refuse what is most likely the rest of a password that was not encoded, and bare IPv6 addresses."""
    for entry in hosts.split(","):
        host, _, port = entry.rpartition("]")[2].partition(":")
        if entry.startswith("[") and ("]" not in entry or host):
            raise ConninfoError("has an IPv6 address without its closing bracket, as in [::1]:5432")
        if "@" in entry or re.search(r"\s", entry):
            raise ConninfoError(f"has a character in the host that cannot be there; {_ENCODE_HINT}")
        if ":" in port:
            raise ConninfoError("has a host with several colons; an IPv6 address goes in brackets, as in [::1]:5432")
        if not _PORT.fullmatch(port) or (port and not 1 <= int(port) <= 65535):
            raise ConninfoError(f"has a port that is not a number from 1 to 65535; {_ENCODE_HINT}")


def _parse_query_item(item: str) -> Param:
    """Read one `keyword=value` of a URL's query."""
    keyword, equals, value = item.partition("=")
    if not equals:
        raise ConninfoError(f"has a parameter without = after the ?; {_ENCODE_HINT}")
    name = _decode(keyword)
    # Go's driver reads + as a blank; libpq takes it as it is, and `-c+name=value` is then never right.
    if name == "search_path" or (name == "options" and re.search(r"(^|\+)-c\+", value)):
        value = value.replace("+", "%20")
    # libpq wants these encoded, other drivers do not mind.
    value = re.sub(r"[=\s]", lambda match: quote(match.group(), safe=""), value)
    return Param(name, _decode(value), f"{keyword}={value}")


def _decode(text: str) -> str:
    """Decode %XX; raise ConninfoError for what libpq would refuse."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise ConninfoError("has a % that no two hexadecimal digits follow; write a plain % as %25")
    if "%00" in text:
        raise ConninfoError("has %00 in it")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ConninfoError("has percent-encoded bytes that are not UTF-8") from None


_PAIR = re.compile(
    r"""\s*(?P<keyword>[^=\s']+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'(?=\s|$)|(?P<plain>(?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*|))""",
    re.DOTALL,
)


def _parse_pairs(text: str) -> list[Param]:
    """Read key=value pairs by libpq's quoting rules."""
    params, position = [], 0
    while text[position:].strip():
        match = _PAIR.match(text, position)
        if match is None or match.end() == position:
            raise ConninfoError("is not key=value pairs: a value with blanks goes in '', and ' or \\ after a \\")
        written = match["quoted"] if match["quoted"] is not None else match["plain"]
        value = re.sub(r"\\(.)", r"\1", written, flags=re.DOTALL)
        params.append(Param(match["keyword"], value, match.group().strip()))
        position = match.end()
    return params


def _quoted(value: str) -> str:
    """Quote the value of a key=value pair where it needs it."""
    if value and not re.search(r"[\s'\\]", value):
        return value
    escaped = re.sub(r"(['\\])", r"\\\1", value)
    return f"'{escaped}'"
