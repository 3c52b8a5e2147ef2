"""The systems that lexical.py compares: ours, plain SQL with ts_rank, and pg_textsearch's BM25 index."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psycopg
from lexical_rows import K1, KINDS, LIMIT, B, Corpus, Integers, Question
from systems import connect, indexes_away

Vocabulary = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Answer:
    """The numbers of the memories found, and what a system says of its search, if anything."""

    memories: tuple[int, ...]
    exact: bool | None = None
    candidates: int | None = None


class System(Protocol):
    """What is asked of a system."""

    name: str
    about: str
    conn: psycopg.Connection[Any]

    def load(self, corpora: Sequence[Corpus], vocabulary: Vocabulary) -> None:
        """Take over the memories."""

    def prepared(self, corpus: Corpus, question: Question, vocabulary: Vocabulary) -> Callable[[], Any] | None:
        """Prepare a search, which alone is timed; None: it cannot be asked so."""

    def read(self, found: Any) -> Answer:
        """Read what a search returned."""


def lexemes(conn: psycopg.Connection[Any], vocabulary: Vocabulary) -> Integers:
    """Return the number of each word's lexeme, -1 for a stop word: words may share one."""
    found = conn.execute(
        "select tsvector_to_array(to_tsvector('english', u.word)) "
        "from unnest(%s::text[]) with ordinality as u (word, place) order by u.place",
        [list(vocabulary)],
    ).fetchall()
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(of[0], len(numbers)) if of else -1 for (of,) in found], np.int32)


