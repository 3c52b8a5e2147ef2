"""`memory-plugin import`: read memories from NDJSON into a store."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import BinaryIO, cast

import click

from memory_plugin.installer import options, report
from memory_plugin.installer.errors import BadSettingError, ImportRefusedError
from memory_plugin.installer.transfer import importing, store
from memory_plugin.installer.transfer.progress import meter

# What a gzip file begins with; no JSON does.
_GZIP = b"\x1f\x8b"
_EPILOG = """\b
Examples:
  memory-plugin import memories.ndjson.gz
  memory-plugin import - --on-conflict update < memories.ndjson"""


@click.command(name="import", epilog=_EPILOG)
@click.argument("file")
@options.database
@click.option(
    "--on-conflict",
    type=click.Choice(importing.MODES),
    default="skip",
    show_default=True,
    help="What to do with a memory already there: keep it, replace it, or refuse the file.",
)
@options.as_json
def command(file: str, database_url: str | None, on_conflict: str, as_json: bool) -> None:
    """Read namespaces and memories from an NDJSON FILE.

    Takes what `export` writes. What gzip has compressed is decompressed; `-` is standard input. One transaction: if a
    line breaks a rule it is named, and nothing is imported. Ids and created_at are kept; a line without an id becomes a
    new memory.
    """
    settings = options.settings(database_url=database_url)
    with _opened(file) as source, store.session(settings, "import") as connection:
        vector = store.begin(connection, settings)
        with meter("import", source.size, "bytes") as shown:
            done = importing.read(connection, source.stream, on_conflict, vector, shown, source.position)
            connection.commit()
    if as_json:
        report.print_json(asdict(done))
        return
    report.print_rows(
        f"import into {settings.masked_url}",
        [
            ("namespaces", str(done.namespaces)),
            ("memories", str(done.memories)),
            ("written", str(done.written)),
            ("updated", str(done.updated)),
            ("unchanged", str(done.unchanged)),
        ],
    )


@dataclass(frozen=True)
class _Source:
    """A file being read: its stream, its bytes on disk (None when unknown), and how many of them are read."""

    stream: BinaryIO
    size: int | None
    position: Callable[[], int]


class _Counted:
    """A stream that counts what is read of it, and whose first bytes are known beforehand."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = self._kept = stream.read(len(_GZIP))
        self.count = 0

    def read(self, size: int) -> bytes:
        """Read and count."""
        kept, self._kept = self._kept, b""
        data = kept + self._stream.read(size - len(kept))
        self.count += len(data)
        return data


@contextmanager
def _opened(file: str) -> Iterator[_Source]:
    """Yield a file to read, decompressed where its first bytes say that it is compressed."""
    shown = "standard input" if file == "-" else file
    if file == "-" and sys.stdin is None:
        raise BadSettingError("cannot read standard input: it is closed", hint="name a file, or give one with <")
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as raw:
            size = None if file == "-" else os.fstat(raw.fileno()).st_size or None
            counted = _Counted(raw)
            stream = cast("BinaryIO", counted)
            if counted.head == _GZIP:
                with gzip.GzipFile(fileobj=stream, mode="rb") as packed:
                    yield _Source(cast("BinaryIO", packed), size, lambda: counted.count)
            else:
                yield _Source(stream, size, lambda: counted.count)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImportRefusedError(
            f"{shown} is cut off or not gzip: {error}", hint="take a whole copy of the file"
        ) from None
    except OSError as error:
        raise BadSettingError(f"cannot read {shown}: {error.strerror or error}") from None
