"""Decide what a tenant's boot starts, from the environment alone."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from memory_plugin.installer.errors import BadSettingError

_NO = frozenset({"", "0", "false", "no", "off"})

BUNDLED, EXTERNAL, NONE = "bundled", "external", "none"


@dataclass(frozen=True)
class Decision:
    """What to start: the bundled sidecar, none because the plugin is elsewhere, or none at all."""

    way: str
    reason: str


def decide(environ: Mapping[str, str]) -> Decision:
    """Return the decision; the rows of docs/operations.md, first match wins."""
    url = environ.get("MEMORY_PLUGIN_URL", "").strip()
    if url and _loopback(url) is None:
        return Decision(EXTERNAL, "MEMORY_PLUGIN_URL names an external plugin")
    if _is_set(environ, "MEMORY_PLUGIN_DISABLE"):
        return Decision(NONE, "MEMORY_PLUGIN_DISABLE is set")
    if not any(environ.get(name, "").strip() for name in ("MEMORY_PLUGIN_DATABASE_URL", "DATABASE_URL")):
        return Decision(NONE, "neither DATABASE_URL nor MEMORY_PLUGIN_DATABASE_URL is set")
    return Decision(BUNDLED, "the bundled sidecar")


def is_required(environ: Mapping[str, str]) -> bool:
    """Tell whether the command must not run without memory that was asked for."""
    return _is_set(environ, "MEMORY_PLUGIN_REQUIRED") or _is_set(environ, "MEMORY_V2_CUTOVER")


def listen_addr(environ: Mapping[str, str]) -> str | None:
    """Return where the bundled sidecar listens, when the plugin's loopback URL says it and nothing else does.

    Raises BadSettingError for a port that there is not.
    """
    url = environ.get("MEMORY_PLUGIN_URL", "").strip()
    host = _loopback(url)
    if host is None or environ.get("MEMORY_PLUGIN_LISTEN_ADDR", "").strip():
        return None
    try:
        port = _parts(url).port
    except ValueError:
        port = 0
    if port is None:
        return None
    if not port:
        raise BadSettingError(f"MEMORY_PLUGIN_URL must have a port from 1 to 65535, or none (it is {url!r})")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() not in _NO


def _parts(url: str) -> SplitResult:
    # `localhost:9100` says where as well as a whole URL does.
    return urlsplit(url if "://" in url else f"http://{url}")


def _loopback(url: str) -> str | None:
    """Return the URL's host, in its usual spelling, when that is this machine's loopback; else None."""
    try:
        host = (_parts(url).hostname or "").rstrip(".")
    except ValueError:
        return None
    if host == "localhost":
        return host
    address = _numeric(host)
    return str(address) if address is not None and address.is_loopback else None


def _numeric(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that the host is written as; also in the old short forms, such as 127.1."""
    try:
        address = ip_address(host)
    except ValueError:
        try:
            return IPv4Address(socket.inet_aton(host))
        # ValueError: of letters that no address has.
        except (OSError, ValueError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
