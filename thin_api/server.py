"""Serve the application with granian: one worker process, drained on SIGTERM, started again whenever it dies.

SIGINT and SIGHUP (a closed terminal) count as SIGTERM; under nohup, SIGHUP stays ignored.

What granian (2.8) does, and what follows from it here:
- It calls the application from a pool of threads that grows as needed (older ones could let one long request starve
  others) and shrinks after 30 idle seconds. A request that finds no thread waits, unseen, in granian's own queue while
  its time runs. So there are threads for everybody that can be inside at once: those with a connection, those in line
  for one (pool.MAX_WAITING), those reading a body (body.READERS). As a ceiling 16 or 300 measured the same with 8
  clients: threads that wait cost a little memory, and there are never more than requests.
- `backpressure` bounds accepted connections, idle keep-alive ones included, not requests: a small one lets idle
  clients shut new ones out. An idle connection is closed after KEEP_ALIVE.
- It listens with SO_REUSEPORT, so a second sidecar on one address would start and take half of the requests: the
  address is tried without that option first. And it listens in its worker only, so from the start to there, or while a
  worker is replaced, nobody does: the parent holds the address by a name (`_claim`).
- On SIGTERM it stops accepting, finishes the requests that are in and closes idle connections; DRAIN later it kills
  the worker.
- On SIGHUP it would replace its worker, which has no use here: the settings are read once.
- Its own loop ends the server, with status 1, when a worker dies twice within 5.5 s. Ours replaces it at once, or
  after a pause if it died young, and never gives up.
- Should the parent be killed, the worker would live on and keep the address: it watches its parent and ends. So does
  the parent where `memory-plugin boot` started it, which would otherwise find the address taken when it starts again.
- Its own messages are switched off but for errors; ours are one line a start and a stop.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from errno import EADDRINUSE
from ipaddress import ip_address
from time import monotonic
from typing import Any

from granian.constants import HTTPModes, Interfaces, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server

from memory_plugin.thin_api import body, pool
from memory_plugin.thin_api.app import make_application
from memory_plugin.thin_api.log import Handler, configure, log
from memory_plugin.thin_api.settings import EXIT_SETTING, Settings, described
from memory_plugin.thin_api.stalled import Watch

SPARE_THREADS = 24
# A worker that died before YOUNG is followed after a pause, each twice the one before, up to MOST_PAUSE.
YOUNG = 10.0
LEAST_PAUSE = 0.125
MOST_PAUSE = 2.0
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 (asked for by a setting without a host)
CONNECTIONS = 4096
BACKLOG = 1024
KEEP_ALIVE = 60.0
DRAIN = 5
PARENT_EVERY = 0.5


class AddressError(Exception):
    """The address cannot be listened on."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; return the exit status."""
    configure(settings.log_format)
    try:
        address = _bindable(settings.host, settings.port)
        claim = _claim(address, settings.port)
    except AddressError as error:
        message = f"cannot listen on {settings.host}:{settings.port}: {error}"
        log("command_failed", level="error", message=message, exit_code=EXIT_SETTING)
        return EXIT_SETTING
    shown = f"[{address}]:{settings.port}" if ":" in address else f"{address}:{settings.port}"
    log("started", address=shown, database=described(settings), pool=settings.pool_size, pid=os.getpid())
    if not settings.token and not ip_address(address.partition("%")[0]).is_loopback:
        advice = (
            "there is no authentication: whoever reaches this address reads and writes every memory; "
            "set MEMORY_PLUGIN_TOKEN, or listen on 127.0.0.1"
        )
        log("LISTENING_BEYOND_LOOPBACK", level="warning", address=shown, advice=advice)
    if settings.run:
        # Longer than the worker, whose end it waits for.
        threading.Thread(target=_end_with, args=(os.getppid(), 2 * DRAIN), name="parent-watch", daemon=True).start()
    status = 0
    try:
        _Server(address, settings).serve(target_loader=_loader(settings), wrap_loader=False)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if claim is not None:
            claim.close()
    log("stopped", address=shown, status=status)
    return status


