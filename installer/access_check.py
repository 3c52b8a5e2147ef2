"""Compare owners, row-level security and grants with what sql/access.sql makes of them; never writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from memory_plugin.installer import catalog
from memory_plugin.installer.connect import Connection
from memory_plugin.installer.errors import quoted
from memory_plugin.installer.sources import Sources

ROLES = ("memory_plugin_owner", "memory_plugin_api", "memory_plugin_reader")
_LIST = r"\b%s constant (?:name|text)\[\] := array\[((?:'[^']*'|[^\]'])*)\]"

# Our objects, extension members left out: what they are, who owns them, whom they are granted to.
_OBJECTS = """
with objects as (
    select 'pg_catalog.pg_class'::regclass as classid, c.oid, c.relowner as owner, c.relkind::text as kind,
        c.relname::text as name, c.oid::regclass::text as words,
        coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) as acl
    from pg_catalog.pg_class as c
    where c.relnamespace = %(schema)s::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
    union all
    select 'pg_catalog.pg_proc'::regclass, p.oid, p.proowner, 'function', p.proname::text, p.oid::regprocedure::text,
        coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
    from pg_catalog.pg_proc as p where p.pronamespace = %(schema)s::regnamespace
    union all
    select 'pg_catalog.pg_type'::regclass, t.oid, t.typowner, 'type', t.typname::text, t.oid::regtype::text,
        null::aclitem[]
    from pg_catalog.pg_type as t inner join pg_catalog.pg_class as c on t.typrelid = c.oid and c.relkind = 'c'
    where t.typnamespace = %(schema)s::regnamespace
)
select o.kind, o.name, o.words, pg_catalog.pg_get_userbyid(o.owner)::text as owner,
    (
        select pg_catalog.array_agg(distinct pg_catalog.concat_ws(' ', coalesce(r.rolname, 'public'),
            pg_catalog.lower(a.privilege_type)))
        from (
            select x.grantee, x.privilege_type from pg_catalog.aclexplode(o.acl) as x
            union all
            select x.grantee, x.privilege_type
            from pg_catalog.pg_attribute as c cross join lateral pg_catalog.aclexplode(c.attacl) as x
            where o.classid = 'pg_catalog.pg_class'::regclass and c.attrelid = o.oid and c.attnum > 0
        ) as a
        left join pg_catalog.pg_roles as r on a.grantee = r.oid
        where a.grantee = 0 or r.rolname = any(%(roles)s)
    ) as grants
from objects as o
where not exists (
    select from pg_catalog.pg_depend as d where d.classid = o.classid and d.objid = o.oid and d.deptype = 'e'
)
order by o.words
"""
_SECURED = """
select c.relname::text, c.relrowsecurity and c.relforcerowsecurity,
    (
        select pg_catalog.array_agg(pg_catalog.format(
            '%%s %%s %%s to %%s using %%s check %%s', p.polname, case when p.polpermissive then 'permissive' else
            'restrictive' end, p.polcmd, (select pg_catalog.string_agg(coalesce(r.rolname, 'public'), ',' order by
            r.rolname) from pg_catalog.unnest(p.polroles) as u (role) left join pg_catalog.pg_roles as r
            on u.role = r.oid), pg_catalog.pg_get_expr(p.polqual, p.polrelid),
            coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '-')
        )) from pg_catalog.pg_policy as p where p.polrelid = c.oid
    )
from pg_catalog.pg_class as c
where c.relnamespace = 'memory_plugin'::regnamespace and c.relname = any(%s) and c.relkind in ('r', 'p')
order by c.relname
"""
_SCHEMAS = """
select n.nspname::text, r.rolname::text,
    pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage'), pg_catalog.has_schema_privilege(r.oid, n.oid, 'create')
