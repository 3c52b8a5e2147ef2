"""A store with memories in topics, and what a search by embedding finds in it beside comparing every row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from fixtures.databases import fresh_database
from fixtures.installing import install
from fixtures.server import Server

Connection = psycopg.Connection[Any]

# Topics in a hundred dimensions, the rest of the vector noise: a row is near to those of its topic.
FILL = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, expires_at, created_at, embedding)
select
    %(namespace)s, md5(%(namespace)s || i)::uuid, 'memory ' || i,
    case when i %% 10 = 0 then 'checkpoint' when i %% 3 = 0 then 'summary' else 'fact' end,
    case when i %% 5 = 0 then 'user' else 'agent' end,
    case when i %% 4 = 1 then '2020-01-01'::timestamptz end,
    '2024-01-01'::timestamptz + i * interval '1 minute',
    (
        select array_agg(
            sin(d * 7.3 + (i %% 12) * 1.7)::real
            + (1.6 * random() - 0.8)::real
            order by d
        )
        from generate_series(0, {dimensions} - 1) as d
    )::{vector}.vector
from generate_series(%(first)s, %(last)s) as i
"""
EXACT = """
select r.namespace || ' ' || r.id
from memory_plugin.memory_records as r
where r.namespace = any (%(namespaces)s) and r.embedding is not null
    and (r.expires_at is null or r.expires_at > now())
    and (%(kinds)s::text[] is null or r.kind = any (%(kinds)s))
    and (%(sources)s::text[] is null or r.source = any (%(sources)s))
    and (%(after)s::timestamptz is null or r.created_at > %(after)s)
    and (%(before)s::timestamptz is null or r.created_at < %(before)s)
order by (r.embedding operator({vector}.<=>) %(embedding)s::{vector}.vector) + 0, r.created_at desc, r.id
limit %(limit)s
"""
FOUND = """
select h.namespace || ' ' || h.id
from memory_plugin.search(
    %(namespaces)s, embedding => %(embedding)s::{vector}.vector, kinds => %(kinds)s, max_results => %(limit)s,
    sources => %(sources)s, created_after => %(after)s, created_before => %(before)s
) as h
"""
SMALL, MIDDLING, LARGE = "workspace:small", "team:middling", "org:large"
SIZES = {SMALL: 60, MIDDLING: 900, LARGE: 8400}
DIMENSIONS = 96


class Store:
    """A database of ours and what one asks of it."""

    def __init__(self, connection: Connection, dimensions: int) -> None:
        """Look where pgvector is."""
        self.connection = connection
        self.dimensions = dimensions
        place = "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
        self.vector: str = self.connection.execute(place).fetchone()[0]  # type: ignore[index]

    def run(self, text: str, **values: Any) -> list[Any]:
        """Run a statement with the places of the text filled in; return its first column."""
        query = text.format(vector=self.vector, dimensions=self.dimensions)
        cursor = psycopg.ClientCursor(self.connection).execute(query.encode(), values)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def fill(self, namespace: str, last: int, first: int = 1) -> None:
        """Write memories `first` to `last` of a namespace, a quarter of them expired."""
        self.run(
            "insert into memory_plugin.memory_namespaces (name, kind) values (%(n)s, 'custom') on conflict do nothing",
            n=namespace,
        )
        self.run("select setseed(0.5)")
        self.run(FILL, namespace=namespace, first=first, last=last)

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Take the graph away while rows are written, since building it for many at once is much faster."""
        index = "memory_plugin.memory_vectors_embedding"
        definition = self.run("select pg_get_indexdef(%(i)s::regclass)", i=index)[0]
        self.connection.execute(f"drop index {index}".encode())
        yield
        self.connection.execute(definition)
        self.connection.execute("analyze")

    def embedding(self, namespace: str, number: int) -> str:
        """Return the embedding of a memory."""
        found = self.run(
            "select embedding::text from memory_plugin.memory_records "
            "where namespace = %(n)s and id = md5(%(n)s || %(i)s)::uuid",
            n=namespace,
            i=str(number),
        )
        return str(found[0])

    def both(
        self, namespaces: Sequence[str], embedding: str, limit: int = 10, **filters: Any
    ) -> tuple[list[str], list[str]]:
        """Return what search finds and what comparing every row finds."""
        values = {"kinds": None, "sources": None, "after": None, "before": None, **filters}
        values |= {"namespaces": list(namespaces), "embedding": embedding, "limit": limit}
        return self.run(FOUND, **values), self.run(EXACT, **values)

    def answer(self, namespaces: Sequence[str], embedding: str, limit: int = 10, source: str = "") -> dict[str, Any]:
        """Return how a search over v1 says that it was found."""
        body = (
            "json_build_object('namespaces', %(n)s::text[], 'embedding', %(e)s::json, 'limit', %(l)s::int, "
            "'source', nullif(%(s)s, ''))"
        )
        query = f"select (memory_plugin.v1_search({body}) -> 'search')::jsonb"
        return dict(self.run(query, n=list(namespaces), e=embedding, l=limit, s=source)[0])

    def copies(self) -> tuple[int, int]:
        """Return how many rows should have a copy and do not have just it, and how many copies have no row."""
        return tuple(
            self.run(
                """
            select array[
                count(*) filter (where r.id is not null and (v.id is null or
                    (v.kind, v.source, v.expires_at, v.created_at)
                        is distinct from (r.kind, r.source, r.expires_at, r.created_at)
                    or 1 - (subvector(v.embedding, 1, {dimensions}) operator({vector}.<#>)
                        l2_normalize(r.embedding)::{vector}.halfvec) * -1 > 0.01)),
                count(*) filter (where r.id is null)
            ]
            from (select * from memory_plugin.memory_records where embedding is not null) as r
            full join memory_plugin.memory_vectors as v on v.namespace = r.namespace and v.id = r.id
        """.replace("subvector", "{vector}.subvector").replace("l2_normalize", "{vector}.l2_normalize")
            )[0]
        )


@contextmanager
def filled_store(server: Server, dimensions: int, sizes: Mapping[str, int]) -> Iterator[Store]:
    """Make a database of ours with namespaces of so many memories, analyzed; drop it afterwards."""
    with fresh_database(server) as url:
        install(url, dimensions=dimensions)
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
            store = Store(connection, dimensions)
            with store.bulk():
                for name, size in sizes.items():
                    store.fill(name, size)
            yield store


def recall(found: list[str], exact: list[str]) -> float:
    """Return how much of the exact answer was found."""
    assert len(found) == len(set(found)) == len(exact)
    return len(set(found) & set(exact)) / len(exact) if exact else 1
