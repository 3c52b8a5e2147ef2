"""One batch of earlier memories in the store's database: staged, routed, judged, written, outside Python."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.transfer import earlier_table, store
from memory_plugin.installer.transfer.earlier_table import Earlier

_TABLES = """
create temporary table memory_plugin_backfill_staged (
    place bigint generated always as identity (cache 1000),
    id uuid, workspace_id text, content text, scope text, created_at timestamptz, embedding {vector}.vector
) on commit drop;
alter table pg_temp.memory_plugin_backfill_staged alter column content set storage external;
-- fate: new or lacking (the store has the row without its embedding) at first; at the end written, updated, unchanged
-- or refused. A row that is refused has a reason, and no other has.
create temporary table memory_plugin_backfill (
    id uuid, workspace_id text, scope text, namespace text, content text, created_at timestamptz,
    embedding {vector}.vector, fate text, reason text
) on commit drop
"""
# kind and source are what the earlier table never said: every one of its rows is a fact that an agent noted.
_JUDGE = """
insert into pg_temp.memory_plugin_backfill (
    id, workspace_id, scope, namespace, content, created_at, embedding, reason, fate
)
select j.*, case when j.reason is null then 'new' else 'refused' end
from (
    select
        s.id, s.workspace_id, s.scope, g.namespace,
        memory_plugin._as_committed(s.content) as content, s.created_at, s.embedding,
        coalesce(
            g.reason,
            memory_plugin._creation_refusal(s.created_at),
            case
                when pg_catalog.row_number() over (partition by s.id, g.namespace order by s.place) > 1
                    then 'the id stands more than once in the source'
            end,
            memory_plugin._refusal(g.namespace, s.content, 'fact', 'agent', null, null, s.embedding)
        ) as reason
    from pg_temp.memory_plugin_backfill_staged as s
    inner join unnest(%s::text[], %s::text[], %s::text[], %s::text[]) as g (
        workspace_id, scope, namespace, reason
    )
        -- Null is not '': the first line is what can be hashed, the second is what is meant.
        on coalesce(g.workspace_id, '') = coalesce(s.workspace_id, '') and coalesce(g.scope, '') = coalesce(s.scope, '')
        and (g.workspace_id, g.scope) is not distinct from (s.workspace_id, s.scope)
    order by s.place
) as j
"""
# Row by row along the primary key: nothing is known of a temporary table's rows, and a join that the planner then makes
# reads a whole namespace for each batch.
_COMPARE = """
update pg_temp.memory_plugin_backfill as b set (fate, reason) = (
    select coalesce(held.fate, 'new'), held.reason
    from (values (1)) as one (row)
    left join (
        select
            case
                when r.content <> b.content then 'refused'
                when r.embedding is null and b.embedding is not null then 'lacking'
                else 'unchanged'
            end as fate,
            case
                when r.content <> b.content then 'the store holds other content under this id in this namespace'
            end as reason
        from memory_plugin.memory_records as r inner join memory_plugin.memory_namespaces as n on r.namespace = n.name
        where r.namespace = b.namespace and r.id = b.id
            and (r.expires_at is null or r.expires_at > pg_catalog.now())
            and (n.expires_at is null or n.expires_at > pg_catalog.now())
    ) as held on true
)
where b.fate in ('new', 'lacking')
"""
_DELETE_EXPIRED = """
delete from memory_plugin.memory_records as r using pg_temp.memory_plugin_backfill as b
where b.fate = 'new' and r.namespace = b.namespace and r.id = b.id and r.expires_at <= pg_catalog.now()
"""
# What was done is marked by a hashed subplan and not by a join, for the same reason.
_WRITE = """
with done as (
    insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding, created_at)
    select b.namespace, b.id, b.content, 'fact', 'agent', memory_plugin._check_embedding(b.embedding), b.created_at
    from pg_temp.memory_plugin_backfill as b where b.fate = 'new'
    order by b.namespace, b.id
    on conflict (namespace, id) do nothing
    returning namespace, id
)
update pg_temp.memory_plugin_backfill as b
set fate = case when (b.namespace, b.id) in (select d.namespace, d.id from done as d) then 'written' else b.fate end
where b.fate = 'new'
"""
# Locked in the order in which commits lock, and looked at again once locked: an embedding is never overwritten.
_UPDATE = """
with held as materialized (
    select b.namespace, b.id, b.embedding
    from (
        select w.* from pg_temp.memory_plugin_backfill as w where w.fate = 'lacking' order by w.namespace, w.id
    ) as b
    cross join lateral (
        select from memory_plugin.memory_records as r
        where r.namespace = b.namespace and r.id = b.id and r.embedding is null and r.content = b.content
            and (r.expires_at is null or r.expires_at > pg_catalog.now())
        for no key update
    ) as held
),
done as (
    update memory_plugin.memory_records as r set embedding = memory_plugin._check_embedding(h.embedding)
    from held as h where r.namespace = h.namespace and r.id = h.id
    returning r.namespace, r.id
)
update pg_temp.memory_plugin_backfill as b
set fate = case when (b.namespace, b.id) in (select d.namespace, d.id from done as d) then 'updated' else b.fate end
where b.fate = 'lacking'
"""
_SETTLE = """
update pg_temp.memory_plugin_backfill
set fate = 'refused', reason = 'the store''s row was changed or removed at this moment: run backfill again'
where fate in ('new', 'lacking')
"""
_WANTED = """
select distinct b.namespace from pg_temp.memory_plugin_backfill as b
where b.fate = 'new' and not exists (
    select from memory_plugin.memory_namespaces as n
    where n.name = b.namespace and (n.expires_at is null or n.expires_at > pg_catalog.now())
)
order by 1
"""
_TOTALS = """
select coalesce(workspace_id, '(null)'), coalesce(namespace, '(none)'),
    pg_catalog.count(*) filter (where fate in ('new', 'written')),
    pg_catalog.count(*) filter (where fate in ('lacking', 'updated')),
    pg_catalog.count(*) filter (where fate = 'unchanged'),
    pg_catalog.count(*) filter (where fate = 'refused')
