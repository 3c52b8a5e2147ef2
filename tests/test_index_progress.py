"""A migration that builds an index for long says how far it is, from what the server itself tells."""

from __future__ import annotations

import re

import psycopg
import pytest

from fixtures.installing import install, settings_for
from memory_plugin.installer import api, waiting

ROWS = """
insert into memory_plugin.memory_records (namespace, content, kind, source, embedding)
select 'team:a', 'memory ' || i, 'fact', 'agent', (
    select array_agg((random() - 0.5)::real) from generate_series(1, 64) as d where i > 0
)::memory_plugin.vector
from generate_series(1, 8000) as i
"""


@pytest.mark.servers("any")
def test_the_graph_of_a_filled_store_is_built_with_a_line_about_how_far_it_is(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(empty_database, dimensions=64)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("drop function memory_plugin._mirror_vector() cascade")
        connection.execute("drop table memory_plugin.memory_vectors")
        connection.execute("delete from memory_plugin.schema_migrations where name = '006_vectors'")
        connection.execute("select memory_plugin.upsert_namespace('team:a', 'team')")
        vector = connection.execute(
            "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
        ).fetchall()[0][0]
        connection.execute(ROWS.replace("memory_plugin.vector", f"{vector}.vector").encode())
    monkeypatch.setattr(waiting, "PROGRESS_S", 0.02)
    said: list[str] = []
    api.install(settings_for(empty_database), said.append)
    wanted = r"006_vectors: memory_vectors_embedding: building index.*, \d+% \([\d,]+ of [\d,]+ (rows|blocks)\)"
    assert any(re.fullmatch(wanted, line) for line in said), said
    assert said.count(next(line for line in said if line.startswith("applied 006_vectors"))) == 1
