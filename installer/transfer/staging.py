"""One batch of earlier memories in the store's database: staged, routed, judged, written, outside Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from memory_plugin.installer.connect import Connection
from memory_plugin.installer.transfer import earlier_table, store
from memory_plugin.installer.transfer.earlier_table import Earlier, Group

_STAGE = """
create temporary table memory_plugin_backfill_staged (
    place bigint generated always as identity (cache 1000),
    id uuid, workspace_id text, content text, scope text, created_at timestamptz, embedding {vector}.vector
) on commit drop;
alter table pg_temp.memory_plugin_backfill_staged alter column content set storage external;
"""
# kind and source are what the earlier table never said: every one of its rows is a fact that an agent noted.
_JUDGE = """
create temporary table memory_plugin_backfill on commit drop as
select
    s.id, s.workspace_id, s.scope, g.namespace,
    memory_plugin._as_committed(s.content) as content, s.created_at, s.embedding, null::boolean as same,
    coalesce(
        g.reason,
        case
            when s.created_at is null then 'created_at is null'
            when pg_catalog.row_number() over (partition by s.id, g.namespace order by s.place) > 1
                then 'the id stands more than once in the source'
        end,
        memory_plugin._refusal(g.namespace, s.content, 'fact', 'agent', null, null, s.embedding)
    ) as reason
from pg_temp.memory_plugin_backfill_staged as s
inner join unnest(%s::text[], %s::text[], %s::text[], %s::text[]) as g (
    workspace_id, scope, namespace, reason
)
    on coalesce(g.workspace_id, '') = coalesce(s.workspace_id, '') and coalesce(g.scope, '') = coalesce(s.scope, '')
order by s.place
"""
_COMPARE = """
update pg_temp.memory_plugin_backfill as b set same = (r.content = b.content)
from memory_plugin.memory_records as r inner join memory_plugin.memory_namespaces as n on r.namespace = n.name
where
    b.reason is null and r.namespace = b.namespace and r.id = b.id
    and (r.expires_at is null or r.expires_at > pg_catalog.now())
    and (n.expires_at is null or n.expires_at > pg_catalog.now())
"""
_DELETE_EXPIRED = """
delete from memory_plugin.memory_records as r using pg_temp.memory_plugin_backfill as b
where b.reason is null and r.namespace = b.namespace and r.id = b.id and r.expires_at <= pg_catalog.now()
"""
_WRITE = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, embedding, created_at)
select b.namespace, b.id, b.content, 'fact', 'agent', memory_plugin._check_embedding(b.embedding), b.created_at
from pg_temp.memory_plugin_backfill as b where b.reason is null and b.same is null
order by b.namespace, b.id
on conflict (namespace, id) do nothing
"""
_TOTALS = """
select coalesce(workspace_id, '(null)'), coalesce(namespace, '(none)'),
    pg_catalog.count(*) filter (where reason is null and same is null),
    pg_catalog.count(*) filter (where reason is null and same),
    pg_catalog.count(*) filter (where reason is not null or not same)
from pg_temp.memory_plugin_backfill group by 1, 2
"""
_REFUSED = """
select id::text, workspace_id, scope, namespace,
    coalesce(reason, 'the store holds other content under this id in this namespace')
from pg_temp.memory_plugin_backfill where reason is not null or not same order by id
"""


@dataclass(frozen=True)
class Total:
    """What becomes of the rows of one workspace that go to one namespace."""

    workspace: str
    namespace: str
    written: int
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


def stage(
    source: Connection,
    connection: Connection,
    vector: sql.Identifier,
    earlier: Earlier,
    after: str | None,
    size: int,
    only: Sequence[Group] | None = None,
) -> Staged:
    """Copy the next rows from the source into the store's database and judge each of them."""
    connection.execute("drop table if exists pg_temp.memory_plugin_backfill_staged, pg_temp.memory_plugin_backfill")
    connection.execute(sql.SQL(_STAGE).format(vector=vector))
    columns = [*earlier_table.NEEDED, "embedding"] if earlier.embeddings else earlier_table.NEEDED
    into = sql.SQL("copy pg_temp.memory_plugin_backfill_staged ({}) from stdin (format binary)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with (
        source.cursor() as reader,
        connection.cursor() as writer,
        reader.copy(earlier_table.batch(earlier, after, size, only)) as rows,
        writer.copy(into) as copy,
    ):
        for row in rows:
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
    """Return the namespaces that rows of this batch go to."""
    query = (
        "select distinct namespace from pg_temp.memory_plugin_backfill where reason is null and same is null order by 1"
    )
    return [str(row[0]) for row in connection.execute(query).fetchall()]


def write(connection: Connection) -> int:
    """Write the rows that the store does not have; return how many were written."""
    connection.execute(_DELETE_EXPIRED)
    return connection.execute(_WRITE).rowcount


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
