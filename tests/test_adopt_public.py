"""Rows of an earlier boot in `public` move into the store, all of them or none."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest

from fixtures.installing import connected, make_earlier_tables, rows
from fixtures.server import Server
from memory_plugin.installer import cli
from memory_plugin.installer.transfer import adopting

ID = "3b0d1c4e-1111-4222-8333-444455556666"
STORE = "select id::text, namespace, content, pin, created_at::text from memory_plugin.memory_records order by 1"
PUBLIC = "select id::text, namespace, content, pin, created_at::text from public.memory_records order by 1"
EMBEDDING = str([1.0] * 1536)


@pytest.fixture
def both_stores(new_public_database: Callable[[], str]) -> str:
    """Return the URL of a database with a store beside the tables of an earlier boot."""
    url = new_public_database()
    make_earlier_tables(url, tables="public", vector="public")
    return url


@pytest.fixture
def adopt(both_stores: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Fill the tables of the earlier boot; return a caller of the command."""
    monkeypatch.setenv("MEMORY_PLUGIN_DATABASE_URL", both_stores)
    with connected(both_stores) as connection:
        connection.execute("delete from public.memory_namespaces")
        connection.execute(
            "insert into public.memory_namespaces (name, kind, metadata, created_at)"
            " values ('team:a', 'team', '{\"k\": 1}', '2024-01-02'), ('org:o', 'org', null, '2024-01-03')"
        )
        connection.execute(
            "insert into public.memory_records (id, namespace, content, kind, source, pin, embedding, created_at)"
            " values (%s, 'team:a', 'tea', 'fact', 'user', true, %s, '2024-02-03'),"
            " (gen_random_uuid(), 'org:o', 'cake', 'summary', 'agent', false, null, '2024-02-04')",
            [ID, EMBEDDING],
        )
    return lambda *arguments: cli.run(["adopt-public", *arguments])


def test_the_rows_move_with_ids_times_and_embeddings_and_the_tables_stay_empty(
    adopt: Callable[..., int], both_stores: str
) -> None:
    before = rows(both_stores, PUBLIC)
    assert len(before) == 2
    assert adopt() == 0
    assert rows(both_stores, STORE) == before
    assert rows(both_stores, PUBLIC) == []
    assert rows(both_stores, "select count(*) from public.memory_namespaces") == [(0,)]
    held = "select embedding is not null from memory_plugin.memory_records where content = 'tea'"
    assert rows(both_stores, held) == [(True,)]
    spaces = "select name, kind, metadata, created_at::date::text from memory_plugin.memory_namespaces order by 1"
    assert rows(both_stores, spaces) == [
        ("org:o", "org", None, "2024-01-03"),
        ("team:a", "team", {"k": 1}, "2024-01-02"),
    ]
    assert adopt() == 0
    assert rows(both_stores, STORE) == before


def test_a_dry_run_counts_and_moves_nothing(
    adopt: Callable[..., int], both_stores: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adopt("--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["namespaces"], told["memories"], told["conflicts"]) == (2, 2, [])
    assert rows(both_stores, STORE) == []
    assert len(rows(both_stores, PUBLIC)) == 2


KEYLESS = (
    "alter table public.memory_records drop constraint memory_records_pkey,"
    " drop constraint if exists memory_records_namespace_fkey, alter id drop not null,"
    " alter created_at drop not null, alter pin drop not null;"
    " alter table public.memory_namespaces drop constraint memory_namespaces_pkey, alter created_at drop not null;"
)


@pytest.mark.parametrize(
    ("statement", "what", "why"),
    [
        ("insert into public.memory_records (id, namespace, content, kind, source)"
         f" values ('{ID}', 'team:a', 'coffee', 'fact', 'user')", f"memory {ID} in team:a", "more than once in public"),
        ("insert into public.memory_namespaces (name, kind) values ('team:a', 'custom')", "namespace team:a",
         "more than once in public"),
        ("update public.memory_records set id = null where content = 'tea'", "memory (null) in team:a", "id is null"),
        ("update public.memory_records set created_at = null where content = 'tea'", f"memory {ID} in team:a",
         "created_at is null"),
        ("update public.memory_namespaces set created_at = null where name = 'team:a'", "namespace team:a",
         "created_at is null"),
    ],
)  # fmt: skip
def test_what_a_table_without_its_keys_holds_besides_is_a_conflict_and_not_lost(
    adopt: Callable[..., int],
    both_stores: str,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    what: str,
    why: str,
) -> None:
    rows(both_stores, KEYLESS)
    rows(both_stores, statement)
    public = rows(both_stores, PUBLIC)
    assert adopt() == 29
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"conflict: {what}: ")]
    assert told
    assert all(line.endswith(why) for line in told)
    assert rows(both_stores, PUBLIC) == public
    assert rows(both_stores, STORE) == []


