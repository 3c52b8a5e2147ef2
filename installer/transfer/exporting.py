"""Write a store as NDJSON: namespaces, then memories, from one snapshot, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import BadSettingError
from memory_plugin.installer.transfer import store
from memory_plugin.installer.transfer.progress import Meter

# In binary COPY a row of one column is a count of fields (2 bytes), a length (4 bytes) and the text as it is: neither
# side looks at each character for something to escape.
_ROW_HEAD = 6
_FILE_HEAD = b"PGCOPY\n\xff\r\n\0"
_FILE_HEAD_LENGTH = 19
# So many lines, or so many bytes, are held before they are written.
_LINES_A_WRITE = 512
_BYTES_A_WRITE = 1 << 20

# concat() and not row_to_json or ||: it copies nothing twice and leaves out what is absent. Names, kinds, sources and
# identifiers hold nothing that JSON escapes.
_NAMESPACE_LINE = r"""
    pg_catalog.concat(
        '{{"type":"namespace","name":"', n.name, '","kind":"', n.kind, '"', ',"expires_at":' || {expires_at},
        ',"metadata":' || n.metadata::text, ',"created_at":', pg_catalog.to_json(n.created_at), e'}}\n'
    )
"""
_MEMORY_LINE = r"""
    pg_catalog.concat(
        '{{"type":"memory","namespace":"', r.namespace, '","id":"', r.id,
        '","content":', pg_catalog.to_json(r.content), ',"kind":"', r.kind, '","source":"', r.source, '"',
        ',"expires_at":' || {expires_at}, ',"propagation":' || r.propagation::text,
        case when r.pin then ',"pin":true' end,
        {embedding} ',"created_at":', pg_catalog.to_json(r.created_at), e'}}\n'
    )
"""
# delete_namespace hides a large namespace with -infinity, which RFC 3339 cannot say; infinity is no expiry at all.
_EXPIRY = """case
    when {0}.expires_at = '-infinity' then '"0001-01-02T00:00:00+00:00"'
    when {0}.expires_at < 'infinity' then pg_catalog.to_json({0}.expires_at)::text
end"""
_LIVE = "({0}.expires_at is null or {0}.expires_at > pg_catalog.now())"


@dataclass(frozen=True)
class Exported:
    """How much an export wrote."""

    namespaces: int
    memories: int


def write(
    connection: Connection,
    out: BinaryIO,
    meter: Meter,
    *,
    namespaces: Sequence[str] = (),
    embeddings: bool = False,
    everything: bool = False,
) -> Exported:
    """Write the namespaces named (all when none is) and their memories; expired ones only with `everything`.

    The caller's transaction decides what moment is written. Raises BadSettingError for a namespace that is not there.
    """
    _check_there(connection, namespaces, everything)
    wanted = sql.SQL("true") if everything else sql.SQL(_LIVE.format("n"))
    named = sql.SQL("n.name = any({})").format(list(namespaces)) if namespaces else sql.SQL("true")
    lines = sql.SQL("select {} from memory_plugin.memory_namespaces as n where {} and {} order by n.name").format(
        sql.SQL(_NAMESPACE_LINE).format(expires_at=sql.SQL(_EXPIRY.format("n"))), wanted, named
    )
    count = _copy(connection, lines, out, meter)
    conditions: list[sql.Composable] = [sql.SQL("r.namespace = any({})").format(list(namespaces))] if namespaces else []
    if not everything:
        conditions += [
            sql.SQL(_LIVE.format("r")),
            sql.SQL(
                "not exists (select from memory_plugin.memory_namespaces as n"
                " where n.name = r.namespace and n.expires_at <= pg_catalog.now())"
            ),
        ]
    line = sql.SQL(_MEMORY_LINE).format(
        expires_at=sql.SQL(_EXPIRY.format("r")),
        embedding=sql.SQL("""',"embedding":' || r.embedding::text,""" if embeddings else ""),
    )
    memories = sql.SQL("select {} from memory_plugin.memory_records as r where {}").format(
        line, sql.SQL(" and ").join(conditions or [sql.SQL("true")])
    )
    return Exported(count, _copy(connection, memories, out, meter))


def count(connection: Connection, namespaces: Sequence[str] = ()) -> int:
    """Return about how many lines `write` will write, expired rows counted in."""
    return store.number(
        connection,
        "select (select pg_catalog.count(*) from memory_plugin.memory_records"
        " where %(all)s or namespace = any(%(names)s))"
        " + (select pg_catalog.count(*) from memory_plugin.memory_namespaces where %(all)s or name = any(%(names)s))",
        {"all": not namespaces, "names": list(namespaces)},
    )


def _check_there(connection: Connection, namespaces: Sequence[str], everything: bool) -> None:
    """Refuse a name that would silently give an empty file."""
    live = "true" if everything else _LIVE.format("n")
    for name in namespaces:
        query = f"select pg_catalog.count(*) from memory_plugin.memory_namespaces as n where n.name = %s and {live}"
        if not store.number(connection, query, (name,)):
            raise BadSettingError(
                f"there is no live namespace {name}", hint="name one that is there; --all has expired ones too"
            )


def _copy(connection: Connection, query: sql.Composed, out: BinaryIO, meter: Meter) -> int:
    """Copy the one text column of a query to `out` and return how many rows it had."""
    rows = size = 0
    lines: list[bytes | bytearray | memoryview] = []
    statement = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for message in copy:
            row = message
            if not rows and bytes(row[: len(_FILE_HEAD)]) == _FILE_HEAD:
                row = row[_FILE_HEAD_LENGTH:]
            # The last message is the end mark: a field count of -1 and nothing more.
            if len(row) <= _ROW_HEAD:
                continue
            lines.append(row[_ROW_HEAD:])
            rows += 1
            size += len(row)
            if len(lines) == _LINES_A_WRITE or size >= _BYTES_A_WRITE:
                out.write(b"".join(lines))
                meter.advance(len(lines))
                lines.clear()
                size = 0
    out.write(b"".join(lines))
    meter.advance(len(lines))
    return rows