class _Server(Server):  # type: ignore[valid-type,misc]
    """Granian's server with a worker that is replaced for as long as it takes."""

    def __init__(self, address: str, settings: Settings) -> None:
        super().__init__(
            "memory_plugin.thin_api.app:application",
            address=address,
            port=settings.port,
            interface=Interfaces.WSGI,
            workers=1,
            blocking_threads=settings.pool_size + pool.MAX_WAITING + body.READERS + SPARE_THREADS,
            runtime_mode=RuntimeModes.st,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=int(KEEP_ALIVE * 1000)),
            websockets=False,
            backlog=BACKLOG,
            backpressure=CONNECTIONS,
            log_level=LogLevels.error,
            log_dictconfig={
                "handlers": {name: {"class": f"{Handler.__module__}.Handler"} for name in ("console", "access")}
            },
            log_access=False,
            workers_kill_timeout=DRAIN,
        )
        self.signal_handler_interrupt = _ending(self)
        # None leaves the signal as it is.
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self.signal_handler_reload = None if ignored else self.signal_handler_interrupt

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        tried, pause = monotonic(), 0.0
        while True:
            self.main_loop_interrupt.wait()
            # Before looking, so that nothing that is noted meanwhile is lost.
            self.main_loop_interrupt.clear()
            if self.interrupt_signal:
                # A worker that is dead already is no failure of the end.
                self.interrupt_children.clear()
                return
            if self.interrupt_children:
                pause = min(max(pause * 2, LEAST_PAUSE), MOST_PAUSE) if monotonic() - tried < YOUNG else 0.0
                log("worker_died", level="warning", again_in=pause)
                if self.main_loop_interrupt.wait(pause):
                    continue
                tried = monotonic()
                self._replace(spawn_target, target_loader)

    def _replace(self, spawn_target: Any, target_loader: Any) -> None:
        """Start a worker in place of the one that is dead."""
        worker = self._spawn_worker(idx=0, target=spawn_target, callback_loader=target_loader)
        self.interrupt_children.clear()
        try:
            worker.start()
        except OSError:
            # No process or memory to be had at the moment: as if it had died at once.
            self.interrupt_children.append(0)
            self.main_loop_interrupt.set()
        else:
            self.wrks[:] = [worker]


def _ending(server: Any) -> Callable[..., None]:
    """Return a signal handler that cannot block, in place of granian's.

    That one sets the event its loop waits for right inside the handler: a second signal during it, or one that comes as
    the loop begins to wait, finds the event's lock held by the very thread it interrupts, for ever.
    """

    def note(*_: object) -> None:
        if not server.interrupt_signal:
            server.interrupt_signal = True
            threading.Thread(target=server.main_loop_interrupt.set, name="wake-to-end", daemon=True).start()

    return note


def _loader(settings: Settings) -> Callable[[], Any]:
    parent = os.getpid()

    def load() -> Any:
        """Make the application; runs in the worker process."""
        # A terminal that is closed tells every process; this one ends when its parent says so, after its requests.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=_end_with, args=(parent,), name="parent-watch", daemon=True).start()
        application = make_application(settings)
        Watch(settings.port, application.bodies.reading, application.answers.sending).start()
        return application

    return load


def _end_with(parent: int, seconds: float = DRAIN) -> None:
    """End this process when its parent has, within so many seconds from then."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    log("parent_gone")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(1)


def _bindable(host: str, port: int) -> str:
    """Return the numeric address to listen on, after trying it; "" is every interface, of both families if possible."""
    if not host:
        if _dual_stack():
            try:
                _try(socket.AF_INET6, "::", port)
            except AddressError:
                if _is_free(socket.AF_INET, EVERY_ADDRESS, port):
                    # IPv6 alone is the trouble.
                    return EVERY_ADDRESS
                raise
            return "::"
        _try(socket.AF_INET, EVERY_ADDRESS, port)
        return EVERY_ADDRESS
    try:
        family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise AddressError("no such host") from None
    address = str(sockaddr[0])
    _try(family, address, port)
    return address


def _dual_stack() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            return not probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        return False


def _is_free(family: int, address: str, port: int) -> bool:
    try:
        _try(family, address, port)
    except AddressError:
        return False
    return True


def _claim(address: str, port: int) -> socket.socket | None:
    """Take the address among sidecars of this network, for as long as the returned socket is open.

    By an abstract name, of which a network namespace has its own set and which ends with its process; elsewhere than on
    Linux there are none.
    """
    if sys.platform != "linux":
        return None
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0memory-plugin {address} {port}")
    except OSError as error:
        claim.close()
        if error.errno == EADDRINUSE:
            raise AddressError("address already in use by another sidecar") from None
        # Where such names are forbidden, the first look has to do.
        return None
    return claim


def _try(family: int, address: str, port: int) -> None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As granian does; without it the remains of closed connections would look like a server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        raise AddressError((error.strerror or str(error)).lower()) from None
