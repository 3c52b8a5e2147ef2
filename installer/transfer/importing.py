"""Read NDJSON into a store: COPY into a staging table, check every line, then one insert. All of it or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import psycopg
from psycopg import sql

from memory_plugin.installer import rules
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import ConflictError, ImportRefusedError, one_line
from memory_plugin.installer.transfer import store
from memory_plugin.installer.transfer.ndjson import Parts, whole_lines
from memory_plugin.installer.transfer.progress import Meter

MODES = ("skip", "update", "error")
_SHOWN = 10
_STAGING = "memory_plugin_import"
# So much of a message of the server's is shown: it may repeat a value.
_MESSAGE = 200

_STAGE = f"""
create temporary table {_STAGING} (n bigint generated always as identity (cache 1000), line json) on commit drop;
-- Compressing what is read once is lost time.
alter table pg_temp.{_STAGING} alter column line set storage external
"""
_COPY = rf"copy pg_temp.{_STAGING} (line) from stdin (format csv, quote e'\x01', delimiter e'\x02')"
# The result type of the check is told by the function, so that it stands in one place.
_CHECKED = f"""
create temporary table {_STAGING}_checked on commit drop as
select s.n, l.* from pg_temp.{_STAGING} as s cross join lateral memory_plugin._import_line(s.line) as l with no data
"""
_DAY = r"((0[1-9]|1[0-2])-([01][1-9]|10|2[0-8])|(0[13578]|1[02])-(29|3[01]))"
_TIME = rf"""^"2[0-9]{{3}}-{_DAY}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{{1,6}})?(Z|[+]00:00)"$"""
# A memory as an export writes it, which no rule of a line can refuse, is taken without a call of a function: a tenth of
# the time. What is in any doubt (an escape before the first visible character, \u, an embedding, a text so long that it
# may hold too many words) is left to the rules.
_CHECK = rf"""
with part as materialized (
    select s.n, s.line from pg_temp.{_STAGING} as s where s.n > %(after)s and s.n <= %(upto)s and s.line is not null
),
ordinary as (
    insert into pg_temp.{_STAGING}_checked (
        n, line_type, namespace, id, content, kind, source, expires_at, pin, created_at
    )
    select
        s.n, 'memory', pg_catalog.btrim(x.namespace::text, '"'), pg_catalog.btrim(x.id::text, '"')::uuid,
        x.content #>> '{{}}', pg_catalog.btrim(x.kind::text, '"'), pg_catalog.btrim(x.source::text, '"'),
        pg_catalog.btrim(x.expires_at::text, '"')::timestamptz, coalesce(x.pin::text = 'true', false),
        pg_catalog.btrim(x.created_at::text, '"')::timestamptz
    from part as s
    -- \u0000 and half a pair of surrogates are errors wherever a line is taken apart: only the rules can name the line.
    cross join lateral pg_catalog.json_to_record(
        case when pg_catalog.json_typeof(s.line) = 'object' and pg_catalog.strpos(s.line::text, '\u') = 0
            then s.line end
    ) as x (
        type json, namespace json, id json, content json, kind json, source json, expires_at json,
        propagation json, pin json, embedding json, created_at json
    )
    where x.type::text = '"memory"'
        and x.kind::text in ({rules.CONSTANTS["json_kinds"]})
        and x.source::text in ({rules.CONSTANTS["json_sources"]})
        and x.namespace::text ~ '^"[^"\\]+"$'
        and x.id::text ~* '^"{rules.UUID}"$'
        and x.created_at::text ~ '{_TIME}'
        and (x.expires_at is null or x.expires_at::text ~ '{_TIME}')
        and (x.pin is null or x.pin::text in ('true', 'false'))
        and x.content::text ~ '^"[^"\\!-~]*[!#-Z^-~]'
        and pg_catalog.octet_length(x.content::text) <= {rules.UNCHECKED_BYTES}
        and x.propagation is null and x.embedding is null
    returning n
)
insert into pg_temp.{_STAGING}_checked
select r.n, l.* from part as r cross join lateral memory_plugin._import_line(r.line) as l
where r.n not in (select n from ordinary)
"""
# Of a million lines, a few thousand differ in these; and only what is in doubt is worth the call of the rules.
_JUDGE_GROUPS = rf"""
create temporary table {_STAGING}_refused on commit drop as
select * from (
    select g.*, memory_plugin._import_group(g.line_type, g.namespace, g.kind, g.source) as refusal
    from (
        select c.line_type, c.namespace, c.kind, c.source
        from pg_temp.{_STAGING}_checked as c where c.refusal is null group by 1, 2, 3, 4
    ) as g
    where (
        g.line_type = 'memory'
        and g.kind = any ('{{{",".join(rules.KINDS)}}}') and g.source = any ('{{{",".join(rules.SOURCES)}}}')
        and g.namespace ~ '^{rules.NAMESPACE_NAME}$' and pg_catalog.length(g.namespace) <= {rules.NAMESPACE_LENGTH}
    ) is not true
) as judged
where refusal is not null
"""
_REFUSE_GROUPS = f"""
update pg_temp.{_STAGING}_checked as c set refusal = judged.refusal from pg_temp.{_STAGING}_refused as judged
where c.refusal is null
    and (c.line_type, c.namespace, c.kind, c.source)
    is not distinct from (judged.line_type, judged.namespace, judged.kind, judged.source)
