"""Which request is which statement: all that the sidecar knows of the contract's operations.

A route's parameters are its statement's, in order: "name" (the path's one variable part) and "body". All of them go in
as text, and the answer comes out as text.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from memory_plugin.thin_api.errors import BAD_REQUEST, NOT_FOUND, RefusedError


class Route(NamedTuple):
    """One operation; `reads` says that its statement changes nothing and may be run again after a lost connection."""

    method: str
    path: str
    statement: bytes
    parameters: tuple[str, ...]
    status: str
    reads: bool = False


HEALTH = Route("GET", "/v1/health", b"select memory_plugin.v1_health()", (), "200 OK", reads=True)
OPENAPI = Route("GET", "/v1/openapi.json", b"", (), "200 OK", reads=True)
# Beside the contract, so not among its ROUTES.
METRICS = Route("GET", "/metrics", b"", (), "200 OK", reads=True)
COMMIT = Route(
    "POST",
    "/v1/namespaces/{name}/memories",
    b"select memory_plugin.v1_commit_memory($1::text, $2::json)",
    ("name", "body"),
    "201 Created",
)
SEARCH = Route("POST", "/v1/search", b"select memory_plugin.v1_search($1::json)", ("body",), "200 OK", reads=True)

# No request's, but run like one.
QUERY_FAILED = Route("", "", b"select memory_plugin.embedding_query_failed()", (), "200 OK")
DELETE_NAMESPACE = Route(
    "DELETE",
    "/v1/namespaces/{name}",
    b"select memory_plugin.v1_delete_namespace($1::text)",
    ("name",),
    "204 No Content",
)

ROUTES: tuple[Route, ...] = (
    HEALTH,
    OPENAPI,
    Route(
        "PUT",
        "/v1/namespaces/{name}",
        b"select memory_plugin.v1_put_namespace($1::text, $2::json)",
        ("name", "body"),
        "200 OK",
    ),
    Route(
        "PATCH",
        "/v1/namespaces/{name}",
        b"select memory_plugin.v1_patch_namespace($1::text, $2::json)",
        ("name", "body"),
        "200 OK",
    ),
    DELETE_NAMESPACE,
    COMMIT,
    SEARCH,
    Route(
        "DELETE",
        "/v1/memories/{id}",
        b"select memory_plugin.v1_forget_memory($1::text, $2::json)",
        ("name", "body"),
        "204 No Content",
    ),
)

_VARIABLE = re.compile(r"\{\w+\}")


def _by_path() -> tuple[dict[str, dict[str, Route]], tuple[tuple[re.Pattern[str], dict[str, Route]], ...]]:
    fixed: dict[str, dict[str, Route]] = {}
    variable: dict[str, dict[str, Route]] = {}
    for route in (*ROUTES, METRICS):
        (variable if _VARIABLE.search(route.path) else fixed).setdefault(route.path, {})[route.method] = route
    patterns = ((re.compile(_VARIABLE.sub("([^/]+)", path)), methods) for path, methods in variable.items())
    return fixed, tuple(patterns)


_FIXED, _PATTERNS = _by_path()


def match(method: str, path: str, *, encoded: bool) -> tuple[Route, bytes]:
    """Return the route and its variable part as bytes; a RefusedError of 404 or 405 where there is none.

    `path` is text of one character a byte. It is matched before it is decoded where the server shows it as it was sent
    (`encoded`), so that %2F in a name is never a separator. granian shows it decoded: there %2F has become a slash,
    and since no name and no id holds one, such a path can only name nothing, or what it would name without the escape.
    """
    name = b""
    methods = _FIXED.get(path)
    if methods is None:
        for pattern, candidates in _PATTERNS:
            found = pattern.fullmatch(path)
            if found is not None:
                methods = candidates
                name = unquote_to_bytes(found[1]) if encoded else found[1].encode("latin-1", "replace")
                break
        else:
            raise RefusedError(404, NOT_FOUND, "no such path")
    route = methods.get(method)
    if route is None:
        allow = ", ".join(sorted(methods))
        raise RefusedError(405, BAD_REQUEST, f"method not allowed here; allowed: {allow}", allow=allow)
    return route, name
