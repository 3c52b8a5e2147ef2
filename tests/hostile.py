"""What the tests of hostile input share: texts and bodies made to hurt, and a watch on what they leave behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from doors import Answer
from fixtures.sidecars import Sidecar

# What a client allows; the answer must have come before.
CLIENT_SECONDS = 2.0

# Texts that Postgres can hold: each must come back as it went in, and mean nothing as a query but its words.
TEXTS = {
    "right-to-left": "עברית العربية \u202eoverride\u202c \u2067isolate\u2069",
    "combining": "e" + "\u0301" * 10_000,
    "emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🙂",
    "noncharacters": "\ufffe\uffff\U0010ffff\U0001fffe",
    "invisible": "\ufeff\u200b\u2060x\u00ad",
    "line separators": "a\u2028b\u2029c\x85d\x0be\x0cf\r\n",
    "control characters": "".join(map(chr, range(1, 32))) + "\x7f\x9b",
    "escapes": '\\ \\\\ \\" \\/ \\u0000 \\x00 \\n "',
    "a word too long for an index": "x" * 100_000,
    "quotes": "' '' \" \"\" ` $$ $body$ $function$ E'\\'' U&'\\0061'",
    "sql": "'; drop table memory_plugin.memory_records; --",
    "sql in a literal": "') returning (select rolpassword from pg_authid limit 1)::int; --",
    "sql with a sleep": "x' || pg_sleep(5) || '",
    "sql with a union": "' union select id, name, kind, null from memory_plugin.memory_namespaces --",
    "tsquery": "!a & (b | c) <-> d:*AB <2> !!e",
    "half a tsquery": "a & & | ! ( <->",
    "tsquery quotes": "'a' 'b & \\'c",
    "web search": '-x "y z" or -"q r" OR and not',
    "unclosed phrase": '"never closed -',
    "many minuses": "-a " * 2000,
    "many quotes": '"' * 3999,
    "like": "%_\\%\\_\\\\ [a-z]%",
    "regular expression": "(a+)+$ (?:(?=x)) [[:alpha:]] \\1 {1,9999}",
    "format": "%s %1$s %I %L %n {0} {x!r} ${jndi:ldap://x}",
    "placeholders": "@extschema:vector@ @dimensions@ :name %(name)s $1 ?",
    "json": '{"memories": null}]}',
    "arrays": '{"a",NULL} (1,2) <0,1>',
    "numbers": "NaN Infinity -0 1e400 0x1f",
    "markup": "<script>alert(1)</script> <!-- ]]>",
    "header": "x\r\nSet-Cookie: a=b\r\n\r\nHTTP/1.1 200 OK",
    "scripts without spaces": "日本語のテキスト 中文文本 한국어 ภาษาไทย",
}

# JSON texts that a body may not be, whatever the operation.
NO_BODIES = {
    "NaN": '{"kind": NaN}',
    "Infinity": '{"kind": -Infinity}',
    "single quotes": "{'kind': 'fact'}",
    "bare key": '{kind: "fact"}',
    "trailing comma": '{"kind": "fact",}',
    "comment": '{"kind": "fact" /* x */}',
    "leading zero": '{"limit": 01}',
    "plus": '{"limit": +1}',
    "bare point": '{"limit": 1.}',
    "leading point": '{"limit": .5}',
    "hexadecimal": '{"limit": 0x10}',
    "unclosed string": '{"kind": "fact',
    "raw newline in a string": '{"kind": "fa\nct"}',
    "bad escape": '{"kind": "\\x41"}',
    "cut escape": '{"kind": "\\u12"}',
    "two values": "{}{}",
    "garbage after": '{"kind": "fact"} x',
    "colon twice": '{"kind":: "fact"}',
    "number without end": '{"limit": 1e}',
    "deep arrays": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "unclosed depth": "[" * 500_000,
    "a string": '"' + "x" * 100_000 + '"',
    "true": "true",
    "a number": "1e400",
}


def nested(levels: int) -> str:
    """Return the text of a JSON object of so many levels, itself the first."""
    return '{"a":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"


def memory(**fields: str) -> str:
    """Return a MemoryWrite as text; fields are JSON texts, so that they can be what json.dumps would not write."""
    members = {"content": '"x"', "kind": '"fact"', "source": '"agent"', **fields}
    return "{" + ",".join(f'"{name}": {text}' for name, text in members.items()) + "}"


@dataclass(frozen=True)
class Watch:
    """Holds a block to the rules: quick answers, a healthy service after it, and nothing stored in part."""

    sidecar: Sidecar
    connection: psycopg.Connection[Any]

    def rows(self) -> Any:
        """Return a fingerprint of all that is stored."""
        return self.connection.execute(
            "select (select (count(*), sum(hashtextextended(n::text, 0))) from memory_plugin.memory_namespaces as n), "
            "(select (count(*), sum(hashtextextended(row(r.namespace, r.id, r.content, r.kind, r.source, r.expires_at, "
            "r.propagation, r.pin, r.created_at)::text, 0))) from memory_plugin.memory_records as r)"
        ).fetchone()

    @contextmanager
    def quick(self) -> Iterator[None]:
        """Hold one request to the client's time and the service to its health."""
        start = time.monotonic()
        yield
        assert time.monotonic() - start < CLIENT_SECONDS
        self.healthy()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Hold one refused request to its time, and to having stored nothing."""
        before = self.rows()
        with self.quick():
            yield
        assert self.rows() == before

    def healthy(self) -> None:
        """Hold the service to a quick 200 from health."""
        start = time.monotonic()
        response = self.sidecar.client.get("/v1/health")
        assert (response.status_code, response.json()["status"]) == (200, "ok")
        assert time.monotonic() - start < CLIENT_SECONDS


def clean(answer: Answer, *allowed: int) -> Answer:
    """Hold an answer to one of the statuses, and an error to the contract's shape without anything of the inside."""
    assert answer.status in allowed, answer
    if answer.status >= 400:
        assert set(answer.body) <= {"code", "message", "details"}
        told = json.dumps(answer.body).lower()
        assert not any(
            word in told for word in ("select ", "insert ", "pg_", "plpgsql", "traceback", "context:", "/usr/")
        )
    return answer
