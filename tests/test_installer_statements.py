"""SQL text is split where the server would end a statement."""

from __future__ import annotations

import pytest

from memory_plugin.installer import sources, statements


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        (" -- nothing\n /* at all; */ ;; ", ()),
        ("select 1", ("select 1",)),
        ("select 1; select 2;", ("select 1", "select 2")),
        ("select ';', 'it''s; fine'; select 2", ("select ';', 'it''s; fine'", "select 2")),
        (r"select E'\';'; select '\'; select 3", (r"select E'\';'", r"select '\'", "select 3")),
        ('select ";""; x"; select 2', ('select ";""; x"', "select 2")),
        ("do $$ begin; end $$; select 2", ("do $$ begin; end $$", "select 2")),
        ("do $a$ $b$; $$; $a$; select 2", ("do $a$ $b$; $$; $a$", "select 2")),
        ("select a$b$c; select 2", ("select a$b$c", "select 2")),
        ("select $1; select $2", ("select $1", "select $2")),
        ("select 1 /* ; /* ; */ ; */ + 1; select 2", ("select 1 /* ; /* ; */ ; */ + 1", "select 2")),
        ("-- first;\nselect 1; -- last;", ("-- first;\nselect 1",)),
        ("select 'unended; select 2", ("select 'unended; select 2",)),
    ],
)
def test_a_text_splits_into_its_statements(text: str, parts: tuple[str, ...]) -> None:
    assert statements.split(text) == parts


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("select 1; commit;", "commit"),
        ("/* so */ BEGIN; select 1", "begin"),
        ("start  transaction", "start  transaction"),
        ("do $$ begin null; end $$", None),
        ("select 'begin; commit'; -- commit", None),
        ("create function f() returns int language sql begin atomic select 1; select 2", None),
    ],
)
def test_a_statement_that_begins_or_ends_a_transaction_is_found(text: str, found: str | None) -> None:
    assert statements.controls_transaction(text) == found


def test_comments_go_and_quoted_dashes_stay() -> None:
    assert statements.without_comments("a -- b\nc '--d' /* e */ $$ -- f $$") == "a  \nc '--d'   $$ -- f $$"


def test_functions_are_applied_helpers_first_and_json_functions_last() -> None:
    names = [function.name for function in sources.load().functions]
    order = [0 if name.startswith("_") else 2 if name.startswith("v1_") else 1 for name in names]
    assert order == sorted(order)
    assert names.index("_rules") < names.index("search") < names.index("v1_search")
