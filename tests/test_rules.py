"""A rule that the SQL files share is written once, in installer/rules.py."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import psycopg
import pytest

from memory_plugin.installer import rules

SHARED = (
    "namespace_name",
    "kinds",
    "unchecked_bytes",
    "graph_dimensions",
    "near_dimensions",
    "stored_tail",
    "uuid",
    "time_format",
    "asked_tail",
)


@pytest.mark.parametrize("name", SHARED)
def test_no_function_spells_out_a_rule_that_has_a_placeholder(name: str) -> None:
    alone = re.compile(rf"(?<![\w.]){re.escape(rules.CONSTANTS[name])}(?![\w.])")
    folder = resources.files("memory_plugin.sql") / "functions"
    # What is computed, as 300000 rows to compare, is no length of a text.
    texts = {
        file.name: re.sub(r"least\(\d+, ", "", file.read_text())
        for file in folder.iterdir()
        if file.name.endswith(".sql")
    }
    assert len(texts) > 50
    assert [file for file, text in texts.items() if alone.search(text)] == []


@pytest.mark.parametrize(
    ("text", "lexeme", "times", "words"),
    [
        ("hello", "hello", 1, 1),
        ("hello brave hello the hello", "hello", 3, 4),
        ("hello " * 200 + "you", "hello", 200, 200),
    ],
)
def test_rank_turned_round_counts_words_and_occurrences(
    conn: psycopg.Connection[Any], text: str, lexeme: str, times: int, words: int
) -> None:
    vector, query = "to_tsvector('english', %(text)s)", "to_tsquery('english', %(lexeme)s)"
    counts = f"select {rules.EXPRESSIONS['occurrences']}, {rules.EXPRESSIONS['word_count']}".format(vector, query)
    row = conn.execute(counts.encode(), {"text": text, "lexeme": lexeme}).fetchone()
    assert row == (times, words)
