"""Find what removing the store would take along, and remove it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import psycopg

from memory_plugin.installer import discover, inventory, sources
from memory_plugin.installer import plan as planning
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.discover import Facts
from memory_plugin.installer.errors import DependentsError, ForeignSchemaError
from memory_plugin.installer.transfer import store

# Made by a change of the model and not by a migration.
_SPARE = {"memory_vectors_spare", "memory_sketches_spare"}
_DOWN = "000_schema_bootstrap.down.sql"
ROLES = ("memory_plugin_owner", "memory_plugin_api", "memory_plugin_reader")

_HELD = """
select
    (select e.extversion from pg_catalog.pg_extension as e
        where e.extname = 'vector' and e.extnamespace = n.oid) as vector,
    (select pg_catalog.count(*) from pg_catalog.pg_proc as p
        where p.pronamespace = n.oid and not exists (
            select from pg_catalog.pg_depend as d
            where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
        )) as functions,
    (select coalesce(pg_catalog.array_agg(c.relname::text order by c.relname), '{}') from pg_catalog.pg_class as c
        where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')) as relations,
    (select coalesce(pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::bigint from pg_catalog.pg_class as c
        where c.relnamespace = n.oid and c.relkind in ('r', 'm')) as bytes
from pg_catalog.pg_namespace as n where n.nspname = 'memory_plugin'
"""
# What stands in the schema by itself: no row types, no members of extensions, nothing that belongs to a table.
_STANDING = """
select
    o.type || ' ' || o.identity as words,
    case
        when c.oid is not null then 'relation' when p.oid is not null then 'function' when t.oid is not null then 'type'
    end as kind,
    coalesce(c.relname, p.proname, t.typname)::text as name,
    coalesce(c.relkind in ('r', 'p', 'm', 'f'), false) as has_rows,
    coalesce(coalesce(p.proowner, t.typowner) = store.owner, false) as of_owner
from pg_catalog.pg_depend as d
cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, 0) as o
left join pg_catalog.pg_class as c on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
left join pg_catalog.pg_proc as p on d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
left join pg_catalog.pg_type as t on d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid
left join (
    select r.relowner as owner from pg_catalog.pg_class as r
    where r.oid = pg_catalog.to_regclass('memory_plugin.memory_records')
) as store on true
where
    d.refclassid = 'pg_catalog.pg_namespace'::regclass and d.deptype = 'n'
    and d.refobjid = pg_catalog.to_regnamespace('memory_plugin')
    -- An extension that lives here is told among what depends on the store.
    and d.classid <> 'pg_catalog.pg_extension'::regclass
    and not exists (
        select from pg_catalog.pg_depend as whole
        where whole.classid = d.classid and whole.objid = d.objid
        -- A partition belongs to its table and has rows of its own.
        and (whole.deptype in ('i', 'e') or whole.deptype = 'a' and (c.oid is null or c.relkind = 'S'))
    )
order by 1
"""
# What dropping the schema would drop, as `cascade` finds it, and what of that is not ours. The walk without pgvector
# finds what needs the store; what only the other walk finds would be kept by moving pgvector to another schema.
_OUTSIDE = """
with recursive extension_parts as (
    select 'pg_catalog.pg_extension'::regclass::oid as classid, e.oid as objid
    from pg_catalog.pg_extension as e where e.extname = 'vector'
    union all
    select d.classid, d.objid from pg_catalog.pg_depend as d
    inner join pg_catalog.pg_extension as e on d.refobjid = e.oid and e.extname = 'vector'
    where d.refclassid = 'pg_catalog.pg_extension'::regclass and d.deptype = 'e'
),
going as (
    select 'pg_catalog.pg_namespace'::regclass::oid as classid, n.oid as objid, 0 as objsubid
    from pg_catalog.pg_namespace as n where n.nspname = 'memory_plugin'
    union
    select step.classid, step.objid, step.objsubid
    from going as g
    cross join lateral (
        select d.classid, d.objid, d.objsubid from pg_catalog.pg_depend as d
        where d.refclassid = g.classid and d.refobjid = g.objid and (g.objsubid = 0 or d.refobjsubid = g.objsubid)
        union all
        select d.refclassid, d.refobjid, d.refobjsubid from pg_catalog.pg_depend as d
        where d.classid = g.classid and d.objid = g.objid and d.deptype in ('i', 'e') and g.objsubid = 0
    ) as step
    where %(with_vector)s or not exists (
        select from extension_parts as e where e.classid = step.classid and e.objid = step.objid
    )
)
select distinct o.type || ' ' || o.identity
from going as g
cross join lateral pg_catalog.pg_identify_object(g.classid, g.objid, g.objsubid) as o
where
    -- What goes with its owner (the type of a view, the members of an extension) is told as the owner.
    not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = g.classid and d.objid = g.objid and g.objsubid = 0 and d.deptype in ('i', 'e')
    )
    and case
        when o.schema is not null then o.schema not in ('memory_plugin', 'pg_toast')
        when o.type = 'schema' then o.identity <> 'memory_plugin'
        when o.type = 'extension' then o.identity <> 'vector'
        -- A default, a trigger, a policy, a cast, a table's place in a publication: in no schema of its own. It is ours
        -- where it belongs to something of ours and to nothing else.
        else (
            select pg_catalog.bool_and(
                case p.type when 'schema' then p.identity else p.schema end is not distinct from 'memory_plugin'
            )
            from pg_catalog.pg_depend as d
            cross join lateral pg_catalog.pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) as p
            where d.classid = g.classid and d.objid = g.objid and d.deptype = 'a'
        ) is not true
    end
