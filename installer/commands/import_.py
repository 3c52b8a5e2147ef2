"""`memory-plugin import`: read memories from NDJSON into a store."""

from __future__ import annotations

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

    Takes what `export` writes. A name ending in .gz is decompressed; `-` is standard input. One transaction: if a line
    breaks a rule it is named, and nothing is imported. Ids and created_at are kept; a line without an id becomes a new
    memory.
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
    """Standard input, which cannot tell its position."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int) -> bytes:
        """Read and count."""
        data = self._stream.read(size)
        self.count += len(data)
        return data


@contextmanager
def _opened(file: str) -> Iterator[_Source]:
    """Yield a file to read, decompressed by its name."""
    if file == "-":
        counted = _Counted(sys.stdin.buffer)
        yield _Source(cast("BinaryIO", counted), None, lambda: counted.count)
        return
    try:
        with open(file, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size or None
            counted = _Counted(raw)
            if file.endswith(".gz"):
                with gzip.GzipFile(fileobj=cast("BinaryIO", counted), mode="rb") as packed:
                    yield _Source(cast("BinaryIO", packed), size, lambda: counted.count)
            else:
                yield _Source(cast("BinaryIO", counted), size, lambda: counted.count)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ImportRefusedError(
            f"{file} is cut off or not gzip: {error}", hint="take a whole copy of the file"
        ) from None
    except OSError as error:
        raise BadSettingError(f"cannot read {file}: {error.strerror or error}") from None
