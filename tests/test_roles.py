"""Who may do what: the golden table of roles, and attempts to reach rows past it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import every_call

ROLES = ("memory_plugin_api", "memory_plugin_reader")
API = {
    "commit_memory",
    "delete_namespace",
    "embedding_claim",
    "embedding_failures",
    "embedding_query_failed",
    "embedding_settle",
    "embedding_status",
    "find_duplicates",
    "forget_memory",
    "get_memory",
    "health",
    "maintain",
    "patch_namespace",
    "retry_embeddings",
    "search",
    "search_recall",
    "stats",
    "sweep",
    "upsert_namespace",
    "v1_commit_memories",
    "v1_commit_memory",
    "v1_delete_namespace",
    "v1_forget_memory",
    "v1_health",
    "v1_patch_namespace",
    "v1_put_namespace",
    "v1_search",
}
READER = {"_session_namespaces", "find_duplicates", "get_memory", "health", "search"}


def names(conn: psycopg.Connection[Any], query: str, *parameters: str) -> set[str]:
    """Return the first column as a set."""
    return {name for (name,) in conn.execute(query, parameters).fetchall()}  # type: ignore[arg-type]


@pytest.mark.parametrize(("role", "expected"), [("memory_plugin_api", API), ("memory_plugin_reader", READER)])
def test_the_golden_table_of_functions(conn: psycopg.Connection[Any], role: str, expected: set[str]) -> None:
    extra = (
        {"redact", "embed_pending", "embedding_session"}
        if role == "memory_plugin_api"
        and conn.execute("select to_regprocedure('memory_plugin.redact(text)') is not null").fetchone() == (True,)
        else set()
    )
    query = """
        select p.proname::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace and has_function_privilege(%s, p.oid, 'execute')
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    """
    assert names(conn, query, role) == expected | extra


def test_the_golden_table_of_tables(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute("""
        select r.role, c.relname::text, string_agg(p.privilege, ',' order by p.privilege)
        from unnest(array['memory_plugin_api', 'memory_plugin_reader', 'public']) r (role),
            pg_class c,
            unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p (privilege)
        where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind in ('r', 'p')
            and has_table_privilege(r.role, c.oid, p.privilege)
        group by 1, 2 order by 1, 2
    """).fetchall()
    assert rows == [
        ("memory_plugin_reader", "memory_namespaces", "select"),
        ("memory_plugin_reader", "memory_records", "select"),
    ]


def test_everything_belongs_to_the_owner_role(conn: psycopg.Connection[Any]) -> None:
    query = """
        select c.relname::text from pg_class c
        where c.relnamespace = 'memory_plugin'::regnamespace and c.relkind in ('r', 'p')
            and c.relowner <> 'memory_plugin_owner'::regrole
        union all
        select p.proname::text from pg_proc p
        where p.pronamespace = 'memory_plugin'::regnamespace and p.proowner <> 'memory_plugin_owner'::regrole
            and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
    """
    assert names(conn, query) <= {"schema_migrations"}


def test_row_level_security_is_forced_on_every_table_of_memories(conn: psycopg.Connection[Any]) -> None:
    query = """
        select c.relname::text from pg_class c
        where c.relnamespace = 'memory_plugin'::regnamespace and c.relrowsecurity and c.relforcerowsecurity
    """
    assert {"memory_namespaces", "memory_records", "memory_vectors"} <= names(conn, query)


@pytest.fixture
def session(conn: psycopg.Connection[Any], new_role: Callable[..., str], namespace: str) -> Callable[[str], None]:
    """Return a switch of the connection to a fresh member of a role, with a memory in each of two namespaces."""
    conn.execute("select memory_plugin.commit_memory(%s, 'seen apple')", [namespace])
    conn.execute("select memory_plugin.commit_memory('team:hidden', 'hidden apple')")

    def become(role: str) -> None:
        login = new_role()
        conn.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), sql.Identifier(login)))
        conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(login)))

    return become


READS = (
    "select content from memory_plugin.memory_records",
    "select content from memory_plugin.search(array[{namespace}, 'team:hidden'])",
    "select content from memory_plugin.search(array[{namespace}, 'team:hidden'], query => 'apple')",
    "select content from memory_plugin.search(array[{namespace}, 'team:hidden'], query => 'a')",
    "select m.content from (select unnest(array[{namespace}, 'team:hidden']) n) x, memory_plugin.memory_records r, "
    "memory_plugin.get_memory(x.n, r.id) m",
)


@pytest.mark.parametrize("read", READS)
def test_a_reader_sees_the_namespaces_of_its_setting_and_nothing_when_it_is_unset(
    conn: psycopg.Connection[Any], session: Callable[[str], None], namespace: str, read: str
) -> None:
    session("memory_plugin_reader")
    query = sql.SQL(read).format(namespace=sql.Literal(namespace))  # type: ignore[arg-type]
    assert conn.execute(query).fetchall() == []
    conn.execute("select set_config('memory_plugin.namespaces', %s, false)", [f"{namespace}, team:other"])
    assert conn.execute(query).fetchall() == [("seen apple",)]
    conn.execute("set memory_plugin.namespaces = ''")
    assert conn.execute(query).fetchall() == []


@pytest.mark.parametrize(
    "write",
    [
        "select memory_plugin.commit_memory('team:hidden', 'x')",
        'select memory_plugin.v1_search(\'{"namespaces": ["team:hidden"]}\')',
        "select memory_plugin.forget_memory(gen_random_uuid(), 'team:hidden')",
        "select memory_plugin.delete_namespace('team:hidden')",
        "select memory_plugin.sweep()",
        "select memory_plugin._search(array['team:hidden'], null, null, 5, null, null, null, null, "
        "null, null, null, null, 0, false, null, null)",
        "select memory_plugin._listing(array['team:hidden'], null, null, 5, 0)",
        "insert into memory_plugin.memory_namespaces (name, kind) values ('team:x', 'team')",
        "delete from memory_plugin.memory_records",
        "select * from memory_plugin.schema_migrations",
        "select * from memory_plugin.memory_vectors",
        "create table memory_plugin.mine (x integer)",
        "set role memory_plugin_owner",
    ],
)
def test_a_reader_can_neither_write_nor_reach_past_the_two_reading_functions(
    conn: psycopg.Connection[Any], session: Callable[[str], None], write: str
) -> None:
    session("memory_plugin_reader")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(write)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "attempt",
    [
        "select * from memory_plugin.memory_records",
        "select * from memory_plugin.schema_migrations",
        "insert into memory_plugin.schema_migrations (name, sha256, program_version) values ('x', 'x', 'x')",
        "select * from memory_plugin.memory_vectors",
        "select memory_plugin._trim('x')",
        "create function memory_plugin.mine() returns integer language sql as 'select 1'",
        "set role memory_plugin_owner",
    ],
)
def test_the_api_role_runs_the_api_and_nothing_else(
    conn: psycopg.Connection[Any], session: Callable[[str], None], namespace: str, attempt: str
) -> None:
    session("memory_plugin_api")
    assert len(conn.execute("select * from memory_plugin.search(array[%s])", [namespace]).fetchall()) == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(attempt)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [None, "", "team:other"])
def test_no_function_takes_a_reader_to_a_namespace_outside_its_setting(
    conn: psycopg.Connection[Any], session: Callable[[str], None], setting: str | None
) -> None:
    count = "select count(*), max(content), max(kind) from memory_plugin.memory_records where namespace = 'team:hidden'"
    there, before = every_call.callable_functions(conn), conn.execute(count).fetchall()
    session("memory_plugin_reader")
    if setting is not None:
        conn.execute("select set_config('memory_plugin.namespaces', %s, false)", [setting])
    given = every_call.answers(conn, "team:hidden", there)
    assert {name for name, _ in every_call.CALLS} >= there
    allowed = [(call, answer) for call, answer in given if not answer.startswith("42501")]
    assert {call.split("memory_plugin.")[1].split("(")[0] for call, _ in allowed} == READER - {"_session_namespaces"}
    assert not [pair for pair in allowed if "apple'" in pair[1] or "hidden" in pair[1]]
    conn.execute("reset session authorization")
    assert conn.execute(count).fetchall() == before


@pytest.mark.parametrize("read", READS[1:4])
def test_a_readers_own_function_shows_no_more_when_another_role_calls_it(
    conn: psycopg.Connection[Any],
    session: Callable[[str], None],
    new_role: Callable[..., str],
    namespace: str,
    read: str,
) -> None:
    other = new_role()
    session("memory_plugin_reader")
    query = sql.SQL(read).format(namespace=sql.Literal(namespace))  # type: ignore[arg-type]
    conn.execute(
        sql.SQL("create function pg_temp.theirs() returns setof text language sql security definer as {}").format(
            sql.Literal(query.as_string(conn))
        )
    )
    # As a superuser's session, which may become any role.
    conn.execute("reset session authorization")
    conn.execute(sql.SQL("set role {}").format(sql.Identifier(other)))
    assert conn.execute("select pg_temp.theirs()").fetchall() == []
    conn.execute("select set_config('memory_plugin.namespaces', %s, false)", [namespace])
    assert conn.execute("select pg_temp.theirs()").fetchall() == [("seen apple",)]


def test_a_role_that_the_operator_granted_a_function_sees_the_namespaces_of_its_setting(
    conn: psycopg.Connection[Any], session: Callable[[str], None], new_role: Callable[..., str], namespace: str
) -> None:
    session("memory_plugin_reader")
    conn.execute("reset session authorization")
    own = sql.Identifier(new_role())
    conn.execute(sql.SQL("grant usage on schema memory_plugin to {}").format(own))
    conn.execute(sql.SQL("grant execute on all functions in schema memory_plugin to {}").format(own))
    conn.execute(sql.SQL("set session authorization {}").format(own))
    query = sql.SQL(READS[1]).format(namespace=sql.Literal(namespace))  # type: ignore[arg-type]
    assert conn.execute(query).fetchall() == []
    conn.execute("select set_config('memory_plugin.namespaces', %s, false)", [namespace])
    assert conn.execute(query).fetchall() == [("seen apple",)]


def test_no_function_runs_for_a_role_without_a_grant(
    conn: psycopg.Connection[Any], new_role: Callable[..., str]
) -> None:
    there = every_call.callable_functions(conn)
    conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(new_role())))
    given = every_call.answers(conn, "team:hidden", there)
    assert len(given) >= len(there)
    assert [pair for pair in given if not pair[1].startswith("42501")] == []


@pytest.mark.parametrize(
    "attempt",
    [
        "select api_key from memory_plugin.embedding_provider",
        "select * from memory_plugin.embedding_provider",
        "select memory_plugin.embedding_provider()",
        "select memory_plugin.configure_embedding('http://127.0.0.1:9', 'm', 1536)",
        "update memory_plugin.schema_migrations set sha256 = 'x'",
        "delete from memory_plugin.schema_migrations",
        "create function public.mine() returns integer language plpython3u as 'return 1'",
        "do language plpython3u 'pass'",
    ],
)
def test_the_api_role_cannot_read_keys_write_the_ledger_or_run_python_of_its_own(
    conn: psycopg.Connection[Any], session: Callable[[str], None], attempt: str
) -> None:
    conn.execute("grant create on schema public to memory_plugin_api")
    session("memory_plugin_api")
    # Where the language is not there at all, that is what the server says.
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject)):
        conn.execute(attempt)  # type: ignore[arg-type]


def test_a_role_without_a_grant_reaches_nothing(conn: psycopg.Connection[Any], new_role: Callable[..., str]) -> None:
    conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(new_role())))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select * from memory_plugin.search(array['team:hidden'])")


def test_a_database_owner_who_is_no_superuser_installs_where_pgvector_is_there(
    server: Any, empty_database: str, new_role: Callable[..., str]
) -> None:
    from memory_plugin.installer import api, settings

    owner = new_role(password="x1", options="login")
    name = psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"]
    with psycopg.connect(empty_database, autocommit=True) as admin:
        admin.execute("create extension vector")
        admin.execute(sql.SQL("alter database {} owner to {}").format(sql.Identifier(str(name)), sql.Identifier(owner)))
    url = server.url(name, user=owner, password="x1")
    for _ in range(2):
        api.install(settings.from_env({"MEMORY_PLUGIN_DATABASE_URL": url}))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select memory_plugin.commit_memory('team:a', 'an apple')")
        found = connection.execute(
            "select content from memory_plugin.search(array['team:a'], query => 'apple')"
        ).fetchall()
    assert found == [("an apple",)]