def copy(conn: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    """Copy rows into a table."""
    with conn.cursor() as cursor, cursor.copy(f"copy {table} ({columns}) from stdin".encode()) as into:
        for row in rows:
            into.write_row(row)


def impatient(url: str, patience_s: float) -> psycopg.Connection[Any]:
    """Return a connection that waits so long for a search; loading knows no such bound."""
    conn = connect(url)
    conn.execute("select set_config('statement_timeout', %s, false)", [f"{patience_s:.0f}s"])
    return conn


@contextmanager
def patient(conn: psycopg.Connection[Any]) -> Iterator[None]:
    """Let statements take what they take, with memory for indexes, and have the rows in order at the end."""
    patience = conn.execute("show statement_timeout").fetchone()
    conn.execute("set statement_timeout = 0")
    conn.execute("set maintenance_work_mem = '1GB'")
    yield
    conn.execute("vacuum (freeze, analyze)")
    conn.execute("select set_config('statement_timeout', %s, false)", patience)


def numbers(ids: Iterable[Any]) -> tuple[int, ...]:
    """Return the numbers of memories, which end their ids."""
    return tuple(uuid.UUID(str(of)).int & 0xFFFFFFFF for of in ids)


class Ours:
    """memory_plugin.v1_search, as the sidecar calls it."""

    name = "memory-plugin"
    about = "select memory_plugin.v1_search(…), a namespace among others in one table"

    def __init__(self, url: str, patience_s: float) -> None:
        self.conn = impatient(url, patience_s)

    def load(self, corpora: Sequence[Corpus], vocabulary: Vocabulary) -> None:
        """Take over the memories, committed a second apart."""
        first = datetime(2026, 1, 1, tzinfo=timezone.utc)
        with patient(self.conn), indexes_away(self.conn, "memory_plugin", "memory_records", "gin"):
            for corpus in corpora:
                self.conn.execute(
                    "insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'team')", [corpus.name]
                )
                copy(
                    self.conn,
                    "memory_plugin.memory_records",
                    "namespace, id, content, kind, source, created_at",
                    (
                        (corpus.name, of.tobytes().hex(), content, KINDS[kind], "agent", first + timedelta(seconds=at))
                        for at, (of, content, kind) in enumerate(
                            zip(corpus.ids, corpus.contents(vocabulary), corpus.kinds, strict=True)
                        )
                    ),
                )

    def prepared(self, corpus: Corpus, question: Question, vocabulary: Vocabulary) -> Callable[[], Any]:
        """Prepare a search."""
        body: dict[str, Any] = {"namespaces": [corpus.name], "query": question.asked(vocabulary), "limit": LIMIT}
        if question.kind is not None:
            body["kinds"] = [KINDS[question.kind]]
        asked = [json.dumps(body)]
        return lambda: self.conn.execute("select memory_plugin.v1_search(%s)::text", asked).fetchall()

    def read(self, found: Any) -> Answer:
        """Read the JSON of an answer."""
        answer = json.loads(found[0][0])
        search = answer["search"]
        return Answer(numbers(of["id"] for of in answer["memories"]), search["exact"], search["candidates"])


class Plain:
    """A table with a GIN index on its words, any of which may match, ranked by ts_rank: it knows no rare words."""

    name = "plain SQL"
    about = "where content_tsv @@ … order by ts_rank(content_tsv, …), over the rows of memory-plugin, loaded after them"

    def __init__(self, url: str, patience_s: float) -> None:
        self.conn = impatient(url, patience_s)

    def load(self, corpora: Sequence[Corpus], vocabulary: Vocabulary) -> None:
        """Take over the memories from ours, which has made their words."""
        with patient(self.conn):
            self.conn.execute(
                "create table plain as select id, namespace, content, kind, expires_at, content_tsv "
                "from memory_plugin.memory_records"
            )
            self.conn.execute("create index on plain (namespace)")
            self.conn.execute("create index on plain using gin (content_tsv)")

    def prepared(self, corpus: Corpus, question: Question, vocabulary: Vocabulary) -> Callable[[], Any] | None:
        """Prepare a search; stop words alone are no question."""
        if question.text:
            return None
        parts = [*vocabulary[list(question.words)]]
        parts += [" <-> ".join(vocabulary[list(pair)]) for pair in question.phrases]
        asked = " | ".join(parts)
        if question.without is not None:
            asked = f"({asked}) & ! {vocabulary[question.without]}"
        statement = (
            "select id, content, ts_rank(content_tsv, q.q) as rank from plain, to_tsquery('english', %s) as q (q) "
            "where namespace = any (%s) and (expires_at is null or expires_at > now()) and content_tsv @@ q.q "
            "and (%s::text is null or kind = %s) order by rank desc limit %s"
        )
        kind = None if question.kind is None else KINDS[question.kind]
        values = [asked, [corpus.name], kind, kind, LIMIT]
        return lambda: self.conn.execute(statement, values).fetchall()

    def read(self, found: Any) -> Answer:
        """Read the rows of an answer."""
        return Answer(numbers(row[0] for row in found))


class TextSearch:
    """pg_textsearch, on a server of its own: a table and an index for each namespace."""

    name = "pg_textsearch"

    def __init__(self, url: str, patience_s: float) -> None:
        self.conn = impatient(url, patience_s)
        # An operator sees no filter and words only, so a namespace gets what is best for it: a table of its own.
        ((version,),) = self.conn.execute("select extversion from pg_extension where extname = 'pg_textsearch'")
        self.about = f"pg_textsearch {version}: order by content <@> …, a table and a bm25 index for each namespace"
        self.tables: dict[str, str] = {}

    def load(self, corpora: Sequence[Corpus], vocabulary: Vocabulary) -> None:
        """Take over the memories."""
        with patient(self.conn):
            for number, corpus in enumerate(corpora):
                table = self.tables[corpus.name] = f"memories_{number}"
                rows = zip(corpus.ids, corpus.contents(vocabulary), strict=True)
                self.conn.execute(f"create table {table} (id uuid, content text)".encode())
                copy(self.conn, table, "id, content", ((of.tobytes().hex(), content) for of, content in rows))
                options = f"text_config = 'english', k1 = {K1}, b = {B}"
                self.conn.execute(
                    f"create index {table}_bm25 on {table} using bm25 (content) with ({options})".encode()
                )

    def prepared(self, corpus: Corpus, question: Question, vocabulary: Vocabulary) -> Callable[[], Any] | None:
        """Prepare a search by words; it knows no phrases, no minus, and a filter only after the index."""
        if not question.plain or corpus.name not in self.tables:
            return None
        table = self.tables[corpus.name]
        statement = (
            f"select id, content, content <@> to_bm25query(%s, '{table}_bm25') as score from {table} "  # noqa: S608
            f"order by content <@> to_bm25query(%s, '{table}_bm25') limit {LIMIT}"
        ).encode()
        text = question.asked(vocabulary)
        return lambda: self.conn.execute(statement, [text, text]).fetchall()

    def read(self, found: Any) -> Answer:
        """Read the rows of an answer."""
        return Answer(numbers(row[0] for row in found))