order by 1
"""


@dataclass(frozen=True)
class Holding:
    """What a database holds of ours, and what leans on it."""

    vector: str | None
    """The version of pgvector that lives in the schema memory_plugin; None when it lives elsewhere."""
    functions: int
    relations: tuple[str, ...]
    bytes: int
    memories: int | None
    """None when there is no such table, or this role may not see every row."""
    vector_users: tuple[str, ...]
    """Objects of others that need pgvector only; moving it keeps them."""
    dependents: tuple[str, ...]
    """Objects of others that need the store itself."""
    strangers: tuple[str, ...]
    """Objects in the schema that are not ours, and would go with it."""


def look(connection: Connection) -> Holding | None:
    """Return what there is, or None where there is no schema memory_plugin.

    Raises ForeignSchemaError where the schema is no store.
    """
    row = connection.execute(_HELD).fetchone()
    if row is None:
        return None
    facts = discover.facts(connection)
    planning.require_store(facts)
    vector, functions, relations, size = row
    dependents = _outside(connection, with_vector=False)
    return Holding(
        vector=None if vector is None else str(vector),
        functions=int(str(functions)),
        relations=tuple(relations),  # type: ignore[arg-type]
        bytes=int(str(size)),
        memories=_memories(connection),
        vector_users=tuple(one for one in _outside(connection, with_vector=True) if one not in dependents),
        dependents=dependents,
        strangers=_strangers(connection, facts),
    )


def refuse(holding: Holding) -> None:
    """Raise where dropping the schema would take something of others along."""
    if holding.strangers:
        raise ForeignSchemaError(
            f"it also holds what is not ours: {', '.join(holding.strangers)}",
            hint="move each to another schema (alter ... set schema) or drop it, then run this again",
        )
    if holding.dependents:
        raise DependentsError(", ".join(holding.dependents))


def lock(connection: Connection, holding: Holding) -> None:
    """Keep everybody from the tables until the transaction ends, so that nothing is written between export and drop."""
    tables = [name for name in ("memory_namespaces", "memory_records") if name in holding.relations]
    if tables:
        names = ", ".join(f"memory_plugin.{name}" for name in tables)
        connection.execute(f"lock table {names} in access exclusive mode")


def remove(connection: Connection, holding: Holding) -> None:
    """Drop the schema within the caller's transaction; pgvector is moved to public first when others need it."""
    refuse(holding)
    if holding.vector is not None and holding.vector_users:
        connection.execute("alter extension vector set schema public")
    # The same file that removes a store by hand; it looks for dependents itself, and refuses when one has come since.
    text = (resources.files("memory_plugin.sql") / "migrations" / _DOWN).read_text()
    try:
        connection.execute(text)
    except psycopg.errors.DependentObjectsStillExist as error:
        raise DependentsError(error.diag.message_primary or str(error)) from None


def _outside(connection: Connection, *, with_vector: bool) -> tuple[str, ...]:
    """Return what would go and is not ours."""
    return tuple(str(row[0]) for row in connection.execute(_OUTSIDE, {"with_vector": with_vector}).fetchall())


def _strangers(connection: Connection, facts: Facts) -> tuple[str, ...]:
    """Return what stands in the schema and neither this program, nor an earlier one, nor an operator's migration made.

    What a migration of an operator's own made is not told from what others made, and goes unless it has rows: no export
    has them.
    """
    source = sources.load()
    values = sources.placeholders("memory_plugin", planning.DEFAULT_DIMENSIONS, planning.DEFAULT_TEXT_SEARCH_CONFIG)
    wanted = inventory.read(source, values)
    functions = (*wanted.functions, *inventory.plpython_functions(values))
    ours = {
        "relation": wanted.tables | _SPARE,
        "function": {function.name for function in functions} | inventory.retired(source),
        "type": wanted.types,
    }
    extras = any(row.name.startswith(sources.EXTRA) for row in facts.ledger or ())
    found: list[str] = []
    for words, kind, name, has_rows, of_owner in connection.execute(_STANDING).fetchall():
        # A helper of an earlier version.
        left_over = of_owner and str(name).startswith("_")
        if str(name) not in ours.get(str(kind), ()) and not left_over and (has_rows or not extras):
            found.append(str(words))
    return tuple(found)


def _memories(connection: Connection) -> int | None:
    """Return how many memories there are."""
    query = (
        "select pg_catalog.bool_and(pg_catalog.pg_has_role(c.relowner, 'usage')) from pg_catalog.pg_class as c"
        " where c.oid = pg_catalog.to_regclass('memory_plugin.memory_records')"
    )
    if not store.one(connection, query)[0]:
        return None
    return store.number(connection, "select pg_catalog.count(*) from memory_plugin.memory_records")