"""
_REDACT = f"""
update pg_temp.{_STAGING}_checked set content = memory_plugin._as_committed(content)
where line_type = 'memory' and n > %(after)s and n <= %(upto)s
"""
_LAST_LINE_WINS = f"""
delete from pg_temp.{_STAGING}_checked as c
using (
    select line_type, namespace, id, pg_catalog.max(n) as last from pg_temp.{_STAGING}_checked
    group by line_type, namespace, id having pg_catalog.count(*) > 1
) as twice
where c.line_type = twice.line_type and c.namespace = twice.namespace and c.id is not distinct from twice.id
    and c.n < twice.last
"""
_CONFLICTS = f"""
with rows as (
    select c.*, pg_catalog.row_number() over (partition by c.line_type, c.namespace, c.id order by c.n) as place
    from pg_temp.{_STAGING}_checked as c
)
select c.n,
    case c.line_type when 'namespace' then 'namespace ' else 'memory ' || c.id || ' in ' end || c.namespace
    || case when c.place > 1 then ' stands in an earlier line too' else ' is in the store' end
from rows as c
left join memory_plugin.memory_namespaces as n on c.line_type = 'namespace' and n.name = c.namespace
left join memory_plugin.memory_records as r on c.line_type = 'memory' and r.namespace = c.namespace and r.id = c.id
where c.place > 1 or r.id is not null
    or (n.name is not null and (n.kind, n.expires_at, n.metadata) is distinct from (c.kind, c.expires_at, c.metadata))
order by c.n
"""
# What has expired is as if absent: it goes first, and what is imported starts anew.
_EXPIRED = (
    f"""
delete from memory_plugin.memory_namespaces as n
where n.expires_at <= pg_catalog.now() and n.name in (select namespace from pg_temp.{_STAGING}_checked)
""",
    f"""
delete from memory_plugin.memory_records as r using pg_temp.{_STAGING}_checked as c
where r.expires_at <= pg_catalog.now() and r.namespace = c.namespace and r.id = c.id
""",
)
_NAMESPACES = f"""
insert into memory_plugin.memory_namespaces as n (name, kind, expires_at, metadata, created_at)
select distinct on (c.namespace)
    c.namespace, case c.line_type when 'namespace' then c.kind else memory_plugin._kind_of_namespace(c.namespace) end,
    case c.line_type when 'namespace' then c.expires_at end, c.metadata,
    case c.line_type when 'namespace' then c.created_at else pg_catalog.now() end
