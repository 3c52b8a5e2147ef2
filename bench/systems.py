"""The systems that are compared: ours, plain SQL, LangGraph's PostgresStore, mem0's pgvector store.

Each is used through its own interface, on one connection. Their tables are made by their own set-up and filled by one
`insert ... select` with the HNSW index away, which is made again from its own definition: the same rows as by their own
writes, in minutes instead of hours; the writes themselves are timed one by one.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import psycopg
from psycopg import sql
from rows import Floats, literal

LIMIT = 10


class System(Protocol):
    """What is asked of a system; ids are row numbers."""

    name: str
    about: str

    def load(self) -> None:
        """Take over the rows of bench_rows."""

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding; what is returned is timed."""

    def words(self, namespace: str, text: str) -> Callable[[], list[int]] | None:
        """Prepare a search by words; None: the system has none."""

    def both(self, namespace: str, text: str, vector: Floats) -> Callable[[], list[int]] | None:
        """Prepare a search by words and embedding; None: the system has none."""

    def commit(self, namespace: str, content: str, vector: Floats) -> Callable[[], object]:
        """Prepare a write of one memory with its embedding."""


def connect(url: str) -> psycopg.Connection[Any]:
    """Return a connection that prepares no statements, as ours are made."""
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


def put(conn: psycopg.Connection[Any], settings: dict[str, str]) -> None:
    """Set what a system is measured with."""
    for key, value in settings.items():
        conn.execute("select set_config(%s, %s, false)", [key, value])


def numbers(found: list[tuple[Any, ...]]) -> list[int]:
    """Return the row numbers of ids."""
    return [uuid.UUID(str(row[0])).int for row in found]


def any_word(text: str) -> str:
    """Return a tsquery that any of the words satisfies."""
    return " | ".join(re.findall(r"\w+", text)) or "''"


@contextmanager
def indexes_away(conn: psycopg.Connection[Any], schema: str, tables: str = "%", method: str = "hnsw") -> Iterator[None]:
    """Drop the indexes of a method of some tables, and make them again at the end, with memory and both cores."""
    found = conn.execute(
        "select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) from pg_index as i "
        "inner join pg_class as c on c.oid = i.indexrelid inner join pg_am as a on a.oid = c.relam "
        "inner join pg_class as t on t.oid = i.indrelid inner join pg_namespace as n on n.oid = t.relnamespace "
        "where a.amname = %s and n.nspname = %s and t.relname like %s order by 1",
        [method, schema, tables],
    ).fetchall()
    for name, _ in found:
        conn.execute(f"drop index {name}".encode())
    yield
    conn.execute("set maintenance_work_mem = '2GB'")
    conn.execute("set max_parallel_maintenance_workers = 1")
    for _, definition in found:
        conn.execute(definition.encode())


class Ours:
    """memory_plugin.search and memory_plugin.commit_memory."""

    name = "memory-plugin"

    def __init__(self, url: str, settings: dict[str, str] | None = None) -> None:
        self.conn = connect(url)
        self.about = "select … from memory_plugin.search(array[…], embedding => …)"
        put(self.conn, settings or {})

    def load(self) -> None:
        """Take over the rows of bench_rows."""
        with indexes_away(self.conn, "memory_plugin"):
            self.conn.execute(
                "insert into memory_plugin.memory_namespaces (name, kind) "
                "select distinct namespace, 'team' from bench_rows"
            )
            self.conn.execute(
                "insert into memory_plugin.memory_records (id, namespace, content, kind, source, embedding) "
                "select id, namespace, content, 'fact', 'agent', embedding from bench_rows"
            )

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding."""
        asked = [namespace, literal(vector), LIMIT]
        statement = "select id, content, score from memory_plugin.search(array[%s], embedding => %s, max_results => %s)"
        return lambda: numbers(self.conn.execute(statement, asked).fetchall())

    def words(self, namespace: str, text: str) -> Callable[[], list[int]]:
        """Prepare a search by words."""
        statement = "select id, content, score from memory_plugin.search(array[%s], query => %s, max_results => %s)"
        return lambda: numbers(self.conn.execute(statement, [namespace, text, LIMIT]).fetchall())

    def both(self, namespace: str, text: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by words and embedding."""
        statement = (
            "select id, content, score from memory_plugin.search("
            "array[%s], query => %s, embedding => %s, max_results => %s)"
        )
        asked = [namespace, text, literal(vector), LIMIT]
        return lambda: numbers(self.conn.execute(statement, asked).fetchall())

    def commit(self, namespace: str, content: str, vector: Floats) -> Callable[[], object]:
        """Prepare a write."""
        written = [namespace, content, literal(vector)]
        return lambda: self.conn.execute("select memory_plugin.commit_memory(%s, %s, embedding => %s)", written)