def test_a_pin_that_is_null_is_none(adopt: Callable[..., int], both_stores: str) -> None:
    rows(both_stores, KEYLESS)
    rows(both_stores, "update public.memory_records set pin = null")
    assert adopt() == 0
    assert rows(both_stores, "select pin from memory_plugin.memory_records") == [(False,), (False,)]


@pytest.mark.parametrize(
    "statement",
    [
        f"select memory_plugin.commit_memory('team:a', 'coffee', id => '{ID}')",
        "select memory_plugin.upsert_namespace('team:a', 'custom')",
    ],
)
def test_a_row_that_comes_into_the_store_meanwhile_is_not_taken_for_publics(
    adopt: Callable[..., int], both_stores: str, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    rows(both_stores, "select memory_plugin.upsert_namespace('org:o', 'org')")
    rows(both_stores, "update public.memory_namespaces set kind = 'org', metadata = null where name = 'org:o'")
    if "commit_memory" in statement:
        rows(both_stores, "select memory_plugin.upsert_namespace('team:a', 'team', metadata => '{\"k\": 1}')")
    public = rows(both_stores, PUBLIC)
    number = adopting.store.number

    def overtaken(connection: psycopg.Connection[tuple[object, ...]], query: str) -> int:
        """Write to the store right after it was looked at."""
        found = number(connection, query)
        if query == adopting._NAMESPACES_THERE:
            rows(both_stores, statement)
        return found

    monkeypatch.setattr(adopting.store, "number", overtaken)
    assert adopt() == 29
    assert rows(both_stores, PUBLIC) == public


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        (f"select memory_plugin.commit_memory('team:a', 'coffee', id => '{ID}')", ID),
        ("select memory_plugin.upsert_namespace('team:a', 'custom')", "namespace team:a"),
        ("update public.memory_records set content = ' ' where content = 'cake'", "content must not be blank"),
        (
            "alter table public.memory_records drop column content_tsv;"
            " update public.memory_records set content = (select string_agg('w' || i, ' ')"
            " from generate_series(10000000, 10130000) as i) where content = 'cake'",
            "fewer different words",
        ),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_conflict_stops_it_and_is_listed(
    adopt: Callable[..., int],
    both_stores: str,
    capsys: pytest.CaptureFixture[str],
    statement: str,
    word: str,
    dry: tuple[str, ...],
) -> None:
    rows(both_stores, statement)
    store, public = rows(both_stores, STORE), rows(both_stores, PUBLIC)
    assert adopt(*dry) == 29
    printed = capsys.readouterr()
    assert word in printed.out
    assert word in printed.err
    assert rows(both_stores, STORE) == store
    assert rows(both_stores, PUBLIC) == public


@pytest.mark.parametrize(
    ("change", "why"),
    [
        *(
            (f"{table} set created_at = '{time}'", "created_at must lie between the years 1 and 9999")
            for table in ("memory_namespaces", "memory_records")
            for time in ("infinity", "-infinity", "0044-03-15 BC", "20000-01-01")
        ),
        ("memory_namespaces set expires_at = '20000-01-01'", "expires_at must lie between the years 1 and 9999"),
        ("memory_namespaces set expires_at = '0044-03-15 BC'", "expires_at must lie between the years 1 and 9999"),
        ("memory_namespaces set metadata = '[1]'", "metadata must be a JSON object"),
        ("memory_namespaces set metadata = '\"str\"'", "metadata must be a JSON object"),
        ("memory_records set expires_at = '20000-01-01'", "expires_at must lie between the years 1 and 9999"),
    ],
)
def test_a_value_that_no_answer_can_write_is_a_conflict(
    adopt: Callable[..., int], both_stores: str, capsys: pytest.CaptureFixture[str], change: str, why: str
) -> None:
    rows(both_stores, f"update public.{change}")
    public = rows(both_stores, PUBLIC)
    assert adopt() == 29
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("conflict: ")]
    assert len(told) == 2
    assert all(line.endswith(why) for line in told)
    assert rows(both_stores, PUBLIC) == public
    assert rows(both_stores, STORE) == []


