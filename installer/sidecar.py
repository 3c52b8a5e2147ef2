"""What `serve` and `boot` share of the bundled sidecar: its environment, its settings, its address."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Mapping
from errno import EACCES, EADDRINUSE
from http.client import HTTPException

from memory_plugin.installer import dsn
from memory_plugin.installer.errors import BadSettingError, SidecarFailedError
from memory_plugin.installer.settings import Settings, split_listen_addr
from memory_plugin.thin_api import settings as thin

_WITH = "with --listen or MEMORY_PLUGIN_LISTEN_ADDR"


def environment(environ: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the sidecar's environment: ours, with the database and the address that are in force."""
    return {
        **environ,
        "MEMORY_PLUGIN_CONNINFO": dsn.without_search_path(settings.conninfo),
        "MEMORY_PLUGIN_LISTEN_ADDR": settings.listen_addr,
    }


def settings_of(environ: Mapping[str, str]) -> thin.Settings:
    """Return the settings that the sidecar reads from this environment, or raise BadSettingError."""
    try:
        return thin.from_env(environ)
    except thin.SettingsError as error:
        raise BadSettingError(str(error)) from None


def base_url(listen_addr: str) -> str:
    """Return the URL at which whoever is on this machine reaches the address."""
    host, port = split_listen_addr(listen_addr)
    # Every interface is reached through this one.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_taken(listen_addr: str) -> bool:
    """Tell whether somebody else listens on the address."""
    try:
        _try(listen_addr)
    except OSError as error:
        return error.errno == EADDRINUSE
    return False


def refuse_taken(listen_addr: str) -> None:
    """Raise when the address cannot be listened on, before anything is started for it."""
    try:
        _try(listen_addr)
    except OSError as error:
        advice = {
            EADDRINUSE: "stop what listens there, or choose another address",
            EACCES: "choose a port from 1024 on",
        }
        raise BadSettingError(
            f"cannot listen on {listen_addr}: {(error.strerror or str(error)).lower()}",
            hint=f"{advice.get(error.errno or 0, 'name an address of this machine')} {_WITH}",
        ) from None


def _try(listen_addr: str) -> None:
    """Take the address for a moment, or raise OSError."""
    host, port = split_listen_addr(listen_addr)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except UnicodeError:
        # Of a name that is none, such as one with two dots in a row.
        raise socket.gaierror(socket.EAI_NONAME, "no such host") from None
    for family, kind, protocol, _, address in found[:1]:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)


def is_healthy(url: str, run: str) -> bool:
    """Tell whether this boot's own sidecar answers 200; raise when somebody else does, who may serve other data."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/v1/health", timeout=2) as answer:
            whose = answer.headers.get(thin.RUN_HEADER)
    except (OSError, HTTPException):
        return False
    if whose != run:
        raise SidecarFailedError(
            f"another service answers at {url}",
            hint="stop it, or choose another address with MEMORY_PLUGIN_LISTEN_ADDR",
        )
    return True
