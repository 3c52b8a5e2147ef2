"""Texts made to hurt, as every text argument of every function that may be called: refused or taken, never run."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from every_call import callable_functions
from hostile import CLIENT_SECONDS, TEXTS, Watch

pytestmark = pytest.mark.servers("any")
# Of the other arguments something that is right, so that the text is what is looked at.
RIGHT = {
    "text": "'team:a'",
    "text[]": "array['team:a']",
    "uuid": "'11111111-2222-3333-4444-555555555555'",
    "uuid[]": "array['11111111-2222-3333-4444-555555555555']::uuid[]",
    "integer": "1",
    "double precision": "0.5",
    "boolean": "false",
    "jsonb": "'{}'",
    "json": "'{}'",
}
# What a rule answers, what is not configured or not there, and what a text is no value of.
REFUSALS = ("MP", "22", "0A", "54", "55")


def arguments(conn: psycopg.Connection[Any], function: str) -> list[tuple[str, str]]:
    """Return the name and type of each argument that goes in."""
    return conn.execute(
        "select a.name, a.type from pg_proc as p, lateral (select coalesce(p.proargnames[g.i], ''), "
        "format_type(p.proargtypes[g.i - 1], null) from generate_series(1, p.pronargs) as g (i)) as a (name, type) "
        "where p.pronamespace = 'memory_plugin'::regnamespace and p.proname = %s and p.prokind = 'f'",
        [function],
    ).fetchall()


@pytest.fixture(scope="module")
def calls(shared_sidecar: Any) -> list[tuple[str, str]]:
    """Return calls with one place for a text each, by what they are: function.argument."""
    made = []
    with psycopg.connect(shared_sidecar.database, autocommit=True) as conn:
        for function in sorted(callable_functions(conn)):
            taken = arguments(conn, function)
            for name, kind in taken:
                if kind in ("text", "text[]"):
                    given = (
                        f"{other} => {('%s' if kind == 'text' else 'array[%s]') if other == name else value}"
                        for other, other_kind in taken
                        if (value := RIGHT.get(other_kind, "null"))
                    )
                    call = ", ".join(given)
                    made.append((f"{function}.{name}", f"select memory_plugin.{function}({call})"))
    return made


def test_every_function_with_a_text_is_among_the_calls(calls: list[tuple[str, str]]) -> None:
    there = {what for what, _ in calls}
    assert {
        "commit_memory.content", "patch_namespace.name", "forget_memory.requested_by_namespace", "get_memory.namespace",
        "search.query", "find_duplicates.namespace", "search_recall.namespaces", "configure_embedding.url",
        "configure_embedding.model", "configure_embedding.query_prefix", "embedding_settle.problem",
    } <= there  # fmt: skip


def refusal(conn: psycopg.Connection[Any], call: str, text: str) -> str:
    """Call, undo it, and return the error's code; "" where there was none."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(call.encode(), [text])
    except psycopg.Error as error:
        return error.sqlstate or "connection lost"
    return ""


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if len(text) < 10_000])
def test_a_text_is_never_more_than_that(watch: Watch, calls: list[tuple[str, str]], text: str) -> None:
    taken = 0
    for what, call in calls:
        began = time.monotonic()
        refused = refusal(watch.connection, call, text)
        assert refused == "" or refused.startswith(REFUSALS), f"{what}: {refused}"
        assert time.monotonic() - began < CLIENT_SECONDS, what
        taken += refused == ""
    # A search, a content, a redaction: some of them take any text.
    assert taken > 2