from pg_catalog.pg_namespace as n cross join pg_catalog.pg_roles as r
where r.rolname = any(%s) and (
    n.nspname = 'memory_plugin'
    or n.oid = (select e.extnamespace from pg_catalog.pg_extension as e where e.extname = 'vector')
)
order by 1, 2
"""
# Logins that are members of our roles and come into this database only because anybody may, where another database of
# the server gives our roles something too.
_STRANGERS = """
with ours as (
    select r.oid from pg_catalog.pg_roles as r where r.rolname = any(%s)
)
select pg_catalog.quote_ident(d.datname), l.rolname::text
from pg_catalog.pg_database as d cross join pg_catalog.pg_roles as l
where d.datname = pg_catalog.current_database() and pg_catalog.has_database_privilege('public', d.oid, 'connect')
    and exists (
        select
        from pg_catalog.pg_shdepend as s inner join ours on s.refobjid = ours.oid
        inner join pg_catalog.pg_database as o on s.dbid = o.oid
        where s.refclassid = 'pg_catalog.pg_authid'::regclass and o.oid <> d.oid and o.datallowconn
            and not o.datistemplate
    )
    and l.rolcanlogin and not l.rolsuper and l.rolname <> current_user
    and exists (select from ours where pg_catalog.pg_has_role(l.oid, ours.oid, 'member'))
    and not pg_catalog.pg_has_role(l.oid, d.datdba, 'usage')
    and not exists (
        select from pg_catalog.pg_namespace as n where n.nspname = 'memory_plugin' and n.nspowner = l.oid
    )
    and not exists (
        select from pg_catalog.aclexplode(d.datacl) as a
        where a.grantee <> 0 and a.privilege_type = 'CONNECT' and a.grantee not in (select ours.oid from ours)
            and pg_catalog.pg_has_role(l.oid, a.grantee, 'usage')
    )
order by l.rolname
"""
_TELL = 5
"""So many of them are named."""
_THERE = "select rolname::text from pg_catalog.pg_roles where rolname = any(%s) order by 1"


@dataclass(frozen=True)
class _Object:
    """One relation, function or type of ours."""

    kind: str
    name: str
    words: str
    owner: str
    grants: frozenset[str]
    """`role privilege`, of public and of our roles."""

    @property
    def label(self) -> str:
        """Return what it is, in words."""
        kinds = {"function": "function", "type": "type", "v": "view", "m": "materialized view", "S": "sequence"}
        return f"{kinds.get(self.kind, 'table')} {self.words}"


def compare(connection: Connection, source: Sources) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what differs, and what is a warning: a store whose installer may not make or join our roles serves too."""
    there = [str(row[0]) for row in connection.execute(_THERE, (list(ROLES),)).fetchall()]
    objects = _objects(connection)
    owner = next((one.owner for one in objects if one.name == "memory_records"), None)
    if owner is None:
        return (), ()
    missing = [role for role in ROLES if role not in there]
    warnings = [f"there is no role {', '.join(missing)}: as a superuser, create role each"] if missing else []
    if owner != ROLES[0] and ROLES[0] in there:
        warnings.append(
            f"the store belongs to {owner} and not to {ROLES[0]}: as a superuser, grant {ROLES[0]} to the role that "
            "installs, then run memory-plugin install; or leave it so where the server has stores of others too (Roles "
            "in docs/operations.md)"
        )
    warnings += strangers(connection)
    differences = [f"{one.label} belongs to {one.owner}, the store to {owner}" for one in objects if one.owner != owner]
    readable = _reader_functions(source)
    owners = _listed(source, "v_owners")
    for one in objects:
        differences += _grants(one, _wanted(one, readable, owners, there, owner))
    differences += _secured(connection, owner, there)
    differences += _vector(connection, source, owner)
    differences += _schemas(connection, [owner, *(role for role in there if role not in (owner, ROLES[0]))], owner)
    return tuple(differences), tuple(warnings)


def strangers(connection: Connection) -> list[str]:
    """Return the warning about logins that reach this store and may be meant for another of the server's.

    Our roles are the server's and not the database's. Where the server has no other store nobody is a stranger, and
    nowhere who owns this database or store, or was granted connect to it.
    """
    found = connection.execute(_STRANGERS, (list(ROLES),)).fetchall()
    if not found:
        return []
    names = ", ".join(str(login) for _, login in found[:_TELL])
    more = f" and {len(found) - _TELL} more" if len(found) > _TELL else ""
    return [
        f"the server has other stores, and anybody may connect to this one's database: {names}{more} may use it, as a "
        f"member of a role that all of them share; revoke connect, temporary on database {found[0][0]} from public; "
        f"grant connect on database {found[0][0]} to the roles that are to use it"
    ]


def vector_grants(refused: Iterable[tuple[str, str, str]], source: Sources, role: str) -> str:
    """Return the statements that give a role what the store uses of what it is refused of pgvector."""
    used = _listed(source, "v_used")
    names: dict[str, list[str]] = {}
    for privilege, name, bare in refused:
        if bare in used:
            names.setdefault(privilege, []).append(name)
    return "; ".join(f"grant {privilege} {', '.join(found)} to {quoted(role)}" for privilege, found in names.items())


