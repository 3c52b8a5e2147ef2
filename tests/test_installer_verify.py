"""`verify` finds each kind of difference and names it; looking never writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import connected, install, make_earlier_shape, make_vector, members, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, cli, statements
from memory_plugin.installer.errors import InstallError

HEALTH = "create or replace function memory_plugin.v1_health() returns json language sql stable security definer"
LISTING = "memory_plugin.memory_records_listing"


def test_a_fresh_installation_has_no_differences(database: str) -> None:
    verdict = api.verify_store(settings_for(database))
    assert verdict.differences == ()
    assert verdict.functions > 20


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("drop function memory_plugin.v1_health()", "function v1_health is missing"),
        (
            f"{HEALTH} set search_path = pg_catalog, memory_plugin, pg_temp as 'select null::json'",
            "v1_health has another body",
        ),
        ("alter function memory_plugin.v1_health() reset search_path", "function v1_health has another search_path"),
        ("alter function memory_plugin.v1_health() set search_path = public", "v1_health has another search_path"),
        (
            "create function memory_plugin.v1_health(int) returns int language sql as 'select 1'",
            "function v1_health is there 2 times, not 1",
        ),
        (
            "create function memory_plugin.odd(int) returns int language sql as 'select 1'",
            "function memory_plugin.odd(integer) is not ours",
        ),
        ("drop index memory_plugin.memory_records_listing", "index memory_records_listing is missing"),
        (
            f"update pg_index set indisvalid = false where indexrelid = '{LISTING}'::regclass",
            "index memory_records_listing is unfinished",
        ),
        ("alter table memory_plugin.memory_records drop column propagation", "column memory_records.propagation"),
        ("alter table memory_plugin.memory_namespaces alter kind type varchar", "memory_namespaces.kind as text"),
        (
            "delete from memory_plugin.schema_migrations where name like '004%'",
            "migration 004_result_types is not applied",
        ),
        (
            "drop trigger memory_records_mirror_vector on memory_plugin.memory_records",
            "trigger memory_records_mirror_vector is missing",
        ),
        (
            "alter table memory_plugin.memory_records disable trigger memory_records_empty_vectors",
            "trigger memory_records_empty_vectors is missing or disabled",
        ),
        ("drop table memory_plugin.schema_migrations", "no store is installed"),
        ("drop schema memory_plugin cascade", "no store is installed"),
    ],
)
def test_a_damage_is_found_and_named(database: str, damage: str, named: str) -> None:
    rows(database, damage)
    verdict = api.verify_store(settings_for(database))
    assert any(named in line for line in verdict.differences), verdict.differences
    with pytest.raises(InstallError) as caught:
        verdict.require()
    assert caught.value.exit_code == 23


# What a fresh store holds, as its server tells it, and the statements that bring it back.
IN_SCHEMA = "c.relnamespace = 'memory_plugin'::regnamespace"
TRIGGERS = f"""
    select t.tgname, c.oid::regclass::text, pg_get_triggerdef(t.oid)
    from pg_trigger as t inner join pg_class as c on c.oid = t.tgrelid
    where {IN_SCHEMA} and not t.tgisinternal
"""
INDEXES = f"""
    select c.relname, pg_get_indexdef(c.oid)
    from pg_class as c
    where {IN_SCHEMA} and c.relkind = 'i' and not exists (select from pg_constraint as k where k.conindid = c.oid)
"""
KEYS = f"""
    select c.relname, k.conname, pg_get_constraintdef(k.oid)
    from pg_constraint as k inner join pg_class as c on c.oid = k.conrelid
    where {IN_SCHEMA} and k.contype = 'p'
"""
TYPES = """
    select t.typname
    from pg_type as t left join pg_class as c on c.oid = t.typrelid
    where t.typnamespace = 'memory_plugin'::regnamespace and t.typcategory <> 'A' and coalesce(c.relkind, 'c') = 'c'
        and not exists (select from pg_depend as d where d.objid = t.oid and d.deptype = 'e')