from pg_temp.{_STAGING}_checked as c
{{only}}
order by c.namespace, c.line_type desc, c.n
on conflict (name) do {{otherwise}}
"""
_UPDATE_NAMESPACE = """update set kind = excluded.kind, expires_at = excluded.expires_at, metadata = excluded.metadata
where (n.kind, n.expires_at, n.metadata) is distinct from (excluded.kind, excluded.expires_at, excluded.metadata)"""
_MEMORIES = f"""
with lines as (
    select c.* from pg_temp.{_STAGING}_checked as c where c.line_type = 'memory' and c.n > {{after}} and c.n <= {{upto}}
),
done as (
    insert into memory_plugin.memory_records as r (
        namespace, id, content, kind, source, expires_at, propagation, pin, embedding, created_at
    )
    select c.namespace, c.id, c.content, c.kind, c.source, c.expires_at, c.propagation, c.pin, c.embedding, c.created_at
    from lines as c order by c.n
    on conflict (namespace, id) do {{otherwise}}
    returning r.xmax = 0 as fresh
)
select
    (select pg_catalog.count(*) from lines), pg_catalog.count(*) filter (where d.fresh),
    pg_catalog.count(*) filter (where not d.fresh)
from done as d
"""
# A file without embeddings must not take away those of memories whose text is still the same.
_EMBEDDING = (
    "case when r.content = excluded.content then coalesce(excluded.embedding, r.embedding) else excluded.embedding end"
)
_UPDATE_MEMORY = f"""update set
    content = excluded.content, kind = excluded.kind, source = excluded.source, expires_at = excluded.expires_at,
    propagation = excluded.propagation, pin = excluded.pin, embedding = {_EMBEDDING}