def test_an_expiry_at_infinity_is_none(adopt: Callable[..., int], both_stores: str) -> None:
    for table in ("memory_namespaces", "memory_records"):
        rows(both_stores, f"update public.{table} set expires_at = 'infinity'")
    assert adopt() == 0
    for table in ("memory_namespaces", "memory_records"):
        assert rows(both_stores, f"select distinct expires_at from memory_plugin.{table}") == [(None,)]


def test_a_row_that_the_store_has_just_so_is_no_conflict(adopt: Callable[..., int], both_stores: str) -> None:
    rows(
        both_stores,
        "insert into memory_plugin.memory_namespaces select * from public.memory_namespaces where name = 'org:o'",
    )
    rows(
        both_stores,
        "insert into memory_plugin.memory_records (namespace, id, content, kind, source, created_at)"
        " select namespace, id, content, kind, source, created_at from public.memory_records where namespace = 'org:o'",
    )
    before = rows(both_stores, PUBLIC)
    assert adopt() == 0
    assert rows(both_stores, STORE) == before
    assert rows(both_stores, PUBLIC) == []


def test_what_has_expired_in_the_store_makes_room(adopt: Callable[..., int], both_stores: str) -> None:
    rows(both_stores, "select memory_plugin.commit_memory('team:a', 'old tea', expires_at => now() + '1 day')")
    rows(both_stores, "update memory_plugin.memory_namespaces set expires_at = '2020-01-01' where name = 'team:a'")
    before = rows(both_stores, PUBLIC)
    assert adopt() == 0
    assert rows(both_stores, STORE) == before


def test_drop_takes_the_empty_tables_and_a_reference_to_them_keeps_everything(
    adopt: Callable[..., int], both_stores: str
) -> None:
    rows(both_stores, "create view public.seen as select content from public.memory_records")
    assert adopt("--drop") != 0
    assert len(rows(both_stores, PUBLIC)) == 2
    assert rows(both_stores, STORE) == []
    rows(both_stores, "drop view public.seen")
    assert adopt("--drop") == 0
    assert rows(both_stores, "select to_regclass('public.memory_records')") == [(None,)]
    assert rows(both_stores, "select to_regclass('public.memory_namespaces')") == [(None,)]


