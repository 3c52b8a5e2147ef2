"""What would run with a superuser's rights when it writes to the store, and was written by somebody who is none."""

from __future__ import annotations

from memory_plugin.installer import inventory
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.discover import Facts
from memory_plugin.installer.errors import ForeignSchemaError
from memory_plugin.installer.plan import Plan
from memory_plugin.installer.sources import Sources

# Triggers, rules, defaults, generated columns, checks and the expressions of indexes run with the rights of whoever
# writes, and a view's functions with those of whoever reads. Our own triggers run with their owner's. What only the
# pattern's table runs is left out: no installation writes there.
_WRITTEN_BY_OTHERS = """
with recursive relations as (
    select c.oid
    from pg_catalog.pg_class as c
    where
        c.relnamespace = pg_catalog.to_regnamespace('memory_plugin')
        and c.relname = any(%(tables)s) and c.relname <> 'redaction_patterns'
    union
    select i.inhrelid from relations as r inner join pg_catalog.pg_inherits as i on i.inhparent = r.oid
),
parts as (
    select 'pg_catalog.pg_class'::regclass as classid, r.oid as objid, r.oid as relation from relations as r
    union all
    select 'pg_catalog.pg_class'::regclass, i.indexrelid, i.indrelid from pg_catalog.pg_index as i
    union all
    select 'pg_catalog.pg_trigger'::regclass, t.oid, t.tgrelid from pg_catalog.pg_trigger as t where not t.tgisinternal
    union all
    select 'pg_catalog.pg_constraint'::regclass, c.oid, c.conrelid from pg_catalog.pg_constraint as c
    union all
    select 'pg_catalog.pg_attrdef'::regclass, d.oid, d.adrelid from pg_catalog.pg_attrdef as d
    union all
    select 'pg_catalog.pg_rewrite'::regclass, w.oid, w.ev_class from pg_catalog.pg_rewrite as w
),
found as (
    select p.classid, p.objid, f.proowner as owner,
        p.classid = 'pg_catalog.pg_trigger'::regclass and f.prosecdef and f.proname = any(%(functions)s)
        and f.pronamespace = pg_catalog.to_regnamespace('memory_plugin') as ours
    from parts as p
    inner join relations as r on p.relation = r.oid
    inner join pg_catalog.pg_depend as d on p.classid = d.classid and p.objid = d.objid
    left join pg_catalog.pg_operator as o on d.refclassid = 'pg_catalog.pg_operator'::regclass and d.refobjid = o.oid
    inner join pg_catalog.pg_proc as f
        on f.oid = case when d.refclassid = 'pg_catalog.pg_proc'::regclass then d.refobjid else o.oprcode end
    union all
    select w.classid, w.objid, c.relowner, false
    from parts as w
    inner join relations as r on w.relation = r.oid
    inner join pg_catalog.pg_class as c on c.oid = w.relation
    where w.classid = 'pg_catalog.pg_rewrite'::regclass
    union all
    -- The checks of a domain are functions of its owner.
    select 'pg_catalog.pg_class'::regclass, a.attrelid, t.typowner, false
    from relations as r
    inner join pg_catalog.pg_attribute as a on a.attrelid = r.oid and not a.attisdropped
    inner join pg_catalog.pg_type as t on a.atttypid = t.oid and t.typtype = 'd'
)
select distinct o.type || ' ' || o.identity as words
from found as f
inner join pg_catalog.pg_roles as owner on f.owner = owner.oid and not owner.rolsuper
cross join lateral pg_catalog.pg_identify_object(f.classid, f.objid, 0) as o
where not f.ours and (%(writes)s or f.classid = 'pg_catalog.pg_rewrite'::regclass)
order by 1
"""


def refuse(connection: Connection, facts: Facts, source: Sources, plan: Plan) -> None:
    """Raise where a superuser would run, by writing to the store's tables, what somebody wrote who is none."""
    if not (facts.superuser and facts.tables):
        return
    wanted = inventory.read(source, plan.placeholders)
    values = {
        "tables": sorted(wanted.tables),
        "functions": [*(function.name for function in wanted.functions), *inventory.retired(source)],
        # With nothing left to migrate, only a few settings are read.
        "writes": bool(plan.run or plan.adopt),
    }
    found = [str(words) for (words,) in connection.execute(_WRITTEN_BY_OTHERS, values).fetchall()]
    if found:
        raise ForeignSchemaError(
            f"{facts.role} is a superuser and would run what another role wrote: {', '.join(found)}",
            hint="install as that role, drop these first, or give their functions to a superuser who has read them",
        )
