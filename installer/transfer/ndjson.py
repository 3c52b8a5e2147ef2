"""NDJSON as it is imported: read in whole lines, made safe for COPY, and parted for the statements that take them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from memory_plugin.installer.errors import ImportRefusedError

_CHUNK = 1 << 20
# A memory that the sidecar takes is a hundredth of this, embedding and escapes included.
_LONGEST_LINE = 64 << 20
# Control characters that JSON text never holds quote and separate, so that CSV takes every line as it is. Should a file
# hold them all the same, they become one that JSON refuses; and a lone carriage return, which would end a row, a tab.
_FORBIDDEN = bytes.maketrans(b"\x00\x01\x02\r", b"\x03\x03\x03\t")
# What one statement checks or writes, by lines and by bytes, so that it shows how far an import is.
_LINES = 1000
_BYTES = 2 << 20
_END_OF_DATA = re.compile(rb"^\\\.[ \t]*$", re.MULTILINE)
_BLANK = re.compile(rb"^[ \t]+$", re.MULTILINE)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def whole_lines(source: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines, many at a time, made safe for the COPY they go into.

    Raises ImportRefusedError naming a line that is longer than memory should hold.
    """
    held: list[bytes] = []
    size = 0
    line = 1
    first = True
    while piece := source.read(_CHUNK):
        if first:
            piece = piece.removeprefix(_BYTE_ORDER_MARK)
            first = False
        end = piece.find(b"\n")
        if size + (len(piece) if end < 0 else end) > _LONGEST_LINE:
            raise ImportRefusedError(f"line {line}: a line must take at most {_LONGEST_LINE} bytes")
        if end < 0:
            held.append(piece)
            size += len(piece)
            continue
        whole, newline, tail = piece.rpartition(b"\n")
        line += piece.count(b"\n")
        held += whole, newline
        yield _safe(b"".join(held))
        held = [tail]
        size = len(tail)
    if size:
        held.append(b"\n")
        yield _safe(b"".join(held))


def _safe(lines: bytes) -> bytes:
    """Return lines without what CSV would take for its own."""
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
    lines = lines.translate(_FORBIDDEN)
    if b" \n" in lines or b"\t\n" in lines:
        lines = _BLANK.sub(b"", lines)
    return _END_OF_DATA.sub(b"\x03", lines) if b"\\." in lines else lines


class Parts:
    """A file's lines, parted by their number and their bytes."""

    def __init__(self) -> None:
        self._lines = self._last = self._size = 0
        self._ends: list[int] = []

    def add(self, lines: bytes) -> None:
        """Take in some more whole lines."""
        at = 0
        while end := lines.find(b"\n", at) + 1:
            self._lines += 1
            self._size += end - at
            at = end
            if self._size >= _BYTES or self._lines - self._last == _LINES:
                self._end()

    def finish(self) -> list[tuple[int, int]]:
        """Return each part as the line before it and its last line."""
        if self._lines > self._last:
            self._end()
        return list(zip([0, *self._ends], self._ends, strict=False))

    def _end(self) -> None:
        self._ends.append(self._lines)
        self._last, self._size = self._lines, 0