@pytest.mark.servers("any")
@pytest.mark.parametrize("dry", [("--drop",), ("--dry-run",)])
def test_rows_that_a_policy_hides_are_not_lost(
    server: Server,
    adopt: Callable[..., int],
    both_stores: str,
    new_role: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
    dry: tuple[str, ...],
) -> None:
    role, name = new_role(password="x"), both_stores.partition("?")[0].rpartition("/")[2]
    rows(both_stores, f'grant memory_plugin_owner, pg_read_all_data to "{role}"')
    for table in ("memory_namespaces", "memory_records"):
        rows(both_stores, f'alter table public.{table} owner to "{role}"')
    rows(both_stores, f'grant create on schema public to "{role}"')
    rows(
        both_stores,
        "create policy seen on public.memory_records using (namespace = 'org:o');"
        " alter table public.memory_records enable row level security, force row level security",
    )
    url = server.url(name, user=role, password="x", tcp=not server.managed)
    assert adopt(*dry, "--database-url", url) == 22
    assert "row-level security may hide rows of public.memory_records" in capsys.readouterr().err
    assert len(rows(both_stores, PUBLIC)) == 2
    rows(both_stores, "alter table public.memory_records disable row level security")
    assert adopt(*dry, "--database-url", url) == 0
    assert len(rows(both_stores, STORE)) == (2 if dry == ("--drop",) else 0)


@pytest.mark.servers("any")
def test_columns_that_the_store_does_not_have_are_conflicts_where_they_hold_something(
    adopt: Callable[..., int], both_stores: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows(
        both_stores,
        'alter table public.memory_records add tags text[], add "Owner" text, add empty int,'
        " add long int generated always as (length(content)) stored;"
        " alter table public.memory_namespaces add note text",
    )
    rows(both_stores, "update public.memory_records set tags = '{a}' where content = 'tea'")
    rows(both_stores, "update public.memory_records set \"Owner\" = 'ada'")
    rows(both_stores, "update public.memory_namespaces set note = 'x' where name = 'team:a'")
    for arguments in (("--dry-run",), (), ("--drop",)):
        assert adopt(*arguments) == 29
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("conflict: ")]
        assert [line.partition(", and the store")[0] for line in told] == [
            "conflict: column note of public.memory_namespaces: it has a value in 1 rows",
            "conflict: column tags of public.memory_records: it has a value in 1 rows",
            "conflict: column Owner of public.memory_records: it has a value in 2 rows",
        ]
        assert len(rows(both_stores, PUBLIC)) == 2
    rows(both_stores, 'alter table public.memory_records drop tags, drop "Owner"')
    rows(both_stores, "alter table public.memory_namespaces drop note")
    assert adopt("--drop") == 0
    assert len(rows(both_stores, STORE)) == 2


@pytest.mark.servers("any")
def test_a_column_of_another_type_is_named_with_the_statement_that_mends_it(
    adopt: Callable[..., int], both_stores: str, capsys: pytest.CaptureFixture[str]
) -> None:
    public = rows(both_stores, PUBLIC)
    for table, column, held, wanted in (
        ("memory_records", "id", "text", "uuid"),
        ("memory_records", "expires_at", "text", "timestamptz"),
        ("memory_records", "pin", "text", "bool"),
        ("memory_namespaces", "metadata", "json", "jsonb"),
    ):
        default = f"alter {column} drop default," if column in ("id", "pin") else ""
        rows(both_stores, f"alter table public.{table} {default} alter {column} type {held} using {column}::{held}")
        assert adopt("--dry-run") == 21
        told = capsys.readouterr().err
        assert f"public.{table}.{column} is of type {held}, not {wanted} -- " in told
        rows(both_stores, told.rpartition("run: ")[2])
    assert adopt("--dry-run") == 0
    assert rows(both_stores, PUBLIC) == public


def test_nothing_to_adopt_is_no_failure(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["adopt-public", "--database-url", database]) == 0
    assert "nothing to adopt" in capsys.readouterr().out


def test_a_writer_of_the_earlier_boot_is_waited_for_not_overtaken(
    adopt: Callable[..., int], both_stores: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_PLUGIN_LOCK_TIMEOUT", "0.2")
    with psycopg.connect(both_stores) as writer:
        writer.execute("update public.memory_records set pin = true")
        assert adopt() == 18
        writer.rollback()
    assert len(rows(both_stores, PUBLIC)) == 2
    assert adopt() == 0
