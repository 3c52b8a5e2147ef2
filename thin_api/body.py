"""Read a request's body: bounded, checked to be text, never parsed.

A body that arrives slowly holds a thread of the server (WSGI's read cannot be given up), but no connection to the
database. So only READERS threads may be reading at a time; beyond that a request is turned away without being read. One
that does not arrive at all is ended from outside (`stalled`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

from memory_plugin.thin_api.errors import BAD_REQUEST, RefusedError, bad_request, unavailable

READERS = 512
# A client that is still sending when it is refused may never see the answer; so much is read and dropped for its sake.
DISCARD = 16 * 1024 * 1024
_CHUNK = 256 * 1024


class Bodies:
    """Reads bodies of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Taken and given back by threads without a lock: each of a deque's operations is atomic.
        self._seats = deque(range(READERS))
        # Since when (monotonic) each seat that is taken is.
        self.reading: dict[int, float] = {}

    def read(self, environ: Mapping[str, Any]) -> bytes:
        """Return the body. Refused with 400 when there is none, it ends early or is not text; 413 over the limit."""
        try:
            seat = self._seats.pop()
        except IndexError:
            raise unavailable("too many requests are being sent at once; try again", "readers") from None
        self.reading[seat] = monotonic()
        try:
            body = self._bytes(environ)
        except OSError:
            raise bad_request("the body could not be read") from None
        finally:
            del self.reading[seat]
            self._seats.append(seat)
        if not body.strip():
            raise bad_request("a JSON body is required")
        try:
            body.decode()
        except UnicodeDecodeError:
            raise bad_request("the body must be UTF-8") from None
        if b"\0" in body:
            raise bad_request("the body holds a NUL byte")
        return body

    def _bytes(self, environ: Mapping[str, Any]) -> bytes:
        stream = environ["wsgi.input"]
        declared = environ.get("CONTENT_LENGTH")
        if declared:
            if not (declared.isascii() and declared.isdigit()):
                raise bad_request("Content-Length must be a number")
            length = int(declared)
            if length > self._limit:
                _discard(stream, length)
                raise self._too_large()
            body = _read(stream, length)
            if len(body) < length:
                raise bad_request("the body ended before its Content-Length")
            return body
        # Without a length only a server that ends the stream itself may be read to the end.
        if not environ.get("wsgi.input_terminated"):
            return b""
        body = _read(stream, self._limit + 1)
        if len(body) > self._limit:
            _discard(stream, DISCARD)
            raise self._too_large()
        return body

    def _too_large(self) -> RefusedError:
        return RefusedError(413, BAD_REQUEST, f"the body must be at most {self._limit} bytes")


def _read(stream: Any, size: int) -> bytes:
    """Read `size` bytes, or what there is until the end; one call may return less than was asked for."""
    body: bytes = stream.read(size)
    if len(body) == size or not body:
        return body
    parts = [body]
    missing = size - len(body)
    while missing and (part := stream.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _discard(stream: Any, size: int) -> None:
    left = min(size, DISCARD)
    while left > 0 and (part := stream.read(min(left, _CHUNK))):
        left -= len(part)
