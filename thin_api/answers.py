"""Bound what large answers hold in memory while their readers take their time.

The server beneath buffers an answer whole, however slowly the client reads. So a large answer is handed over in
pieces, each once the last one is on its way, and all bytes not yet handed over are counted: beyond MOST of them,
another large answer is refused. A reader that stops altogether is cut off from outside (`stalled`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import monotonic

from memory_plugin.thin_api.errors import unavailable

# What is smaller than LARGE is sent in one piece and not counted.
LARGE = 1024 * 1024
PIECE = 256 * 1024
MOST = 256 * 1024 * 1024


class Answers:
    """The large answers that are being sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = 0
        # Since when (monotonic) each is being sent.
        self.sending: dict[int, float] = {}

    def parts(self, body: bytes) -> list[bytes] | Pieces:
        """Return what to give the server for a body; a RefusedError of 503 where too much is being sent."""
        if len(body) < LARGE:
            return [body]
        with self._lock:
            if self._held and self._held + len(body) > MOST:
                raise unavailable("too many large answers are being read at once; try again", "answers")
            self._held += len(body)
        pieces = Pieces(self, body)
        self.sending[id(pieces)] = monotonic()
        return pieces

    def done(self, pieces: Pieces) -> None:
        """Count an answer no more."""
        if self.sending.pop(id(pieces), None) is not None:
            with self._lock:
                self._held -= pieces.size


class Pieces:
    """A large answer, piece by piece."""

    def __init__(self, answers: Answers, body: bytes) -> None:
        self.size = len(body)
        self._answers = answers
        self._body = body
        self._place = 0

    def __iter__(self) -> Iterator[bytes]:
        """Return itself."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        piece = self._body[self._place : self._place + PIECE]
        if not piece:
            self.close()
            raise StopIteration
        self._place += len(piece)
        return piece

    def close(self) -> None:
        """Let go of what is left; any server calls this, also where the client is gone."""
        self._body = b""
        self._answers.done(self)