class Plain:
    """A table with a column for each field, and the usual indexes; what one writes first."""

    def __init__(self, url: str, name: str = "plain SQL", settings: dict[str, str] | None = None, by: str = "") -> None:
        self.name = name
        self.about = "; ".join([*(f"set {key} = {value}" for key, value in (settings or {}).items()), by]).strip("; ")
        self.conn = connect(url)
        put(self.conn, settings or {})

    def load(self) -> None:
        """Take over the rows of bench_rows."""
        column = self.conn.execute("select vector_dims(embedding) from bench_rows limit 1").fetchone()
        dimensions = column[0] if column else 0
        self.conn.execute(
            sql.SQL(
                "create table plain (id uuid primary key, namespace text not null, content text not null, "
                "kind text not null, source text not null, expires_at timestamptz, pin boolean not null default false, "
                "embedding vector({}), created_at timestamptz not null default now(), "
                "content_tsv tsvector generated always as (to_tsvector('english', content)) stored)"
            ).format(sql.Literal(dimensions))
        )
        self.conn.execute("create index on plain (namespace)")
        self.conn.execute("create index on plain using gin (content_tsv)")
        self.conn.execute("create index on plain using hnsw (embedding vector_cosine_ops)")
        with indexes_away(self.conn, "public", "plain"):
            self.conn.execute(
                "insert into plain (id, namespace, content, kind, source, embedding) "
                "select id, namespace, content, 'fact', 'agent', embedding from bench_rows"
            )

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding."""
        asked = literal(vector)
        statement = (
            "select id, content, 1 - (embedding <=> %s) from plain "
            "where namespace = any (%s) and (expires_at is null or expires_at > now()) "
            "order by embedding <=> %s limit %s"
        )
        return lambda: numbers(self.conn.execute(statement, [asked, [namespace], asked, LIMIT]).fetchall())

    def words(self, namespace: str, text: str) -> Callable[[], list[int]]:
        """Prepare a search by any of the words, ranked by ts_rank."""
        statement = (
            "select id, content, ts_rank(content_tsv, q.q) as rank "
            "from plain, to_tsquery('english', %s) as q (q) where namespace = any (%s) "
            "and (expires_at is null or expires_at > now()) and content_tsv @@ q.q order by rank desc limit %s"
        )
        return lambda: numbers(self.conn.execute(statement, [any_word(text), [namespace], LIMIT]).fetchall())

    def both(self, namespace: str, text: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare both searches, fifty rows each, joined by reciprocal rank."""
        statement = (
            "with words as (select id, row_number() over (order by ts_rank(content_tsv, q.q) desc) as place "
            "from plain, to_tsquery('english', %(words)s) as q (q) where namespace = any (%(namespaces)s) "
            "and (expires_at is null or expires_at > now()) and content_tsv @@ q.q order by place limit 50), "
            "near as (select id, row_number() over () as place from (select id from plain "
            "where namespace = any (%(namespaces)s) and (expires_at is null or expires_at > now()) "
            "order by embedding <=> %(vector)s limit 50) as n) "
            "select id, p.content, coalesce(1.0 / (60 + w.place), 0) + coalesce(1.0 / (60 + n.place), 0) as score "
            "from words as w full join near as n using (id) join plain as p using (id) "
            "order by score desc limit %(limit)s"
        )
        asked = {"words": any_word(text), "namespaces": [namespace], "vector": literal(vector), "limit": LIMIT}
        return lambda: numbers(self.conn.execute(statement, asked).fetchall())

    def commit(self, namespace: str, content: str, vector: Floats) -> Callable[[], object]:
        """Prepare a write."""
        statement = (
            "insert into plain (id, namespace, content, kind, source, embedding) "
            "values (gen_random_uuid(), %s, %s, 'fact', 'agent', %s)"
        )
        written = [namespace, content, literal(vector)]
        return lambda: self.conn.execute(statement, written)


