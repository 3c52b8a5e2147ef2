"""Redaction at the door: the setting, the operator's own patterns, and every way in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.installing import connected, install, refusal, rows, settings_for
from memory_plugin.installer import api
from memory_plugin.plpy.redact import redact
from test_transfer import ok, program

ID = "00000000-0000-4000-8000-000000000001"
SECRET = "the door opens with password=hunter2x today"
MASKED = "the door opens with password=[redacted:password] today"
CONTENTS = "select content from memory_plugin.memory_records order by content"
ON = "select memory_plugin.configure(redact_on_commit => true)"
PARTS = "select kind, needle, before, expression from memory_plugin.redaction_patterns"
ADD = "insert into memory_plugin.redaction_patterns (kind, pattern) values (%s, %s)"


def commit(conn: psycopg.Connection[Any], content: str = SECRET) -> None:
    conn.execute("select memory_plugin.commit_memory('team:a', %s, id => %s)", [content, ID])


def test_nothing_is_redacted_unless_asked(conn: psycopg.Connection[Any]) -> None:
    assert conn.execute("select memory_plugin.configure()").fetchone() == ({"redact_on_commit": False},)
    commit(conn)
    assert conn.execute(CONTENTS).fetchall() == [(SECRET,)]


@pytest.mark.servers("full")
def test_a_commit_is_masked_before_anything_is_stored_or_indexed(conn: psycopg.Connection[Any]) -> None:
    assert conn.execute(ON).fetchone() == ({"redact_on_commit": True},)
    commit(conn)
    conn.execute("select memory_plugin.commit_memory('team:a', %s)", [SECRET])
    body = json.dumps({"content": SECRET, "kind": "fact", "source": "user"})
    conn.execute("select memory_plugin.v1_commit_memory('team:a', %s)", [body])
    assert conn.execute(CONTENTS).fetchall() == [(MASKED,)] * 3
    indexed = "select count(*) from memory_plugin.memory_records where content_tsv @@ 'hunter2x'::tsquery"
    assert conn.execute(indexed).fetchone() == (0,)
    assert conn.execute("select memory_plugin.stats() -> 'settings'").fetchone() == ({"redact_on_commit": True},)


@pytest.mark.servers("full")
def test_a_retried_commit_writes_nothing_and_an_update_is_masked_too(conn: psycopg.Connection[Any]) -> None:
    conn.execute(ON)
    commit(conn)
    version = conn.execute("select xmin::text from memory_plugin.memory_records").fetchone()
    commit(conn)
    assert conn.execute("select xmin::text from memory_plugin.memory_records").fetchone() == version
    commit(conn, "now pwd=s3cretpw it is")
    assert conn.execute(CONTENTS).fetchall() == [("now pwd=[redacted:password] it is",)]


@pytest.mark.servers("full")
def test_the_setting_survives_an_install_and_ends_when_turned_off(database: str) -> None:
    with connected(database) as conn:
        conn.execute(ON)
    install(database)
    with connected(database) as conn:
        assert conn.execute("select memory_plugin.configure()").fetchone() == ({"redact_on_commit": True},)
        assert conn.execute("select memory_plugin.configure(false)").fetchone() == ({"redact_on_commit": False},)
        commit(conn)
        assert conn.execute(CONTENTS).fetchall() == [(SECRET,)]


@pytest.mark.servers("full")
def test_an_import_is_masked_and_importing_it_again_changes_nothing(database: str) -> None:
    line = json.dumps(
        {"type": "memory", "id": ID, "namespace": "team:a", "content": SECRET, "kind": "fact", "source": "agent"}
    )
    rows(database, ON)
    ok(program(database, "import", "-", stdin=line))
    assert rows(database, CONTENTS) == [(MASKED,)]
    told = ok(program(database, "import", "-", "--on-conflict", "update", "--json", stdin=line))
    assert json.loads(told)["unchanged"] == 1
    assert rows(database, CONTENTS) == [(MASKED,)]


@pytest.mark.servers("full")
def test_a_backfill_is_masked_repeatable_and_verified_equal(database: str, tmp_path: Path) -> None:
    with connected(database) as conn:
        conn.execute("create table public.workspaces (id uuid primary key, parent_id uuid)")
        conn.execute(
            "create table public.agent_memories (id uuid primary key, workspace_id uuid not null, content text, "
            "scope text, created_at timestamptz default now())"
        )
        conn.execute("insert into public.workspaces (id) values (%s)", [ID])
        conn.execute(
            "insert into public.agent_memories (id, workspace_id, content, scope) values (%s, %s, %s, 'LOCAL')",
            [ID, ID, SECRET],
        )
        conn.execute(ON)
    for expected in ("written", "unchanged"):
        told = json.loads(ok(program(database, "backfill", "--json", cwd=tmp_path)))
        assert (told[expected], told["refused"]) == (1, 0)
        assert rows(database, CONTENTS) == [(MASKED,)]
    assert "equal: 1 memories" in ok(program(database, "backfill", "--verify", cwd=tmp_path))


@pytest.mark.servers("full")
def test_rows_of_an_earlier_boot_are_masked_when_they_are_adopted(database: str) -> None:
    with connected(database) as conn:
        conn.execute("create table public.memory_namespaces (name text primary key, kind text not null)")
        conn.execute(
            "create table public.memory_records (id uuid primary key, namespace text not null, content text not null, "
            "kind text not null, source text not null)"
        )
        conn.execute("insert into public.memory_namespaces values ('team:a', 'team')")
        conn.execute("insert into public.memory_records values (%s, 'team:a', %s, 'fact', 'agent')", [ID, SECRET])
        conn.execute(ON)
    ok(program(database, "adopt-public"))
    assert rows(database, CONTENTS) == [(MASKED,)]


@pytest.mark.servers("embedded")
def test_where_nothing_can_be_redacted_the_setting_is_refused_with_a_hint(conn: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.Error, match="redact_on_commit needs the function redact") as caught:
        conn.execute(ON)
    assert caught.value.sqlstate == "MP001"
    assert "plpython3u" in (caught.value.diag.message_hint or "")
    assert conn.execute("select memory_plugin.configure()").fetchone() == ({"redact_on_commit": False},)


@pytest.mark.servers("embedded")
def test_a_store_that_should_redact_and_cannot_keeps_nothing(database: str) -> None:
    """As after a dump of a store with the setting on was restored on a server without PL/Python."""
    with connected(database) as conn:
        conn.execute("insert into memory_plugin.settings (name, value) values ('redact_on_commit', 'true')")
        with pytest.raises(psycopg.Error, match="cannot redact") as caught:
            commit(conn)
        assert caught.value.sqlstate == "MP009"
        assert conn.execute("select count(*) from memory_plugin.memory_namespaces").fetchone() == (0,)
    verdict = api.verify_store(settings_for(database))
    assert verdict.differences == ("redact_on_commit is on, and without the function redact every commit is refused",)
    assert "configure(redact_on_commit => false)" in verdict.advice[0]
    error = refusal(database)
    assert error.exit_code == 15
    assert "configure(redact_on_commit => false)" in error.line


@pytest.mark.servers("full")
def test_an_install_does_not_take_redaction_away_from_a_store_that_is_set_to_redact(database: str) -> None:
    rows(database, ON)
    assert refusal(database, plpython="off").exit_code == 15
    with connected(database) as conn:
        commit(conn)
        assert conn.execute(CONTENTS).fetchall() == [(MASKED,)]


@pytest.mark.servers("full")
def test_an_operators_pattern_is_masked_as_its_kind_until_it_is_disabled(conn: psycopg.Connection[Any]) -> None:
    text = "Ada, EMP-123456, SSN 078-05-1120, acme_live9Xz, EMP-12345"
    assert conn.execute("select memory_plugin.redact(%s)", [text]).fetchone() == (text,)
    for kind, pattern in (("employee", "EMP-[0-9]{6}"), ("ssn", r"\d{3}-\d{2}-\d{4}"), ("acme_key", r"acme_\w+")):
        conn.execute(ADD, [kind, pattern])
    conn.execute(ON)
    commit(conn, text)
    masked = "Ada, [redacted:employee], SSN [redacted:ssn], [redacted:acme_key], EMP-12345"
    assert conn.execute(CONTENTS).fetchall() == [(masked,)]
    conn.execute("update memory_plugin.redaction_patterns set enabled = false where kind = 'ssn'")
    assert "078-05-1120" in str(conn.execute("select memory_plugin.redact(%s)", [text]).fetchone())


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "(a+)+b",
            "ab|cd",
            "ab.*",
            "a(?=b)",
            r"ab\1",
            "^ab",
            "ab$",
            "ab{300}",
            "ab{3,2}",
            "ab{0}",
            "ab{1",
            "ab[",
            "ab[]",
        ),
        *("[z-a]ab", r"[\d-z]ab", r"ab\q", "a", "[A-Z]+-[0-9]+", "[a-z]{5}", "ab\n", "x" * 201, "", "ab++"),
        *("ab[0-9]{200}[a-z]{200}", "ab1*2*3*4*5*6", "a b[x]*c*?"),
    ],
)
def test_a_pattern_that_could_be_slow_or_is_none_is_refused(conn: psycopg.Connection[Any], pattern: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(ADD, ["mine", pattern])
    assert caught.value.sqlstate == "MP001"
    assert (caught.value.diag.message_primary or "").startswith("pattern ")
    assert conn.execute("select count(*) from memory_plugin.redaction_patterns").fetchone() == (0,)


@pytest.mark.parametrize("kind", ["", "Mine", "1a", "a b", "rest", "x" * 41, "a]"])
def test_a_kind_that_no_mark_could_carry_is_refused(conn: psycopg.Connection[Any], kind: str) -> None:
    with pytest.raises(psycopg.Error, match="kind must match"):
        conn.execute(ADD, [kind, "abc"])


def test_no_more_patterns_are_enabled_than_one_text_can_be_searched_for(conn: psycopg.Connection[Any]) -> None:
    for n in range(32):
        conn.execute(ADD, ["mine", f"key{n}="])
    with pytest.raises(psycopg.Error, match="at most 32"):
        conn.execute(ADD, ["mine", "key32="])
    conn.execute("update memory_plugin.redaction_patterns set enabled = false where pattern = 'key0='")
    conn.execute(ADD, ["mine", "key32="])


PIECES = [
    *("ab", "AB-", "-", "12", "34x", "x", "é", " ", "[", "]", "\\", "."),
    *("[redacted:mine]", "[redacted:", "pwd=hunter2x"),
]
ITEMS = ["ab", "AB-", "x", "-", r"\[", r"\.", "é", "[0-9]", "[^x]", r"\d", r"\w", "[a-z-]", "[]", r"[\]x]"]
COUNTS = ["", "", "+", "*", "?", "{2}", "{1,3}", "{2,}"]
_SHAPES = st.lists(st.tuples(st.sampled_from(ITEMS), st.sampled_from(COUNTS)).map("".join), min_size=1, max_size=5)


@pytest.mark.servers("any")
def test_any_pattern_that_is_taken_masks_once_for_all(conn: psycopg.Connection[Any]) -> None:
    taken = 0

    @settings(max_examples=400, deadline=None)
    @given(_SHAPES.map("".join), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
    def holds(pattern: str, text: str) -> None:
        nonlocal taken
        with conn.transaction(force_rollback=True):
            try:
                conn.execute(ADD, ["mine", pattern])
            except psycopg.Error as error:
                if error.sqlstate != "MP001":
                    raise
                return
            found = conn.execute(PARTS).fetchall()
        taken += 1
        once = redact(text, found)
        assert redact(once, found) == once

    holds()
    assert taken > 50


@pytest.mark.servers("any")
@pytest.mark.parametrize("pattern", ["EMP-[0-9]{6}", r"\d{3}-\d{2}-\d{4}", "id[a-z]*[^0]*1*2", "ab[a-z]{0,255}X", "aa"])
def test_the_time_of_a_pattern_grows_with_the_text_and_not_with_its_square(
    conn: psycopg.Connection[Any], pattern: str
) -> None:
    conn.execute(ADD, ["mine", pattern])
    found = conn.execute(PARTS).fetchall()

    def seconds(text: str) -> float:
        start = time.process_time()
        redact(text, found)
        return time.process_time() - start

    for piece in ("EMP-12345", "EMP-123456", "1", "-", "id", "idid0", "ab", "a", "[redacted:mine]", "[redacted:"):
        small, large = (piece * (size // len(piece)) for size in (1 << 16, 1 << 20))
        assert seconds(large) < 64 * max(seconds(small), 0.005), piece


def test_only_the_owner_decides_and_nobody_else_reads_the_patterns(
    conn: psycopg.Connection[Any], new_role: Callable[..., str]
) -> None:
    member = new_role()
    conn.execute(f'grant memory_plugin_api to "{member}"'.encode())
    conn.execute(f'set session authorization "{member}"'.encode())
    for attempt in (
        "select memory_plugin.configure()",
        "select * from memory_plugin.redaction_patterns",
        "insert into memory_plugin.redaction_patterns (kind, pattern) values ('mine', 'abc')",
        "select * from memory_plugin.settings",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(attempt.encode())