from pg_temp.memory_plugin_backfill group by 1, 2
"""
_REFUSED = """
select id::text, workspace_id, scope, namespace, reason
from pg_temp.memory_plugin_backfill where fate = 'refused' order by id
"""


@dataclass(frozen=True)
class Total:
    """What becomes of the rows of one workspace that go to one namespace."""

    workspace: str
    namespace: str
    written: int
    updated: int
    """Rows that the store has without the embedding that the source has by now."""
    unchanged: int
    refused: int


@dataclass(frozen=True)
class Refused:
    """One row that stays behind, and why."""

    id: str | None
    workspace_id: str | None
    scope: str | None
    namespace: str | None
    reason: str


@dataclass(frozen=True)
class Staged:
    """A batch that has been read and judged."""

    rows: int
    last_id: str | None


def make_tables(connection: Connection, vector: sql.Identifier) -> None:
    """Make the tables of a batch, once a transaction: each table made takes room in the server's lock table."""
    store.check_staging(connection)
    connection.execute(sql.SQL(_TABLES).format(vector=vector))


def stage(
    connection: Connection, earlier: Earlier, batch: Generator[memoryview | bytes | bytearray, None, None]
) -> Staged:
    """Copy the next rows from the source into the store's database and judge each of them."""
    connection.execute("truncate pg_temp.memory_plugin_backfill_staged, pg_temp.memory_plugin_backfill")
    columns = [*earlier_table.NEEDED, "embedding"] if earlier.embeddings else earlier_table.NEEDED
    into = sql.SQL("copy pg_temp.memory_plugin_backfill_staged ({}) from stdin (format binary)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with closing(batch), connection.cursor() as cursor, cursor.copy(into) as copy:
        for row in batch:
            copy.write(row)
    count, last = store.one(
        connection,
        "select pg_catalog.count(*),"
        " (select s.id::text from pg_temp.memory_plugin_backfill_staged as s order by s.place desc limit 1)"
        " from pg_temp.memory_plugin_backfill_staged",
    )
    _judge(connection, earlier)
    return Staged(int(str(count)), None if last is None else str(last))


def compare(connection: Connection) -> None:
    """Look which of the rows the store has already."""
    connection.execute(_COMPARE)


def totals(connection: Connection) -> list[Total]:
    """Return what becomes of the rows, by workspace and namespace."""
    return [Total(*row) for row in connection.execute(_TOTALS).fetchall()]  # type: ignore[arg-type]


def refused(connection: Connection) -> list[Refused]:
    """Return the rows that stay behind."""
    return [Refused(*row) for row in connection.execute(_REFUSED).fetchall()]  # type: ignore[arg-type]


def wanted_namespaces(connection: Connection) -> list[str]:
    """Return the namespaces that rows of this batch go to and that are not there."""
    return [str(row[0]) for row in connection.execute(_WANTED).fetchall()]


def write(connection: Connection) -> None:
    """Write what the store does not have, and settle every row's fate by what became of it."""
    for statement in (_DELETE_EXPIRED, _WRITE, _COMPARE, _UPDATE, _COMPARE, _SETTLE):
        connection.execute(statement)


def _judge(connection: Connection, earlier: Earlier) -> None:
    """Give each row its namespace, or the reason against it."""
    groups = connection.execute(
        "select distinct workspace_id, scope from pg_temp.memory_plugin_backfill_staged"
    ).fetchall()
    routes = [(workspace, scope, earlier.lineage.route(workspace, scope)) for workspace, scope in groups]  # type: ignore[arg-type]
    connection.execute(
        _JUDGE,
        (
            [workspace for workspace, _, _ in routes],
            [scope for _, scope, _ in routes],
            [route.namespace for _, _, route in routes],
            [route.reason for _, _, route in routes],
        ),
    )
