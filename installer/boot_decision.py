"""Decide what a tenant's boot starts, from the environment alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_NO = frozenset({"", "0", "false", "no", "off"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

BUNDLED, EXTERNAL, NONE = "bundled", "external", "none"


@dataclass(frozen=True)
class Decision:
    """What to start: the bundled sidecar, none because the plugin is elsewhere, or none at all."""

    way: str
    reason: str
    required: bool = False
    """True when the command must not run without memory."""
    listen_addr: str | None = None
    """Where the bundled sidecar listens, when the plugin's URL says it and nothing else does."""


def decide(environ: Mapping[str, str]) -> Decision:
    """Return the decision; the rows of docs/operations.md, first match wins."""
    url = environ.get("MEMORY_PLUGIN_URL", "").strip()
    if url and not _is_loopback(url):
        return Decision(EXTERNAL, "MEMORY_PLUGIN_URL names an external plugin")
    if _is_set(environ, "MEMORY_PLUGIN_DISABLE"):
        return Decision(NONE, "MEMORY_PLUGIN_DISABLE is set")
    if not any(environ.get(name, "").strip() for name in ("MEMORY_PLUGIN_DATABASE_URL", "DATABASE_URL")):
        return Decision(NONE, "neither DATABASE_URL nor MEMORY_PLUGIN_DATABASE_URL is set")
    listen_addr = None
    if url and not environ.get("MEMORY_PLUGIN_LISTEN_ADDR", "").strip():
        listen_addr = _address(url)
    return Decision(BUNDLED, "the bundled sidecar", _is_required(environ), listen_addr)


def _is_required(environ: Mapping[str, str]) -> bool:
    return _is_set(environ, "MEMORY_PLUGIN_REQUIRED") or _is_set(environ, "MEMORY_V2_CUTOVER")


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").strip().lower() not in _NO


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in _LOOPBACK or host.startswith("127.")


def _address(url: str) -> str | None:
    """Return host:port of a loopback URL; None for the default address."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname or "127.0.0.1"
    if port is None:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
