"""Read a request's body: bounded, checked to be text, never parsed.

A body that arrives slowly holds a thread of the server (WSGI's read cannot be abandoned), but no connection to the
database. So at most READERS threads read at a time; a request beyond that is turned away unread. A body that stops
arriving altogether is cut off from outside (`stalled`).

The server beneath does not say whether a chunked body ended with its last chunk, with a broken one, or with the
connection. So a body that ends late is refused, as it may have been cut off from outside. Of the others only those are
accepted that are a complete JSON object: cutting off more than blanks would have left them invalid.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any

from memory_plugin.thin_api.errors import BAD_REQUEST, RefusedError, bad_request, unavailable

READERS = 512
# A body or an answer may take so many seconds, and longer by one for each RATE bytes that passed.
GRACE = 5.0
RATE = 64 * 1024
# A client that is still sending when it is refused may never see the answer; so much is read and dropped for its sake.
DISCARD = 16 * 1024 * 1024
# What is read at a time, so that it shows how far a body has come.
_STEP = RATE


class Reading:
    """A body that is being read: since when (monotonic), and how many bytes of it are here at least."""

    __slots__ = ("received", "since")

    def __init__(self) -> None:
        self.since = monotonic()
        self.received = 0

    @property
    def due(self) -> float:
        """Return when (monotonic) the rest has to be here, as far as is known by now."""
        return self.since + GRACE + self.received / RATE


class Bodies:
    """Reads bodies of at most `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Taken and given back by threads without a lock: each of a deque's operations is atomic.
        self._seats = deque(range(READERS))
        # What is read on each seat that is taken.
        self.reading: dict[int, Reading] = {}

    def read(self, environ: Mapping[str, Any]) -> bytes:
        """Return the body. Refused with 400 when there is none, it ends early or is not text; 413 over the limit."""
        try:
            seat = self._seats.pop()
        except IndexError:
            raise unavailable("too many requests are being sent at once; try again", "readers") from None
        self.reading[seat] = reading = Reading()
        try:
            body = self._bytes(environ, reading)
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
            raise bad_request(f"the body must be UTF-8{_uncoded(environ)}") from None
        if b"\0" in body:
            raise bad_request("the body holds a NUL byte")
        return body

    def drop(self, environ: Mapping[str, Any]) -> None:
        """Read a body that is not wanted, as a client that is still sending may never see why it is refused.

        Not one over the limit, which could not be wanted, nor one that is not sent unless it is; and not where seats
        run short.
        """
        declared = environ.get("CONTENT_LENGTH") or "0"
        large = not declared.isdigit() or int(declared) > self._limit
        if large or "HTTP_EXPECT" in environ or len(self._seats) < READERS // 2:
            return
        with suppress(RefusedError):
            self.read(environ)

    def _bytes(self, environ: Mapping[str, Any], reading: Reading) -> bytes:
        stream = environ["wsgi.input"]
        declared = environ.get("CONTENT_LENGTH")
        if declared:
            if not (declared.isascii() and declared.isdigit()):
                raise bad_request("Content-Length must be a number")
            length = int(declared)
            if length > self._limit:
                _discard(stream, length, reading)
                raise self._too_large()
            body = _read(stream, length, reading)
            if len(body) < length:
                raise bad_request("the body ended before its Content-Length")
            return body
        # Without a length only a server that ends the stream itself may be read to the end.
        if not environ.get("wsgi.input_terminated"):
            return b""
        body = _read(stream, self._limit + 1, reading)
        if len(body) > self._limit:
            _discard(stream, DISCARD, reading)
            raise self._too_large()
        if monotonic() > reading.due:
            raise bad_request(f"a chunked body must come within {GRACE:g} seconds, and one more for each {RATE} bytes")
        return body

    def _too_large(self) -> RefusedError:
        return RefusedError(413, BAD_REQUEST, f"the body must be at most {self._limit} bytes")


def _read(stream: Any, size: int, reading: Reading) -> bytes:
    """Read `size` bytes, or what there is until the end; one call may return less than was asked for."""
    body: bytes = stream.read(min(size, _STEP))
    if len(body) == size or not body:
        return body
    parts = [body]
    missing = size - len(body)
    reading.received = len(body)
    while missing and (part := stream.read(min(missing, _STEP))):
        parts.append(part)
        missing -= len(part)
        reading.received += len(part)
    return b"".join(parts)


def _uncoded(environ: Mapping[str, Any]) -> str:
    """Say what to do about a compressed body, which no server opens unless it was agreed on."""
    return ", and not compressed: send it without Content-Encoding" if environ.get("HTTP_CONTENT_ENCODING") else ""


def _discard(stream: Any, size: int, reading: Reading) -> None:
    left = min(size, DISCARD)
    while left > 0 and (part := stream.read(min(left, _STEP))):
        left -= len(part)
        reading.received += len(part)