class Unfiltered(Plain):
    """The graph without any filter: what the machine gives at best, and not an answer to the question."""

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding in the whole table."""
        asked = literal(vector)
        statement = "select id, content, 1 - (embedding <=> %s) from plain order by embedding <=> %s limit %s"
        return lambda: numbers(self.conn.execute(statement, [asked, asked, LIMIT]).fetchall())


class Exact(Plain):
    """Every row of the namespace measured: the true answer, by the filter's index."""

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search that no vector index serves."""
        asked = literal(vector)
        statement = (
            "select id, content, 1 - (embedding <=> %s) from plain where namespace = any (%s) "
            "and (expires_at is null or expires_at > now()) order by (embedding <=> %s) + 0, id limit %s"
        )
        return lambda: numbers(self.conn.execute(statement, [asked, [namespace], asked, LIMIT]).fetchall())


class LangGraph:
    """PostgresStore of langgraph-checkpoint-postgres, its index as its set-up makes it."""

    package = "langgraph-checkpoint-postgres"

    def __init__(self, url: str, dimensions: int, stack: ExitStack) -> None:
        from langgraph.store.postgres import PostgresStore

        self.name = "LangGraph PostgresStore"
        self.about = f"{self.package} {importlib.metadata.version(self.package)}: store.search(namespace, query=…)"
        self.vectors: dict[str, list[float]] = {}
        opened: AbstractContextManager[Any] = PostgresStore.from_conn_string(
            url, index={"dims": dimensions, "embed": self._embed, "fields": ["text"]}
        )
        self.store = stack.enter_context(opened)
        self.store.setup()
        self.url = url

    def _embed(self, texts: Any) -> list[list[float]]:
        """Look the embedding up: making it is no part of what is measured."""
        return [self.vectors[text] for text in texts]

    def load(self) -> None:
        """Take over the rows of bench_rows."""
        with connect(self.url) as conn, indexes_away(conn, "public", "store_vectors"):
            conn.execute(
                "insert into store (prefix, key, value) "
                "select replace(namespace, ':', '.'), id::text, jsonb_build_object('text', content) from bench_rows"
            )
            conn.execute(
                "insert into store_vectors (prefix, key, field_name, embedding) "
                "select replace(namespace, ':', '.'), id::text, 'text', embedding from bench_rows"
            )

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding."""
        self.vectors["asked"] = vector.tolist()
        path = tuple(namespace.split(":"))
        return lambda: [uuid.UUID(item.key).int for item in self.store.search(path, query="asked", limit=LIMIT)]

    def words(self, namespace: str, text: str) -> None:
        """Say that there is no search by words."""

    def both(self, namespace: str, text: str, vector: Floats) -> None:
        """Say that there is no search by words."""

    def commit(self, namespace: str, content: str, vector: Floats) -> Callable[[], object]:
        """Prepare a write."""
        self.vectors[content] = vector.tolist()
        path = tuple(namespace.split(":"))
        return lambda: self.store.put(path, str(uuid.uuid4()), {"text": content})


