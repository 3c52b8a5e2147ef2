"""What a database or a session has set for SQL written by others changes neither the commands nor any answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import psycopg
import pytest

import every_call
from fixtures.backfilling import make_source
from fixtures.installing import DATA, connected, rows
from memory_plugin.installer import cli

CONTENT = "tabs\tand \\slashes\\ and 'quotes'\nπ"
SETTINGS = ("quote_all_identifiers = on", "standard_conforming_strings = off")


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_command_works_where_the_database_has_an_odd_setting(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str
) -> None:
    rows(
        empty_database,
        "do $$ begin execute format('alter database %I set " + setting + "', current_database()); end $$",
    )
    url = empty_database
    given, taken = tmp_path / "given.ndjson", tmp_path / "taken.ndjson"
    line = {"type": "memory", "namespace": "team:a", "content": CONTENT, "kind": "fact", "source": "user"}
    given.write_text(json.dumps(line) + "\n")

    def run(*words: str) -> str:
        """Run a command that must end well."""
        code = cli.run([*words, "--database-url", url])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    run("plan")
    run("install")
    run("verify")
    run("install")
    run("import", str(given))
    with connected(url) as connection:
        connection.execute("set search_path = public, memory_plugin")
        connection.execute((DATA / "earlier_shape.sql").read_bytes())
    run("adopt-public", "--drop")
    make_source(url, memories=3)
    run("backfill", "--refused", str(tmp_path / "refused.ndjson"))
    run("backfill", "--verify")
    run("status")
    run("export", str(taken))
    exported = [json.loads(one) for one in taken.read_text().splitlines()]
    assert CONTENT in [one.get("content") for one in exported]
    assert len([one for one in exported if one["type"] == "memory"]) >= 6
    run("verify")
    run("uninstall", "--yes")
    assert rows(url, "select to_regnamespace('memory_plugin')") == [(None,)]


# What is looked for as a pattern within: a word, a phrase, letters, a sign that patterns are written with.
QUERIES = (
    "apple",
    '"red apple"',
    '-pear -"blue plum" apple',
    "%",
    "_",
    "\\",
    "C:\\temp",
    '"(a+b)*c"',
    "テキスト",
    "-テキスト a",
)
TEXTS = ("a red apple, 100% under_way", "C:\\temp\\file (a+b)*c", "日本語のテキスト apple", "tab\tbed  apple")
SESSION_SETTINGS = (
    "set standard_conforming_strings = off",
    "set array_nulls = off; set transform_null_equals = on; set backslash_quote = off; set bytea_output = escape; "
    "set datestyle = 'German'; set intervalstyle = sql_standard; set timezone = 'Asia/Kathmandu'; "
    "set plpgsql.variable_conflict = use_variable; set plpgsql.extra_errors = 'all'; "
    "set default_text_search_config = 'pg_catalog.simple'; set plan_cache_mode = force_generic_plan",
    "set row_security = off",
)


def answered(url: str, namespace: str, settings: str = "") -> list[tuple[str, str]]:
    """Return what a fresh session with a setting is told: every function's answer, and those of the queries."""
    with connected(url) as connection:
        there = every_call.callable_functions(connection)
        if settings:
            connection.execute(settings.encode())
        told = every_call.answers(connection, namespace, there)
        for text in TEXTS:
            connection.execute("select memory_plugin.commit_memory(%b, %b)", [namespace, text])
        for query in QUERIES:
            found = connection.execute(
                "select content from memory_plugin.search(array[%b], query => %b)", [namespace, query]
            )
            told.append((query, str(sorted(content for (content,) in found.fetchall()))))
        connection.execute("select memory_plugin.delete_namespace(%s)", [namespace])
    return told


@pytest.mark.parametrize("settings", SESSION_SETTINGS)
def test_no_setting_of_a_session_changes_an_answer(database: str, namespace: str, settings: str) -> None:
    before = answered(database, namespace)
    assert {query for query, found in before if "apple" in found} >= set(QUERIES[:2])
    assert answered(database, namespace, settings) == before


def test_no_literal_of_a_function_means_something_else_where_backslashes_escape(conn: psycopg.Connection) -> None:
    bodies = conn.execute(
        "select p.oid::regprocedure::text, p.prosrc from pg_proc as p join pg_language as l on l.oid = p.prolang "
        "where p.pronamespace = 'memory_plugin'::regnamespace and l.lanname in ('sql', 'plpgsql')"
    ).fetchall()
    assert len(bodies) > 60
    literal = re.compile(r"--[^\n]*|(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'|('(?:[^']|'')*')", re.DOTALL)
    plain = {
        name: found
        for name, body in bodies
        if (found := [one for one in literal.findall(body) if "\\" in one and not one.isspace()])
    }
    assert plain == {}, "write it as e'...', with each backslash doubled"
