"""The WSGI application: path -> one SQL call -> status.

Any WSGI server runs `application`; it reads its settings from the environment at its first request. The project's own
server (`server.py`) makes the application with `make_application`, connecting before the first request.

A request's answer is what its SQL function returned, byte for byte. What granian does around it, and what follows:
- PATH_INFO arrives decoded, once, one character a byte (`routes.match` says what becomes of %2F).
- Chunked bodies arrive decoded, without CONTENT_LENGTH. A body cut short reads like one that ended: hence the
  comparison with its declared length, and what `body` says of one that has none.
- A malformed request line, a path with its query over 65,534 bytes, headers over 400 kB or more than 100 of them
  never get here: granian answers 400, 414 or 431 by itself, with no body.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.resources import files
from itertools import count
from threading import Lock
from time import monotonic
from typing import Any

from memory_plugin.thin_api.answers import Answers
from memory_plugin.thin_api.auth import CHALLENGE, Gate
from memory_plugin.thin_api.body import Bodies
from memory_plugin.thin_api.breaker import Breaker
from memory_plugin.thin_api.calls import Calls
from memory_plugin.thin_api.commits import Commits
from memory_plugin.thin_api.embedding import Embedding
from memory_plugin.thin_api.errors import RefusedError, bad_request, internal
from memory_plugin.thin_api.log import configure, log, log_failure
from memory_plugin.thin_api.maintenance import Maintenance
from memory_plugin.thin_api.metrics import CONTENT_TYPE, Metrics
from memory_plugin.thin_api.pool import Pool
from memory_plugin.thin_api.routes import (
    COMMIT,
    DELETE_NAMESPACE,
    HEALTH,
    METRICS,
    OPENAPI,
    QUERY_FAILED,
    SEARCH,
    Route,
    match,
)
from memory_plugin.thin_api.settings import RUN_HEADER, Settings, from_env

VERSION = "1.0.0"
DEGRADED = json.dumps({"status": "degraded", "version": VERSION, "capabilities": []}).encode()

Environ = dict[str, Any]
StartResponse = Callable[..., object]

_JSON = ("Content-Type", "application/json")
_METRICS = ("Content-Type", CONTENT_TYPE)
_RETRY = ("Retry-After", "1")
_CHALLENGE = ("WWW-Authenticate", CHALLENGE)
_LINES = {
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    413: "413 Content Too Large",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Application:
    """A WSGI application over one database."""

    def __init__(self, settings: Settings) -> None:
        configure(settings.log_format)
        self._gate = Gate(settings.token)
        self.bodies = Bodies(settings.max_body)
        self.answers = Answers()
        self._pool = Pool(settings.conninfo, settings.pool_size, _log_reachability)
        breaker = Breaker()
        self._calls = Calls(self._pool, breaker)
        self._commits = Commits(self._calls, settings.pool_size, self._pool.busy)
        self._maintenance = Maintenance(settings.conninfo, settings.sweep_seconds)
        self._embedding = Embedding(settings.conninfo, settings.embed_seconds)
        self._metrics = Metrics(self._pool, breaker, self._maintenance, self._embedding)
        self._openapi = files(__package__).joinpath("openapi.json").read_bytes()
        self._run_header = [(RUN_HEADER, settings.run)] if settings.run else []
        self._prefix = secrets.token_hex(4)
        self._numbers = count(1)

    def start(self) -> None:
        """Start to connect to the database."""
        self._pool.start()
        self._maintenance.start()
        self._embedding.start()

    def close(self) -> None:
        """Let go of the database."""
        self._maintenance.close()
        self._embedding.close()
        self._pool.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        arrived = monotonic()
        given = environ.get("HTTP_X_REQUEST_ID")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else f"{self._prefix}-{next(self._numbers):x}"
        route: Route | None = None
        admitted = False
        try:
            try:
                route, name = _route(environ)
            except RefusedError:
                # Without the token it is not told which paths there are.
                self._gate.check(environ)
                raise
            if route is not HEALTH:
                self._gate.check(environ)
            admitted = True
            line, body = self._answer(route, name, environ, arrived)
            parts: Iterable[bytes] = self.answers.parts(body)
        except RefusedError as refused:
            if not admitted:
                self.bodies.drop(environ)
            if refused.reason == "MP009":
                self._maintenance.refused()
            line, body, headers = self._refuse(refused, route, request_id, arrived)
            parts = [body]
        except Exception as error:
            line, body, headers = self._refuse(internal(type(error).__name__), route, request_id, arrived)
            parts = [body]
        else:
            if line == "204 No Content":
                self._metrics.count(route, line, monotonic() - arrived)
                start_response(line, [("X-Request-Id", request_id)])
                return []
            headers = [_METRICS if route is METRICS else _JSON]
        self._metrics.count(route, line, monotonic() - arrived)
        if route is HEALTH:
            headers += self._run_header
        headers += (("Content-Length", str(len(body))), ("X-Request-Id", request_id))
        start_response(line, headers)
        return parts

    def _answer(self, route: Route, name: bytes, environ: Environ, arrived: float) -> tuple[str, bytes]:
        if route is OPENAPI:
            return route.status, self._openapi
        if route is HEALTH:
            return self._health(arrived)
        if route is METRICS:
            return route.status, self._metrics.text()
        parameters = []
        for parameter in route.parameters:
            if parameter == "name":
                parameters.append(_text(name, route))
            else:
                parameters.append(self.bodies.read(environ))
                # The request is here only now; a client that sends slowly spends its own time.
                arrived = monotonic()
        if route is COMMIT:
            name_text, written = parameters
            body = self._commits.run(name_text, written, arrived)
            self._embedding.committed()
            return route.status, body
        body = self._calls.run(route, parameters, arrived)
        if route is DELETE_NAMESPACE:
            self._maintenance.deleted()
        if route is SEARCH and self._embedding.answered(body):
            # Beside the answer, which is there.
            threading.Thread(target=self._query_failed, daemon=True).start()
        return route.status, body

    def _query_failed(self) -> None:
        # The next search without an embedding says it again.
        with suppress(RefusedError):
            self._calls.run(QUERY_FAILED, (), monotonic())

    def _health(self, arrived: float) -> tuple[str, bytes]:
        body = self._calls.run(HEALTH, (), arrived)
        if json.loads(body).get("status") == "ok":
            return HEALTH.status, body
        return _LINES[503], body

    @staticmethod
    def _refuse(
        refused: RefusedError, route: Route | None, request_id: str, arrived: float
    ) -> tuple[str, bytes, list[tuple[str, str]]]:
        headers = [_JSON]
        status, body = refused.status, refused.body()
        if route is HEALTH:
            status, body = 503, DEGRADED
        if status == 503:
            headers.append(_RETRY)
        if status == 401:
            headers.append(_CHALLENGE)
        if refused.allow:
            headers.append(("Allow", refused.allow))
        if status >= 500:
            log_failure(
                request_id=request_id,
                status=status,
                reason=refused.reason,
                route=f"{route.method} {route.path}" if route else "-",
                ms=round((monotonic() - arrived) * 1000),
            )
        return _LINES[status], body, headers


def make_application(settings: Settings) -> Application:
    """Return an application that is connecting to its database."""
    made = Application(settings)
    made.start()
    return made


def _route(environ: Environ) -> tuple[Route, bytes]:
    method = environ["REQUEST_METHOD"]
    # Not in the WSGI standard, but the only way to see a path as it was sent; gunicorn and uWSGI give one of them.
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw and raw.startswith("/") and not environ.get("SCRIPT_NAME"):
        return match(method, raw.partition("?")[0], encoded=True)
    return match(method, environ.get("PATH_INFO", ""), encoded=False)


def _text(name: bytes, route: Route) -> bytes:
    """Return the path's variable part if Postgres can take it as text; else what the rules say of a malformed one."""
    try:
        name.decode()
    except UnicodeDecodeError:
        pass
    else:
        if b"\0" not in name:
            return name
    if route.path.startswith("/v1/memories/"):
        # Any text that is no UUID: the statement knows the answer to that.
        return b"-"
    raise bad_request("the namespace name must be valid UTF-8 without NUL")


def _log_reachability(reachable: bool, why: str) -> None:
    if reachable:
        log("database_reachable")
    else:
        log("database_unreachable", why=why)


_lock = Lock()
_application: Application | None = None


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request, with the settings of the environment."""
    global _application
    if _application is None:
        with _lock:
            if _application is None:
                _application = make_application(from_env())
    return _application(environ, start_response)