class Mem0:
    """mem0.vector_stores.pgvector.PGVector, the memory's namespace as its user_id.

    Its Memory class turns words into lemmas where spaCy's model is installed; here they are as where it is not.
    """

    package = "mem0ai"

    def __init__(self, url: str, dimensions: int, stack: ExitStack) -> None:
        # It would write a folder into the home and report each use over the network.
        os.environ["MEM0_TELEMETRY"] = "False"
        os.environ["MEM0_DIR"] = stack.enter_context(tempfile.TemporaryDirectory())
        from mem0.vector_stores.pgvector import PGVector

        self.name = "mem0 pgvector"
        version = importlib.metadata.version(self.package)
        self.about = f"{self.package} {version}: PGVector.search(…, filters={{'user_id': …}})"
        self.store = PGVector(
            dbname=None,
            collection_name="mem0_memories",
            embedding_model_dims=dimensions,
            user=None,
            password=None,
            host=None,
            port=None,
            diskann=False,
            hnsw=True,
            connection_string=url,
        )
        stack.callback(self.store.connection_pool.close)
        self.store.create_col()
        self.url = url

    def load(self) -> None:
        """Take over the rows of bench_rows, its payload as its Memory class writes it."""
        with connect(self.url) as conn, indexes_away(conn, "public", "mem0_memories"):
            conn.execute(
                "insert into mem0_memories (id, vector, payload) "
                "select id, embedding, jsonb_build_object('data', content, 'text_lemmatized', content, "
                "'user_id', namespace, 'created_at', now()) from bench_rows"
            )

    def nearest(self, namespace: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by embedding."""
        asked = vector.tolist()

        def search() -> list[int]:
            found = self.store.search("", asked, top_k=LIMIT, filters={"user_id": namespace})
            return [uuid.UUID(hit.id).int for hit in found]

        return search

    def words(self, namespace: str, text: str) -> Callable[[], list[int]]:
        """Prepare a search by words: all of them must occur."""

        def search() -> list[int]:
            found = self.store.keyword_search(text, top_k=LIMIT, filters={"user_id": namespace})
            return [uuid.UUID(hit.id).int for hit in found or []]

        return search

    def both(self, namespace: str, text: str, vector: Floats) -> Callable[[], list[int]]:
        """Prepare a search by words and embedding, joined as its Memory class joins them (entities left out)."""
        from mem0.utils import scoring

        asked = vector.tolist()
        of = {"user_id": namespace}

        def search() -> list[int]:
            pool = max(LIMIT * 4, 60)
            near = self.store.search(text, asked, top_k=pool, filters=of)
            worded = self.store.keyword_search(text, top_k=pool, filters=of) or []
            middle, steepness = scoring.get_bm25_params(text, lemmatized=text)
            scored = scoring.score_and_rank(
                semantic_results=[{"id": hit.id, "score": hit.score, "payload": hit.payload} for hit in near],
                bm25_scores={hit.id: scoring.normalize_bm25(hit.score, middle, steepness) for hit in worded},
                entity_boosts={},
                threshold=0.1,
                top_k=LIMIT,
            )
            return [uuid.UUID(hit["id"]).int for hit in scored]

        return search

    def commit(self, namespace: str, content: str, vector: Floats) -> Callable[[], object]:
        """Prepare a write."""
        payload = {"data": content, "text_lemmatized": content, "user_id": namespace}
        asked = vector.tolist()
        return lambda: self.store.insert([asked], [payload], [str(uuid.uuid4())])


def opened(url: str, dimensions: int, stack: ExitStack) -> tuple[list[System], dict[str, str]]:
    """Open every system whose package is installed; say by name which are not."""
    systems: list[System] = [Ours(url), Plain(url)]
    skipped = {}
    for other, module in ((LangGraph, "langgraph.store.postgres"), (Mem0, "mem0")):
        if _importable(module):
            systems.append(other(url, dimensions, stack))
        else:
            skipped[other.package] = "not installed (make bench installs it)"
    return systems, skipped


def _importable(module: str) -> bool:
    """Tell whether a module is there, without running it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def variants(url: str) -> list[System]:
    """Return plain SQL in other settings, over the table that `Plain` made."""
    exact = Exact(url, "plain SQL, exact scan", by="order by (embedding <=> $1) + 0")
    with connect(url) as conn:
        if not iterates(conn):
            return [exact]
    return [Plain(url, "plain SQL, iterative scan", {"hnsw.iterative_scan": "relaxed_order"}), exact]


def iterates(conn: psycopg.Connection[Any]) -> bool:
    """Tell whether this pgvector has the iterative scan, which came with 0.8."""
    row = conn.execute("select extversion from pg_extension where extname = 'vector'").fetchone()
    return row is not None and [int(part) for part in row[0].split(".")[:2]] >= [0, 8]


def as_json(value: object) -> str:
    """Return JSON as it is kept: indented, so that runs can be compared line by line."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
