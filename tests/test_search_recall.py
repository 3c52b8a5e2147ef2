"""The store measures its own search by embedding: how much of the exact answer it finds, and how fast."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

FILL = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, expires_at, embedding)
select %(n)s, md5(%(n)s || i)::uuid, 'memory ' || i, 'fact', 'agent', case when i %% 4 = 0 then now() end, (
    select array_agg(
        case d when 1 + i %% 7 then 3 else sin(d * i * 0.7 + i * i) end::real order by d
    )
    from generate_series(1, {dimensions}) as d
)::{vector}.vector
from generate_series(1, %(count)s) as i
"""


def fill(conn: psycopg.Connection[Any], name: str, count: int) -> None:
    """Write memories with embeddings, a quarter of them expired."""
    ((vector, dimensions),) = conn.execute(
        "select e.extnamespace::regnamespace::text, memory_plugin.stats() ->> 'dimensions' "
        "from pg_extension as e where e.extname = 'vector'"
    ).fetchall()
    conn.execute("select memory_plugin.upsert_namespace(%s, 'team')", [name])
    conn.execute(FILL.format(vector=vector, dimensions=dimensions).encode(), {"n": name, "count": count})


def measured(conn: psycopg.Connection[Any], names: list[str], sample: int = 100) -> list[dict[str, Any]]:
    """Return the rows of search_recall."""
    cursor = conn.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute("select * from memory_plugin.search_recall(%s, sample => %s)", [names, sample]).fetchall()


def test_each_namespace_and_all_together_are_measured(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "team:many", 60)
    fill(conn, "team:few", 3)
    conn.execute("select memory_plugin.upsert_namespace('team:none', 'team')")
    few, many, none, together = measured(
        conn, ["team:many", "team:few", "team:none", "team:absent", "team:many"], sample=20
    )
    assert [row["namespace"] for row in (few, many, none, together)] == ["team:few", "team:many", "team:none", None]
    assert [row["sampled"] for row in (few, many, none, together)] == [3, 20, 0, 23]
    for row in (few, many, together):
        assert row["recall"] == row["worst"] == 1
        assert row["search_ms"] > 0
        assert row["exact_ms"] > 0
    assert none | {"namespace": "team:none", "sampled": 0} == dict.fromkeys(none) | {
        "namespace": "team:none",
        "sampled": 0,
    }


def test_what_search_misses_is_seen(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "team:many", 60)
    # A search that takes the first rows by id for the nearest.
    conn.execute("""
        create or replace function memory_plugin._semantic_candidates(
            p_namespaces text[], p_embedding {vector}.vector, p_filter memory_plugin._filter, p_limit integer,
            p_closely boolean,
            out candidates memory_plugin._candidate[], out scored bigint, out exact boolean
        ) language sql stable as $$
            select array_agg(row(r.namespace, r.id, 0.5)::memory_plugin._candidate), 1::bigint, false
            from (
                select v.namespace, v.id from memory_plugin.memory_vectors as v
                where v.namespace = any (p_namespaces) and (v.expires_at is null or v.expires_at > now())
                order by v.id limit p_limit
            ) as r
        $$
    """.replace("{vector}", conn.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
    ).fetchall()[0][0]).encode())  # fmt: skip
    many, together = measured(conn, ["team:many"])
    assert many["sampled"] == together["sampled"] == 45
    assert 0 < many["recall"] < 0.5
    assert many["worst"] < many["recall"]


def test_the_same_memories_are_asked_each_time(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "team:many", 60)
    first, second = (measured(conn, ["team:many"], 5)[0] for _ in range(2))
    assert {k: first[k] for k in ("sampled", "recall", "worst")} == {
        k: second[k] for k in ("sampled", "recall", "worst")
    }


@pytest.mark.parametrize(
    ("names", "sample", "message"),
    [
        ([], 1, "namespaces must name at least one namespace"),
        (None, 1, "namespaces must name at least one namespace"),
        (["nonsense"], 1, "namespaces must match"),
        (["team:a"], 0, "sample must be between 1 and 1000"),
        (["team:a"], 1001, "sample must be between 1 and 1000"),
        (["team:a"], None, "sample must be between 1 and 1000"),
    ],
)
def test_a_bad_argument_is_refused(conn: psycopg.Connection[Any], names: Any, sample: Any, message: str) -> None:
    with pytest.raises(psycopg.Error, match=message) as caught:
        measured(conn, names, sample)
    assert caught.value.sqlstate == "MP001"


def test_it_runs_in_a_read_only_transaction(conn: psycopg.Connection[Any]) -> None:
    fill(conn, "team:many", 30)
    with conn.transaction():
        conn.execute("set transaction read only")
        assert measured(conn, ["team:many"])[1]["recall"] == 1