"""


def differences_without(url: str, takes: str, brings: str) -> tuple[str, ...]:
    """Return what verify finds while something is away."""
    rows(url, takes)
    found = api.verify_store(settings_for(url)).differences
    rows(url, brings)
    return found


def repair(trigger: str) -> str:
    """Return the lines of docs/operations.md that bring a trigger back."""
    guide = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    text = guide.split("\n## Repair\n")[1].split("\n## ")[0]
    (found,) = [block for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if f" {trigger} on " in block]
    return found


@pytest.mark.servers("any")
def test_every_trigger_is_missed_where_it_is_dropped_or_disabled(database: str) -> None:
    triggers = rows(database, TRIGGERS)
    assert len(triggers) >= 6
    for name, table, statement in triggers:
        line = (f"trigger {name} is missing or disabled",)
        disable, enable = (f"alter table {table} {verb} trigger {name}" for verb in ("disable", "enable"))
        assert differences_without(database, disable, enable) == line
        assert differences_without(database, f"drop trigger {name} on {table}", statement) == line
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_every_index_and_primary_key_is_missed(database: str) -> None:
    for name, statement in rows(database, INDEXES):
        found = differences_without(database, f"drop index memory_plugin.{name}", statement)
        assert found == (f"index {name} is missing",)
    for table, name, definition in rows(database, KEYS):
        alter = f"alter table memory_plugin.{table}"
        brings = f"{alter} add constraint {name} {definition}"
        found = differences_without(database, f"{alter} drop constraint {name} cascade", brings)
        assert any(line.startswith(f"the primary key of {table} is ") for line in found), (table, found)
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_every_type_is_missed(database: str) -> None:
    for (name,) in rows(database, TYPES):
        rows(database, f"alter type memory_plugin.{name} rename to away")
        found = api.verify_store(settings_for(database)).differences
        rows(database, f"alter type memory_plugin.away rename to {name}")
        assert f"type {name} is missing" in found


@pytest.mark.servers("any")
def test_an_empty_database_is_a_difference(empty_database: str) -> None:
    assert "no store is installed" in api.verify_store(settings_for(empty_database)).differences[0]


@pytest.mark.parametrize(("version", "words"), [("0.7.4", "no iterative index scan"), ("0.8.3", "HNSW vacuum")])
@pytest.mark.servers("any")
def test_a_pgvector_with_known_faults_is_a_warning(database: str, version: str, words: str) -> None:
    rows(database, f"update pg_extension set extversion = '{version}' where extname = 'vector'")
    verdict = api.verify_store(settings_for(database))
    assert any(words in line for line in verdict.warnings)
    assert verdict.differences == ()


@pytest.mark.servers("embedded18")
def test_a_good_pgvector_is_no_warning(database: str) -> None:
    assert api.verify_store(settings_for(database)).warnings == ()


@pytest.mark.parametrize("installed", [False, True])
def test_looking_changes_nothing(
    server: Server, empty_database: str, new_role: Callable[..., str], installed: bool
) -> None:
    if installed:
        install(empty_database)
    else:
        make_vector(empty_database, "public")
    before = members(empty_database, "memory_plugin"), members(empty_database, "public")
    settings = settings_for(empty_database)
    state = api.status(settings).state
    api.verify_store(settings)
    assert state == ("installed" if installed else "absent")
    assert (members(empty_database, "memory_plugin"), members(empty_database, "public")) == before


@pytest.mark.servers("any")
def test_a_look_cannot_write_even_if_it_tried(database: str) -> None:
    from memory_plugin.installer.waiting import reading

    with pytest.raises(InstallError) as caught, reading(settings_for(database), "test") as connection:
        connection.execute("delete from memory_plugin.memory_records")
    assert caught.value.exit_code == 22


@pytest.mark.servers("any")
def test_status_tells_each_state(empty_database: str) -> None:
    settings = settings_for(empty_database)
    assert api.status(settings).state == "absent"
    install(empty_database)
    assert api.status(settings).state == "installed"
    rows(empty_database, "delete from memory_plugin.schema_migrations where name like '004%'")
    assert api.status(settings).state == "pending"
    rows(empty_database, "drop table memory_plugin.schema_migrations")
    assert api.status(settings).state == "adoptable"
    rows(empty_database, "alter table memory_plugin.memory_records drop column source")
    found = api.status(settings)
    assert found.state == "refused"
    assert found.problem is not None
    assert found.problem.exit_code == 25


@pytest.mark.servers("any")
def test_a_role_that_may_do_nothing_can_look_at_a_database_without_a_store(
    server: Server, empty_database: str, new_role: Callable[..., str]
) -> None:
    make_earlier_shape(empty_database, tables="public", vector="public")
    rows(empty_database, "revoke all on schema public from public")
    name = empty_database.split("/")[3].split("?")[0]
    url = server.url(name, user=new_role(password="x"), password="x", tcp=not server.managed)
    found = api.status(settings_for(url))
    assert found.state == "refused"
    assert found.problem is not None
    assert found.problem.exit_code == 22
    assert found.earlier_in_public == (("memory_namespaces", None), ("memory_records", None))


@pytest.mark.servers("any")
def test_a_role_that_may_not_read_the_ledger_is_told_so(
    server: Server, database: str, new_role: Callable[..., str]
) -> None:
    name = database.split("/")[3].split("?")[0]
    url = server.url(name, user=new_role(password="x"), password="x", tcp=not server.managed)
    with pytest.raises(InstallError) as caught:
        api.status(settings_for(url))
    assert caught.value.exit_code == 22
    assert caught.value.message.endswith("this role may not read memory_plugin.schema_migrations")
    assert "connect as the store's owner" in caught.value.hint


@pytest.mark.parametrize(
    "trigger",
    [
        "memory_records_mirror_vector",
        "memory_records_empty_vectors",
        "memory_records_mirror_length",
        "memory_records_change_length",
        "memory_records_empty_lengths",
    ],
)
@pytest.mark.servers("any")
def test_the_guide_brings_a_trigger_back_and_what_it_keeps_true(database: str, trigger: str) -> None:
    schema = rows(database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")[0][0]
    embedding = f"('[1' || repeat(',1', 1535) || ']')::{schema}.vector"
    commit = f"select memory_plugin.commit_memory('team:a', %s, embedding => {embedding})"
    with connected(database) as connection:
        connection.execute(commit.encode(), ["an apple"])
        connection.execute("insert into memory_plugin.redaction_patterns (kind, pattern) values ('x', 'XX[0-9]{8}')")
        connection.execute(f"alter table memory_plugin.memory_records disable trigger {trigger}".encode())
        # What was written meanwhile is in no copy, and what was changed and deleted still is as it was.
        connection.execute(commit.encode(), ["a pear of two trees"])
        connection.execute(
            "update memory_plugin.memory_records set content = 'two green apples', expires_at = 'infinity'"
        )
        connection.execute("delete from memory_plugin.memory_records where content = 'a pear of two trees'")
    verdict = api.verify_store(settings_for(database))
    assert verdict.advice == (f"make {trigger} again and what it keeps true: Repair in docs/operations.md",)
    with connected(database) as connection:
        connection.execute(repair(trigger).encode())
    install(database)
    assert api.verify_store(settings_for(database)).differences == ()
    for copy, wanted in (("vectors", "r.embedding is not null"), ("lengths", "true")):
        query = (
            "select count(*) from (select namespace, id, expires_at from memory_plugin.memory_records as r "
            f"where {wanted}"
            f" except select namespace, id, expires_at from memory_plugin.memory_{copy}) as lacking"
        )
        assert rows(database, query) == [(0,)]
    words = "select l.words, memory_plugin._lexical_length(r.content_tsv) from memory_plugin.memory_lengths as l "
    for kept, counted in rows(database, words + "join memory_plugin.memory_records as r using (namespace, id)"):
        assert kept == counted
    assert rows(database, "select count(*) from memory_plugin.memory_vectors") == rows(
        database, "select count(*) from memory_plugin.memory_records"
    )


@pytest.mark.servers("any")
def test_the_guide_tells_of_memories_written_past_the_triggers_which_verify_does_not_see(database: str) -> None:
    schema = rows(database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")[0][0]
    guide = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    (told,) = re.findall("`verify` does not see it, if a tool wrote memories under `([^`]+)`", guide)
    with connected(database) as connection:
        for content in ("an apple", "a pear", "a quince"):
            connection.execute(
                "select memory_plugin.commit_memory('team:a', %s, embedding => "
                f"('[1' || repeat(',1', 1535) || ']')::{schema}.vector)".encode(),
                [content],
            )
        connection.execute(f"set {told}".encode())
        connection.execute("delete from memory_plugin.memory_records where content = 'an apple'")
        connection.execute("update memory_plugin.memory_records set kind = 'summary' where content = 'a pear'")
        connection.execute("update memory_plugin.memory_records set content = 'two' where content = 'a quince'")
        connection.execute(
            "insert into memory_plugin.memory_records (namespace, content, kind, source, embedding) "
            "select namespace, 'two green figs', kind, source, embedding from memory_plugin.memory_records limit 1"
        )
    copies = {
        "vectors": ("kind", "kind"),
        "sketches": ("kind", "kind"),
        "lengths": ("words", "memory_plugin._lexical_length(content_tsv)"),
    }
    wrong = " + ".join(
        f"(select count(*) from (select namespace, id, {kept} as kept from memory_plugin.memory_{copy}) as c full join "
        f"(select namespace, id, {true} as true from memory_plugin.memory_records) as r using (namespace, id) "
        "where c.kept is distinct from r.true)"
        for copy, (kept, true) in copies.items()
    )
    assert rows(database, f"select {wrong}")[0][0] >= 8
    assert api.verify_store(settings_for(database)).differences == ()
    with connected(database) as connection:
        for trigger in ("memory_records_mirror_vector", "memory_records_mirror_length"):
            connection.execute(repair(trigger).encode())
    install(database)
    assert rows(database, f"select {wrong}") == [(0,)]
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_the_guide_brings_the_trigger_of_redaction_patterns_back(database: str) -> None:
    before = "select expression from memory_plugin.redaction_patterns"
    rows(database, "insert into memory_plugin.redaction_patterns (kind, pattern) values ('x', 'XX[0-9]{8}')")
    kept = rows(database, before)
    rows(database, "drop trigger redaction_patterns_compile on memory_plugin.redaction_patterns")
    rows(database, "update memory_plugin.redaction_patterns set expression = 'odd'")
    with connected(database) as connection:
        connection.execute(repair("redaction_patterns_compile").encode())
    assert rows(database, before) == kept
    assert api.verify_store(settings_for(database)).differences == ()


INDEX = """
select pg_get_indexdef(i.indexrelid), i.indisvalid
from pg_index as i where i.indexrelid = to_regclass('memory_plugin.{name}')
"""


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("memory_records_listing", "drop index {name}"),
        ("memory_records_content_tsv", "update pg_index set indisvalid = false where indexrelid = '{name}'::regclass"),
        # A later migration alters it.
        ("memory_vectors_embedding", "drop index {name}"),
        ("memory_vectors_near", "drop index {name}"),
    ],
)
def test_install_builds_an_index_again_that_is_missing_or_unfinished(
    database: str, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    before = rows(database, INDEX.format(name=name))
    rows(database, damage.format(name=f"memory_plugin.{name}"))
    assert rows(database, INDEX.format(name=name)) != before
    with pytest.raises(InstallError) as caught:
        api.verify_store(settings_for(database)).require()
    assert caught.value.hint.startswith("run memory-plugin install")
    assert cli.run(["plan", "--database-url", database]) == 0
    assert f"build again: index {name}" in capsys.readouterr().out
    result = install(database)
    assert any(note.startswith(f"built the index {name} again") for note in result.notes)
    assert "the store is not as" not in " ".join(result.warnings)
    assert rows(database, INDEX.format(name=name)) == before
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_an_index_that_cannot_be_built_again_now_fails_no_install(database: str) -> None:
    rows(database, f"update pg_index set indisvalid = false where indexrelid = '{LISTING}'::regclass")
    with connected(database) as other, other.transaction():
        other.execute("lock table memory_plugin.memory_records in share update exclusive mode")
        result = install(database, lock_timeout_s="1")
        assert f"could not be built again: 003_indexes waited 1 s for pid {other.info.backend_pid}" in result.notes[-1]
    assert "index memory_records_listing is unfinished (invalid)" in result.warnings[-1]
    assert install(database).warnings == result.warnings[:-1]
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_install_warns_of_what_it_does_not_bring_back(database: str) -> None:
    rows(database, "drop trigger memory_records_mirror_length on memory_plugin.memory_records")
    said: list[str] = []
    api.install(settings_for(database), said.append)
    assert said[-1] == (
        "warning: the store is not as this program installs it: trigger memory_records_mirror_length is missing or"
        " disabled; memory-plugin verify says what to do"
    )


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    "damage",
    [
        "drop type memory_plugin.memory cascade",
        "drop type memory_plugin._lexical_plan cascade",
    ],
)
def test_what_verify_says_brings_a_type_back(database: str, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    rows(database, damage)
    verdict = api.verify_store(settings_for(database))
    with pytest.raises(InstallError) as caught:
        verdict.require()
    assert all(advice in caught.value.line for advice in verdict.advice)
    (told,) = re.findall(r"make (\w+) again with its statement in: memory-plugin render (\w+)", caught.value.line)
    name, migration = told
    schema = rows(database, "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'")[0][0]
    assert cli.run(["render", migration, "--vector-schema", schema]) == 0
    found = [
        statement
        for statement in statements.split(capsys.readouterr().out)
        if re.search(rf"\bcreate type .*\b{name}\b", statement)
    ]
    assert len(found) == 1
    rows(database, found[0])
    install(database)
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
@pytest.mark.parametrize(
    ("leftover", "drop"),
    [
        (
            "create function memory_plugin._lexical_parse(text) returns int language sql as 'select 1'",
            "drop function memory_plugin._lexical_parse(text)",
        ),
        (
            "create function memory_plugin.odd(int, memory_plugin.memory) returns int language sql as 'select 1'",
            "drop function memory_plugin.odd(integer,memory_plugin.memory)",
        ),
        (
            "create procedure memory_plugin.odd(int) language sql as 'select 1'",
            "drop procedure memory_plugin.odd(integer)",
        ),
        (
            "create aggregate memory_plugin.odd(int) (sfunc = int4pl, stype = int)",
            "drop aggregate memory_plugin.odd(integer)",
        ),
    ],
)
def test_a_function_that_is_not_ours_goes_by_the_statement_that_verify_prints(
    database: str, leftover: str, drop: str
) -> None:
    rows(database, leftover)
    with pytest.raises(InstallError) as caught:
        api.verify_store(settings_for(database)).require()
    assert drop in caught.value.hint.split("; ")
    rows(database, drop)
    assert api.verify_store(settings_for(database)).differences == ()


@pytest.mark.servers("any")
def test_of_functions_with_one_body_verify_does_not_guess_which_is_ours(database: str) -> None:
    (body,) = rows(database, "select prosrc from pg_proc where proname = '_kind_of_namespace'")[0]
    rows(
        database,
        "set check_function_bodies = off; create function memory_plugin._kind_of_namespace(int) returns int"
        f" language plpgsql as $copy${body}$copy$",
    )
    assert "drop those that are not ours: _kind_of_namespace" in api.verify_store(settings_for(database)).advice


@pytest.mark.servers("any")
def test_what_only_a_backup_brings_back_is_said_to(database: str) -> None:
    rows(database, "alter table memory_plugin.memory_records drop column propagation")
    with pytest.raises(InstallError) as caught:
        api.verify_store(settings_for(database)).require()
    assert "restore a backup" in caught.value.line
    assert "run memory-plugin install" not in caught.value.line


@pytest.mark.servers("any")
def test_the_statement_that_drops_an_unfinished_index_drops_no_more_than_that(database: str) -> None:
    name = 'x; drop table memory_plugin.settings; --"'
    quoted = name.replace('"', '""')
    rows(database, f'create index "{quoted}" on memory_plugin.memory_records (kind)')
    rows(database, f"update pg_index set indisvalid = false where indexrelid = 'memory_plugin.\"{quoted}\"'::regclass")
    (advice,) = api.verify_store(settings_for(database)).advice
    rows(database, advice)
    assert api.verify_store(settings_for(database)).differences == ()
