"""Texts that the parser of Postgres would take apart for seconds to hours, and such as look like them and are not."""

from __future__ import annotations

import base64
import json
import random

import psycopg
import pytest

from doors import Contract, refused

WORDS = random.Random(5).choices(["harbour", "violin", "glacier", "saffron", "orchard", "reed"], k=40_000)
BYTES = random.Random(5).randbytes(300_000)
ENDLESS = {
    "words": "_".join(WORDS[:4000]),
    "letters": "a_" * 6000,
    "numbers": "_".join(map(str, range(6000))),
    "homes": "~/" * 5000,
    "folders": "./" * 6000,
    "addresses": "a1@" * 4000,
    "dates": "a-1-" * 5000,
    "comments": "<!--" * 10_000,
    "names": " ".join("_".join(WORDS[i : i + 43]) for i in range(0, 40_000, 15)),
}
FINE = {
    "base64": base64.b64encode(BYTES).decode(),
    "base64 of urls": base64.urlsafe_b64encode(BYTES).decode(),
    "json": json.dumps([{"name_of": word, "at": f"https://{word}.com/a_b/{i}"} for i, word in enumerate(WORDS[:4000])]),
    "html": "".join(f'<p class="{word}_x"><!-- {word} --></p>' for word in WORDS[:4000]),
    "code": "\n".join(
        f"self.{one}_{other}(a_b, c-1)" for one, other in zip(WORDS[:6000], WORDS[6000:12_000], strict=True)
    ),
    "links": "\n".join(
        f"https://h/{one}_{other}?a=1&b_c=~/x" for one, other in zip(WORDS[:5000], WORDS[9:5009], strict=True)
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_words_joined_without_end_are_refused(contract: Contract, name: str) -> None:
    namespace = contract.name()
    answer = contract.commit(namespace, ENDLESS[name])
    assert refused(answer, "content must not join thousands of words")
    assert contract.found([namespace]) == []


@pytest.mark.servers("any")
@pytest.mark.parametrize("name", FINE)
def test_what_only_looks_like_them_is_stored(conn: psycopg.Connection, name: str) -> None:
    conn.execute("select memory_plugin.commit_memory('team:long', %s)", [FINE[name]])
    found = conn.execute("select content from memory_plugin.search(array['team:long'])").fetchall()
    assert found == [(FINE[name],)]
