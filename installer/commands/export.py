"""`memory-plugin export`: write a store's memories as NDJSON."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import click
import psycopg

from memory_plugin.installer import options, output
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.transfer import exporting, store
from memory_plugin.installer.transfer.exporting import Exported
from memory_plugin.installer.transfer.progress import meter

# Level 6 is zlib's own choice, and twice as slow for a tenth less.
_GZIP_LEVEL = 4
# Characters of a file's name that the name of its unfinished copy repeats: a name holds 255 bytes.
_NAME_KEPT = 50
_EPILOG = """\b
Examples:
  memory-plugin export memories.ndjson.gz --embeddings
  memory-plugin export - --namespace workspace:demo | jq -r .content"""


@click.command(name="export", epilog=_EPILOG)
@click.argument("file")
@options.database
@click.option("--embeddings", is_flag=True, help="Include the embeddings, about 20 kB each.")
@click.option("--namespace", "namespaces", multiple=True, metavar="NAME", help="Only this namespace; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Include expired memories and namespaces.")
def command(
    file: str, database_url: str | None, embeddings: bool, namespaces: tuple[str, ...], everything: bool
) -> None:
    """Write namespaces and memories to FILE as NDJSON.

    A name ending in .gz is compressed; `-` is standard output. The file is one consistent snapshot, and appears under
    its name only once it is complete.
    """
    settings = options.settings(database_url=database_url)
    with store.session(settings, "export") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        store.begin(connection, settings)
        done = write_file(connection, file, namespaces=namespaces, embeddings=embeddings, everything=everything)
    click.echo(f"exported {done.namespaces} namespaces and {done.memories} memories", err=True)


def write_file(
    connection: Connection, file: str, *, namespaces: tuple[str, ...] = (), embeddings: bool, everything: bool
) -> Exported:
    """Export to a file within the caller's transaction."""
    total = exporting.count(connection, namespaces)
    with _opened(file) as out, meter("export", total) as shown:
        return exporting.write(
            connection, out, shown, namespaces=namespaces, embeddings=embeddings, everything=everything
        )


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    """Yield a file to write; a regular file takes its name at the end, and only its owner may read it."""
    if file == "-":
        with output.binary() as out:
            yield out
        return
    path = Path(file)
    regular = path.is_file() or not path.exists()
    part = path
    try:
        if regular:
            # A name of its own: two exports to one file must not write into one another.
            descriptor, name = tempfile.mkstemp(".part", f"{path.name[:_NAME_KEPT]}.", path.parent)
            part = Path(name)
        else:
            descriptor = os.open(path, os.O_WRONLY)
        raw = os.fdopen(descriptor, "wb")
    except OSError as error:
        raise BadSettingError(f"cannot write {path}: {error.strerror}") from None
    try:
        with raw:
            if file.endswith(".gz"):
                with gzip.GzipFile(
                    filename=path.stem, fileobj=raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0
                ) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield raw
            raw.flush()
            if regular:
                os.fsync(raw.fileno())
        if regular:
            part.replace(path)
    except OSError as error:
        raise BadSettingError(f"cannot write {part}: {error.strerror}", hint="make room or name another file") from None
    finally:
        if regular:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
