"""How long each memory is: kept as the memories are, whoever writes them and however, and counted in every search."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from fixtures.installing import install, install_beside, kill_install, rows, settings_for
from memory_plugin.installer import api

Connection = psycopg.Connection[Any]

# What differs between the memories and their lengths: nothing, it is hoped.
WRONG = """
select coalesce(r.namespace, l.namespace), coalesce(r.id, l.id), l.words, r.expires_at, l.expires_at
from memory_plugin.memory_records as r
full join memory_plugin.memory_lengths as l on r.namespace = l.namespace and r.id = l.id
where r.id is null or l.id is null or r.expires_at is distinct from l.expires_at
    or l.words <> coalesce((
        select sum(cardinality(u.positions)) from unnest(r.content_tsv) as u (lexeme, positions, weights)
    ), 0)
"""
FILL = """
insert into memory_plugin.memory_records (namespace, id, content, kind, source, expires_at)
select
    %(n)s, md5(%(n)s || i)::uuid, repeat('word' || i %% 50 || ' and ', i %% 30 + 1), 'fact', 'agent',
    case when i %% 4 = 0 then timestamptz '2020-01-01' end
from generate_series(1, %(count)s) as i
"""


def wrong(conn: Connection) -> list[tuple[Any, ...]]:
    """Return the memories whose length is not kept as it should be."""
    return conn.execute(WRONG).fetchall()


def fill(conn: Connection, name: str, count: int) -> None:
    """Write memories of one to thirty words, a quarter of them expired."""
    conn.execute(
        "insert into memory_plugin.memory_namespaces (name, kind) values (%s, 'team') on conflict do nothing", [name]
    )
    conn.execute(FILL, {"n": name, "count": count})


def test_keeping_lengths_changes_no_setting_of_the_callers_transaction(conn: Connection) -> None:
    fill(conn, "team:a", 2)
    setting = "select current_setting('enable_seqscan'), current_setting('lock_timeout')"
    with conn.transaction():
        before = conn.execute(setting).fetchall()
        conn.execute("update memory_plugin.memory_records set content = 'other'")
        conn.execute("delete from memory_plugin.memory_records")
        assert conn.execute(setting).fetchall() == before


def test_lengths_are_kept_whatever_is_done_to_memories(conn: Connection) -> None:
    fill(conn, "team:a", 40)
    assert wrong(conn) == []
    ((identifier,),) = conn.execute(
        "select memory_plugin.commit_memory('team:a', 'one two three', id => gen_random_uuid())"
    ).fetchall()
    length = "select words, expires_at is null from memory_plugin.memory_lengths where id = %s"
    assert conn.execute(length, [identifier]).fetchall() == [(3, True)]
    conn.execute("select memory_plugin.commit_memory('team:a', 'one two three four', id => %s)", [identifier])
    assert conn.execute(length, [identifier]).fetchall() == [(4, True)]
    conn.execute(
        "select memory_plugin.commit_memory('team:a', 'one', id => %s, expires_at => now() + interval '1 day')",
        [identifier],
    )
    assert conn.execute(length, [identifier]).fetchall() == [(1, False)]
    body = json.dumps({"content": "two words", "kind": "fact", "source": "agent"})
    conn.execute("select memory_plugin.v1_commit_memories(array['team:a', 'team:a'], array[%s, %s])", [body, body])
    assert wrong(conn) == []
    # By hand, as an operator may: keys, content, expiry.
    conn.execute("insert into memory_plugin.memory_namespaces (name, kind) values ('team:b', 'team')")
    for change in (
        "namespace = 'team:b' where namespace = 'team:a' and content like 'word1 %'",
        "id = gen_random_uuid() where content like 'word2 %'",
        "content = 'the shortest of all' where content like 'word3 %'",
        "expires_at = null where expires_at is not null",
        "pin = true",
    ):
        changed = conn.execute(f"update memory_plugin.memory_records set {change}".encode())
        assert changed.rowcount > 0, change
        assert wrong(conn) == [], change
    conn.execute(
        "select memory_plugin.forget_memory(id, 'team:a') "
        "from memory_plugin.memory_records where namespace = 'team:a' limit 1"
    )
    conn.execute("update memory_plugin.memory_records set expires_at = '2020-01-01' where content like 'word4 %'")
    conn.execute("select memory_plugin.sweep()")
    conn.execute("select memory_plugin.delete_namespace('team:b')")
    while conn.execute("select memory_plugin.sweep()").fetchall() != [(0,)]:
        pass
    assert wrong(conn) == []
    assert conn.execute("select count(*) > 0 from memory_plugin.memory_lengths").fetchall() == [(True,)]
    conn.execute("truncate memory_plugin.memory_records cascade")
    assert conn.execute("select count(*) from memory_plugin.memory_lengths").fetchall() == [(0,)]


def test_what_is_undone_leaves_no_length(conn: Connection) -> None:
    fill(conn, "team:a", 3)
    with conn.transaction(force_rollback=True):
        fill(conn, "team:b", 30)
        conn.execute("update memory_plugin.memory_records set content = 'apples'")
        assert conn.execute("select distinct words from memory_plugin.memory_lengths").fetchall() == [(1,)]
    assert wrong(conn) == []
    assert conn.execute("select count(*) from memory_plugin.memory_lengths").fetchall() == [(3,)]


def test_a_search_counts_live_memories_of_its_namespaces_without_reading_them(conn: Connection, database: str) -> None:
    fill(conn, "team:a", 4000)
    fill(conn, "team:b", 1500)
    conn.execute("vacuum (analyze) memory_plugin.memory_lengths")
    live = (
        "select r.namespace, count(*), sum(l.words) from memory_plugin.memory_records as r "
        "inner join memory_plugin.memory_lengths as l using (namespace, id) "
        "where r.expires_at is null group by r.namespace order by 1"
    )
    ((_, many, words), (_, some, more)) = conn.execute(live).fetchall()
    assert (many, some) == (3000, 1125)
    counted = "select names, memories, total, average, counted from memory_plugin._lexical_lengths(%s, %s)"
    both = ["team:b", "team:a", "team:none"]
    ((names, memories, total, average, whole),) = conn.execute(counted, [both, 5500]).fetchall()
    assert dict(zip(names, memories, strict=True)) == {"team:a": 3000, "team:b": 1125}
    assert (total, whole) == (4125, True)
    assert average == pytest.approx((words + more) / 4125)
    # Expired ones count for the bound: a search would pass by them.
    assert conn.execute(counted, [both, 5499]).fetchall()[0][4] is False
    assert conn.execute(counted, [["team:none"], 10]).fetchall() == [(None, None, 1, 1, True)]
    with psycopg.connect(database) as fresh:
        fresh.execute("select memory_plugin._lexical_lengths(%s, 10000)", [both])
        scans = "select seq_scan + coalesce(idx_scan, 0) from pg_stat_xact_user_tables where relname = %s"
        assert fresh.execute(scans, ["memory_records"]).fetchall() in ([], [(0,)])
        assert fresh.execute(scans, ["memory_lengths"]).fetchall() != [(0,)]


def undo(conn: Connection) -> None:
    """Bring a store back to before lengths were kept."""
    conn.execute("drop table memory_plugin.memory_lengths cascade")
    conn.execute("drop function memory_plugin._mirror_length() cascade")
    conn.execute("delete from memory_plugin.schema_migrations where name = '011_lengths'")


@pytest.mark.servers("any")
def test_the_memories_of_an_earlier_version_get_their_lengths_beside_writers(empty_database: str) -> None:
    install(empty_database)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as conn:
        fill(conn, "team:a", 9000)
        undo(conn)
        # A memory of the third batch, and so the table against the trigger.
        held = (
            "update memory_plugin.memory_records set pin = true where (namespace, id) = "
            "(select namespace, id from memory_plugin.memory_records order by 1, 2 limit 1 offset 5000)"
        )

        def write(number: int) -> None:
            conn.execute(
                "update memory_plugin.memory_records set content = content || ' more', expires_at = null "
                "where namespace = 'team:a' and id = md5('team:a' || %s)::uuid and not pin",
                [number * 7 % 9000 + 1],
            )
            conn.execute(
                "insert into memory_plugin.memory_records (namespace, content, kind, source) "
                "values ('team:a', 'written meanwhile', 'fact', 'user')"
            )

        install_beside(empty_database, held, write)
        assert wrong(conn) == []
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
def test_an_install_killed_while_it_counts_goes_on(empty_database: str) -> None:
    install(empty_database)
    with psycopg.connect(empty_database, autocommit=True, prepare_threshold=None) as conn:
        fill(conn, "team:a", 30_000)
        undo(conn)
        begun = "select coalesce(pg_relation_size(to_regclass('memory_plugin.memory_lengths')), 0)"
        kill_install(empty_database, conn, begun)
        assert rows(empty_database, "select from memory_plugin.schema_migrations where name = '011_lengths'") == []
        assert conn.execute("select count(*) < 30000 from memory_plugin.memory_lengths").fetchall() == [(True,)]
        conn.execute("delete from memory_plugin.memory_records where content like 'word7 %'")
        fill(conn, "team:b", 50)
        install(empty_database)
        assert wrong(conn) == []
    assert api.verify_store(settings_for(empty_database)).differences == ()


@pytest.mark.servers("any")
def test_a_search_gives_the_same_scores_as_before_lengths_were_kept(conn: Connection) -> None:
    """Of more than a thousand memories the average length comes from here, of fewer from the texts themselves."""
    conn.execute("insert into memory_plugin.memory_namespaces (name, kind) values ('team:many', 'team')")
    conn.execute(
        "insert into memory_plugin.memory_records (namespace, content, kind, source) "
        "select 'team:many', 'rare' || i % 600 || repeat(' filler' || i % 7, 1 + i % 40), 'fact', 'agent' "
        "from generate_series(1, 1200) as i"
    )
    answer = "select score from memory_plugin.search(array['team:many'], 'rare5', max_results => 3)"
    many = [row[0] for row in conn.execute(answer).fetchall()]
    texts = (
        "select avg((select sum(cardinality(u.positions)) from unnest(content_tsv) as u (l, positions, w))) "
        "from memory_plugin.memory_records"
    )
    ((average,),) = conn.execute(texts).fetchall()
    weight = conn.execute("select ln(1201 / 2.5)").fetchall()[0][0]
    lengths = (
        "select l.words from memory_plugin.memory_lengths as l "
        "inner join memory_plugin.memory_records as r using (namespace, id) where r.content_tsv @@ 'rare5' order by 1"
    )
    wanted = [
        float(weight) * 2.2 / (1 + 1.2 * (0.7 + 0.3 * words / float(average)))
        for (words,) in conn.execute(lengths).fetchall()
    ]
    assert many == pytest.approx(sorted(wanted, reverse=True))
