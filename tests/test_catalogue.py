"""House rules of the schema, kept by the catalogue and not by a reviewer."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

OURS = """
    p.pronamespace = 'memory_plugin'::regnamespace
    and not exists (
        select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
    )
"""


def functions_where(conn: psycopg.Connection[Any], condition: str) -> list[str]:
    """Return the signatures of our functions that meet a condition."""
    rows = conn.execute(f"select p.oid::regprocedure::text from pg_proc p where {OURS} and {condition} order by 1")  # type: ignore[arg-type]
    return [signature for (signature,) in rows.fetchall()]


def test_there_are_functions_to_judge(conn: psycopg.Connection[Any]) -> None:
    assert len(functions_where(conn, "true")) > 25


def test_every_function_pins_a_search_path_of_schemas_that_only_the_owner_writes(conn: psycopg.Connection[Any]) -> None:
    pinned = "coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, memory_plugin, pg_temp']"
    assert functions_where(conn, f"not ({pinned}) and p.prokind <> 'p'") == []
    # Postgres lets a procedure commit only without a pinned path; these write every name out.
    assert set(functions_where(conn, "p.prokind = 'p'")) <= {
        "memory_plugin._reembed_batch(integer,boolean,jsonb)",
        "memory_plugin.embed_pending(integer,boolean,jsonb)",
    }


def test_every_function_has_a_comment(conn: psycopg.Connection[Any]) -> None:
    assert functions_where(conn, "coalesce(obj_description(p.oid, 'pg_proc'), '') = ''") == []


def test_every_table_has_a_comment_and_every_column_that_people_look_into(conn: psycopg.Connection[Any]) -> None:
    bare = (
        "select c.relname from pg_class as c where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind = 'r' "
        "and coalesce(obj_description(c.oid, 'pg_class'), '') = ''"
    )
    assert conn.execute(bare).fetchall() == []
    bare = (
        "select a.attname from pg_attribute as a where a.attnum > 0 and not a.attisdropped and a.attrelid = any ("
        "'{memory_plugin.memory_records, memory_plugin.memory_namespaces}'::regclass[]) "
        "and coalesce(col_description(a.attrelid, a.attnum), '') = ''"
    )
    assert conn.execute(bare).fetchall() == []


def test_no_function_may_be_run_by_everybody(conn: psycopg.Connection[Any]) -> None:
    assert functions_where(conn, "has_function_privilege('public', p.oid, 'execute')") == []


def test_private_helpers_are_never_security_definer_but_for_triggers_which_nobody_calls(
    conn: psycopg.Connection[Any],
) -> None:
    called = r"p.proname like '\_%' and p.prosecdef and p.prorettype <> 'trigger'::regtype"
    assert functions_where(conn, called) == []


def test_functions_that_read_are_not_volatile_and_those_that_write_are_not_parallel_safe(
    conn: psycopg.Connection[Any],
) -> None:
    readers = (
        "p.proname in ('search', 'v1_search', 'get_memory', 'health', 'v1_health', 'stats', '_search', 'search_recall')"
    )
    assert functions_where(conn, f"{readers} and p.provolatile = 'v'") == []
    assert functions_where(conn, "p.provolatile = 'v' and p.proparallel <> 'u'") == []


def test_every_function_that_can_wait_for_a_lock_has_a_lock_timeout(conn: psycopg.Connection[Any]) -> None:
    writers = (
        "p.provolatile = 'v' and p.prosecdef and p.prolang = (select oid from pg_language where lanname = 'plpgsql')"
    )
    bounded = "exists (select from unnest(p.proconfig) c where c like 'lock_timeout=%')"
    unbounded = f"{writers} and p.proname not like 'v1%' and not {bounded}"
    assert functions_where(conn, unbounded) == []


def test_public_functions_take_arguments_by_plain_names_and_private_ones_by_prefixed_names(
    conn: psycopg.Connection[Any],
) -> None:
    prefixed = "exists (select from unnest(p.proargnames[1:p.pronargs]) a where a like 'p\\_%')"
    assert functions_where(conn, f"p.proname not like '\\_%' and {prefixed}") == []
    assert functions_where(conn, f"p.proname like '\\_%' and p.pronargs > 0 and not {prefixed}") == []


def test_every_public_type_and_table_stands_in_our_schema_alone(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute("select relname from pg_class where relnamespace = 'public'::regnamespace").fetchall()
    assert rows == []


@pytest.mark.parametrize(
    "attack",
    [
        "create function public.now() returns timestamptz language sql as $$ select 'infinity'::timestamptz $$",
        "create function public._check_namespace(text, text) returns void language sql as $$ select 1/0 $$",
        "create function public.btrim(text, text) returns text language sql as $$ select 'hijacked' $$",
        "create function public.format(text, integer) returns text language sql as $$ select 'hijacked' $$",
        "create table public.memory_records (namespace text, id uuid, content text, expires_at timestamptz)",
        "create temporary table memory_records (namespace text, id uuid, content text, expires_at timestamptz)",
        "create temporary table memory_namespaces (name text, expires_at timestamptz)",
    ],
)
def test_a_shadowing_object_changes_nothing(conn: psycopg.Connection[Any], namespace: str, attack: str) -> None:
    conn.execute("set search_path = public, pg_temp, memory_plugin")
    conn.execute(attack)  # type: ignore[arg-type]
    conn.execute("select memory_plugin.commit_memory(%s, 'the true row')", [namespace])
    found = conn.execute("select content from memory_plugin.search(array[%s], query => 'true row')", [namespace])
    assert found.fetchall() == [("the true row",)]
    with pytest.raises(psycopg.Error, match="namespaces must match"):
        conn.execute("select memory_plugin.search(array['x'])")


def test_the_triggers_of_both_copies_of_the_vectors_are_one_word_by_word(conn: psycopg.Connection[Any]) -> None:
    query = "select prosrc, proconfig from pg_proc where oid = to_regproc(%s)"
    first, spare = (
        conn.execute(query, [f"memory_plugin.{name}"]).fetchall() for name in ("_mirror_vector", "_mirror_spare")
    )
    (body, settings), (spare_body, spare_settings) = first[0], spare[0]
    renamed = body.replace("memory_vectors", "memory_vectors_spare").replace("memory_sketches", "memory_sketches_spare")
    for row in ("new", "old"):
        renamed = renamed.replace(f"{row}.embedding", f"{row}.embedding_spare")
    assert spare_body.split() == renamed.split()
    assert spare_settings == settings
