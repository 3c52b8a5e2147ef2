"""Whatever stands in `public` or among the session's temporary objects, every function does what it did without."""

from __future__ import annotations

import re
from typing import Any

import psycopg

import every_call

HOSTILE = "language plpgsql as 'begin raise exception ''hijacked''; end'"
# Those of types that no role may make operators for are left to the functions behind them.
OPERATOR_TYPES = (
    "text",
    "uuid",
    "integer",
    "bigint",
    "boolean",
    "double precision",
    "timestamptz",
    "json",
    "jsonb",
    "name",
)
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "||", "+", "-", "*", "/", "~", "!~", "~~", "~~*", "->", "->>", "@>", "@@")


def attempt(conn: psycopg.Connection[Any], statement: str) -> bool:
    """Run a statement and say whether the server took it."""
    try:
        conn.execute(statement.encode())
    except psycopg.Error:
        return False
    return True


def shadow_functions(conn: psycopg.Connection[Any]) -> int:
    """Put a function into `public` for each of ours, and for each of the server's own that ours call by name."""
    sources = conn.execute(
        "select string_agg(prosrc, ' ') from pg_proc where pronamespace = 'memory_plugin'::regnamespace"
    ).fetchone()
    assert sources is not None
    called = sorted(set(re.findall(r"([a-z_0-9]+)\s*\(", sources[0])))
    candidates = conn.execute(
        """
        select p.proname::text, pg_get_function_identity_arguments(p.oid), pg_get_function_result(p.oid)
        from pg_proc p
        where p.prokind in ('f', 'a') and p.prorettype <> 'trigger'::regtype
            and (p.pronamespace = 'memory_plugin'::regnamespace
                or p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any (%s))
        """,
        [called],
    ).fetchall()
    made = 0
    for name, arguments, result in candidates:
        plain = re.sub(r"\b(IN|OUT|VARIADIC) ", "", arguments) if "OUT " not in arguments else None
        if plain is not None:
            made += attempt(conn, f'create function public."{name}"({plain}) returns {result} {HOSTILE}')
    return made


def shadow_operators(conn: psycopg.Connection[Any]) -> int:
    """Put operators of the commonest names into `public`, between the commonest types."""
    made = 0
    for kind in OPERATOR_TYPES:
        conn.execute(f"create function public.hostile({kind}, {kind}) returns boolean {HOSTILE}".encode())
        for operator in OPERATORS:
            made += attempt(
                conn,
                f"create operator public.{operator} (leftarg = {kind}, rightarg = {kind}, function = public.hostile)",
            )
    return made


def shadow_relations_and_types(conn: psycopg.Connection[Any]) -> int:
    """Put tables and types of the names that ours use into `public` and among the temporary objects."""
    tables = conn.execute("""
        select relname::text from pg_class where relkind in ('r', 'v')
            and (relnamespace = 'memory_plugin'::regnamespace
                or relname in ('pg_class', 'pg_proc', 'pg_namespace', 'pg_extension', 'pg_settings', 'pg_roles'))
    """).fetchall()
    types = conn.execute("""
        select typname::text from pg_type where typtype in ('c', 'b') and typnamespace = 'memory_plugin'::regnamespace
            and typname not like '\\_\\_%' and typname not in (select relname from pg_class where relkind = 'r')
    """).fetchall()
    made = 0
    for (name,) in tables:
        made += attempt(conn, f'create temporary table "{name}" (hijacked int)')
        made += attempt(conn, f'create table public."{name}" (hijacked int)')
    for name in [name for (name,) in types] + ["uuid", "timestamptz", "jsonb", "json", "tsquery", "tsvector"]:
        made += attempt(conn, f'create domain pg_temp."{name}" as integer check (value > 10)')
        made += attempt(conn, f'create domain public."{name}" as integer check (value > 10)')
    return made


def test_the_calls_name_every_function(conn: psycopg.Connection[Any]) -> None:
    named = {name for name, _ in every_call.CALLS}
    assert every_call.callable_functions(conn) <= named, "say in every_call.py how the new function is called"


def test_shadowing_objects_change_no_answer_of_any_function(conn: psycopg.Connection[Any], namespace: str) -> None:
    there = every_call.callable_functions(conn)
    before = every_call.answers(conn, namespace, there)
    assert [answer for _, answer in before if "a red apple" in answer]
    assert not [pair for pair in before if pair[1].startswith("42883")], "there is no such function"
    # A right call's answer, not an error's, is what most of the comparison must be of.
    assert sum(not re.match("[0-9A-Z]{5}: ", answer) for _, answer in before) > 20, before

    assert shadow_functions(conn) > 100
    assert shadow_operators(conn) > 100
    assert shadow_relations_and_types(conn) > 20
    conn.execute("set search_path = pg_temp, public, memory_plugin, pg_catalog")
    hijacked = False
    try:
        conn.execute("select 'a'::text || 'b'::text")
    except psycopg.Error as error:
        hijacked = "hijacked" in str(error)
    assert hijacked, "the shadows must catch whoever does not look where he calls"

    conn.execute("set search_path = pg_temp, public, memory_plugin, pg_catalog")
    assert every_call.answers(conn, namespace, there) == before