def _vector(connection: Connection, source: Sources, owner: str) -> list[str]:
    """Return what of pgvector the store's owner, as which its functions run, may not use."""
    rows = connection.execute(catalog.VECTOR_RIGHTS.format(role="%(role)s::name"), {"role": owner}).fetchall()
    grants = vector_grants(((str(row[0]), str(row[1]), str(row[2])) for row in rows), source, owner)
    if not grants:
        return []
    return [f"pgvector: {owner} may not use functions or types of it; their owner or a superuser may run: {grants}"]


def _objects(connection: Connection) -> list[_Object]:
    """Read what is ours in the schema."""
    rows = connection.execute(_OBJECTS, {"schema": "memory_plugin", "roles": list(ROLES)}).fetchall()
    return [
        _Object(str(kind), str(name), str(words), str(owner), frozenset(grants or ()))  # type: ignore[call-overload]
        for kind, name, words, owner, grants in rows
    ]


def _reader_functions(source: Sources) -> frozenset[str]:
    """Return the functions that sql/access.sql grants to a reader, as it says itself."""
    return _listed(source, "v_reader")


def _listed(source: Sources, name: str) -> frozenset[str]:
    """Return the names in a list of sql/access.sql."""
    match = re.search(_LIST % name, source.access)
    return frozenset(re.findall(r"'([^']+)'", match.group(1))) if match else frozenset()


def _wanted(one: _Object, readable: frozenset[str], owners: frozenset[str], there: list[str], owner: str) -> set[str]:
    """Return the grants that an object should have."""
    wanted: set[str] = set()
    if one.kind == "function":
        wanted |= {"memory_plugin_api execute"} if one.name[0] != "_" and one.name not in owners else set()
        wanted |= {"memory_plugin_reader execute"} if one.name in readable else set()
    elif one.name in ("memory_namespaces", "memory_records"):
        wanted |= {"memory_plugin_reader select"}
    return {grant for grant in wanted if grant.split()[0] in there and grant.split()[0] != owner}


def _grants(one: _Object, wanted: set[str]) -> list[str]:
    """Return the grants that are missing or too many; what the owner has of its own is its own."""
    have = {grant for grant in one.grants if grant.split()[0] not in (one.owner, ROLES[0])}
    lines = [f"{one.label}: {grant.split()[0]} lacks {grant.split()[1]}" for grant in sorted(wanted - have)]
    return lines + [f"{one.label}: {grant.split()[0]} has {grant.split()[1]}" for grant in sorted(have - wanted)]


def _secured(connection: Connection, owner: str, there: list[str]) -> list[str]:
    """Return what is wrong with row-level security: it is forced, by the owner's policy, the reader's and no third."""
    lines: list[str] = []
    columns = {"memory_namespaces": "name", "memory_records": "namespace"}
    tables = [*columns, "memory_vectors", "memory_sketches", "memory_lengths", "embedding_provider"]
    for table, forced, policies in connection.execute(_SECURED, (tables,)).fetchall():
        if not forced:
            lines.append(f"table memory_plugin.{table}: row-level security is not enabled and forced")
        wanted = {f"memory_plugin_owner permissive * to {owner} using true check true"}
        if ROLES[2] in there and table in columns:
            rule = f"({columns[str(table)]} = ANY (memory_plugin._session_namespaces()))"
            wanted.add(f"memory_plugin_reader permissive r to memory_plugin_reader using {rule} check -")
        have = set(policies or ())  # type: ignore[call-overload]
        names = {policy.split()[0] for policy in wanted}
        lines += [
            f"table memory_plugin.{table}: policy {name} is not as it should be"
            for name in sorted(policy.split()[0] for policy in wanted - have)
        ]
        lines += [
            f"table memory_plugin.{table}: policy {name} is not ours"
            for name in sorted({str(policy).split()[0] for policy in have} - names)
        ]
    return lines


def _schemas(connection: Connection, roles: list[str], owner: str) -> list[str]:
    """Return who lacks the use of a schema, and who may create in ours and should not."""
    lines: list[str] = []
    for schema, role, usage, create in connection.execute(_SCHEMAS, (roles,)).fetchall():
        if not usage:
            lines.append(f"schema {schema}: {role} lacks usage")
        if create and schema == "memory_plugin" and role != owner:
            lines.append(f"schema {schema}: {role} has create")
    return lines