where (r.content, r.kind, r.source, r.expires_at, r.propagation, r.pin)
    is distinct from (
        excluded.content, excluded.kind, excluded.source, excluded.expires_at, excluded.propagation, excluded.pin
    )
    or (excluded.embedding is not null
        and (r.embedding is null or r.embedding operator({{vector}}.<>) excluded.embedding))"""


@dataclass(frozen=True)
class Imported:
    """What an import read and did; the memories written, updated and unchanged add up to those read."""

    namespaces: int
    memories: int
    written: int
    updated: int
    unchanged: int


def read(
    connection: Connection, source: BinaryIO, mode: str, vector: sql.Identifier, meter: Meter, done: Callable[[], int]
) -> Imported:
    """Import the lines of `source` within the caller's transaction; `done` tells how far the file has been read.

    Raises ImportRefusedError naming line and rule, ConflictError with mode `error`; the caller then rolls back.
    """
    parts = _stage(connection, source, meter, done)
    _in_parts(connection, _CHECK, parts, meter, "checking")
    if connection.execute(_JUDGE_GROUPS).rowcount:
        connection.execute(_REFUSE_GROUPS)
    connection.execute(f"analyze pg_temp.{_STAGING}_checked")
    _refuse_bad_lines(connection)
    connection.execute(f"drop table pg_temp.{_STAGING}")
    connection.execute(f"create index on pg_temp.{_STAGING}_checked (n)")
    if store.one(connection, "select memory_plugin._redacts_on_commit()")[0]:
        _in_parts(connection, _REDACT, parts, meter, "redacting")
    namespaces, memories = _counts(connection)
    if mode == "update":
        connection.execute(_LAST_LINE_WINS)
    for statement in _EXPIRED:
        connection.execute(statement)
    if mode == "error":
        _refuse_conflicts(connection)
    _write_namespaces(connection, mode)
    written, updated = _write_memories(connection, mode, vector, parts, meter)
    return Imported(namespaces, memories, written, updated, memories - written - updated)


def _stage(connection: Connection, source: BinaryIO, meter: Meter, done: Callable[[], int]) -> list[tuple[int, int]]:
    """Copy every line into the staging table, where a column of type json takes JSON only; return the parts of it."""
    store.check_staging(connection)
    connection.execute(_STAGE)
    parts = Parts()
    before = done()
    try:
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for lines in whole_lines(source):
                copy.write(lines)
                parts.add(lines)
                now = done()
                meter.advance(now - before)
                before = now
    except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex) as error:
        # The context says `COPY memory_plugin_import, line 3, column …`, in the server's language.
        match = re.search(rf"{_STAGING}\D*(\d+)", error.diag.context or "")
        line = f"line {match.group(1)}" if match else "a line"
        # The server's own detail repeats the line, which is somebody's memory.
        not_json = isinstance(error, psycopg.errors.InvalidTextRepresentation)
        told = "is not JSON, or cut off" if not_json else one_line(error.diag.message_primary or "")[:_MESSAGE]
        raise ImportRefusedError(f"{line}: {told}") from None
    connection.execute(f"create index on pg_temp.{_STAGING} (n)")
    connection.execute(f"analyze pg_temp.{_STAGING} (n)")
    connection.execute(_CHECKED)
    return parts.finish()


def _in_parts(connection: Connection, statement: str, parts: list[tuple[int, int]], meter: Meter, doing: str) -> None:
    """Run a statement for each part of the lines, and show how far it is."""
    meter.rows(f"{doing} {parts[-1][1] if parts else 0} lines", parts[-1][1] if parts else 0)
    for after, upto in parts:
        connection.execute(statement, {"after": after, "upto": upto})
        meter.advance(upto - after)


def _refuse_bad_lines(connection: Connection) -> None:
    """Name the first lines that break a rule, if any does."""
    bad = store.number(
        connection, f"select pg_catalog.count(*) from pg_temp.{_STAGING}_checked where refusal is not null"
    )
    if bad:
        shown = connection.execute(
            f"select n, refusal from pg_temp.{_STAGING}_checked where refusal is not null order by n limit {_SHOWN}"
        ).fetchall()
        raise ImportRefusedError(_listed([f"line {n}: {refusal}" for n, refusal in shown], bad))


def _refuse_conflicts(connection: Connection) -> None:
    """Name the first rows that are already there, if any is."""
    found = connection.execute(f"{_CONFLICTS} limit {_SHOWN}").fetchall()
    if found:
        total = store.number(connection, f"select pg_catalog.count(*) from ({_CONFLICTS}) as conflicts")
        hint = "import with --on-conflict skip (keep the store's) or update (take the file's)"
        raise ConflictError(_listed([f"line {n}: {what}" for n, what in found], total), hint=hint)


def _listed(shown: list[str], total: int) -> str:
    """Return the first few of many in one line."""
    return "; ".join(shown) + (f"; and {total - len(shown)} more" if total > len(shown) else "")


def _counts(connection: Connection) -> tuple[int, ...]:
    """Return how many namespaces and memories the file holds."""
    return store.numbers(
        connection,
        "select pg_catalog.count(*) filter (where line_type = 'namespace'), "
        f"pg_catalog.count(*) filter (where line_type = 'memory') from pg_temp.{_STAGING}_checked",
    )


def _write_namespaces(connection: Connection, mode: str) -> None:
    """Write the file's namespaces, then those that only its memories name."""
    named = "where c.line_type = 'namespace'"
    otherwise = _UPDATE_NAMESPACE if mode == "update" else "nothing"
    connection.execute(_NAMESPACES.format(only=named, otherwise=otherwise))
    connection.execute(_NAMESPACES.format(only="where c.line_type = 'memory'", otherwise="nothing"))


def _write_memories(
    connection: Connection, mode: str, vector: sql.Identifier, parts: list[tuple[int, int]], meter: Meter
) -> tuple[int, int]:
    """Insert the memories, some lines at a time; return how many are new and how many were changed."""
    left = store.number(
        connection, f"select pg_catalog.count(*) from pg_temp.{_STAGING}_checked where line_type = 'memory'"
    )
    meter.rows(f"writing {left} memories", left)
    otherwise = sql.SQL(_UPDATE_MEMORY).format(vector=vector) if mode == "update" else sql.SQL("nothing")
    written = updated = 0
    for after, upto in parts:
        part = sql.SQL(_MEMORIES).format(after=after, upto=upto, otherwise=otherwise)
        memories, fresh, changed = store.numbers(connection, part)
        written, updated = written + fresh, updated + changed
        meter.advance(memories)
    return written, updated
