"""From every earlier state of the schema, with memories in it, an install arrives where a fresh one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import connected, dump, install, psql, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api, plan, script, sources

NAMES = [migration.name for migration in sources.load().migrations]
# A namespace that lives, one that expired; memories of each kind, with and without what may be absent.
FILL = """
insert into memory_plugin.memory_namespaces (name, kind, expires_at, metadata, created_at) values
    ('workspace:a', 'workspace', null, '{"owner": "ada"}', '2025-01-01'),
    ('team:gone', 'team', '2025-02-01', null, '2025-01-01');
insert into memory_plugin.memory_records
    (id, namespace, content, kind, source, expires_at, propagation, pin, embedding, created_at)
select
    md5(i::text)::uuid, case when i % 5 = 0 then 'team:gone' else 'workspace:a' end, 'memory number ' || i || ' ünï',
    (array['fact', 'summary', 'checkpoint'])[i % 3 + 1], (array['agent', 'runtime', 'user'])[i % 3 + 1],
    case when i % 7 = 0 then timestamptz '2999-01-01' end, case when i % 4 = 0 then '{"to": [1, 2.5]}'::jsonb end,
    i % 6 = 0,
    case when i % 2 = 0 then (
        select array_agg(sin(i * d)::real order by d)::memory_plugin.vector from generate_series(1, 1536) as d
    ) end,
    timestamptz '2025-01-01' + i * interval '1 minute'
from generate_series(1, 200) as i;
"""
MEMORIES = """
select to_jsonb(r) - 'content_tsv' - 'embedding', r.embedding::text
from memory_plugin.memory_records as r order by r.id
"""


def at_state(server: Server, url: str, name: str, folder: Path) -> None:
    """Bring an empty database to where the migrations up to and with this one leave it."""
    source = sources.load()
    values = sources.placeholders("memory_plugin", plan.DEFAULT_DIMENSIONS, plan.DEFAULT_TEXT_SEARCH_CONFIG)
    file = folder / "state.sql"
    file.write_text("\n".join(script.one(source, one, values) for one in NAMES[: NAMES.index(name) + 1]))
    done = psql(server, url, file)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES[1:])
def test_an_upgrade_with_data_arrives_at_a_fresh_install(
    server: Server, new_empty_database: Callable[[], str], tmp_path: Path, name: str
) -> None:
    upgraded, fresh = new_empty_database(), new_empty_database()
    at_state(server, upgraded, name, tmp_path)
    rows(upgraded, FILL)
    before = rows(upgraded, MEMORIES)
    assert len(before) == 200

    result = install(upgraded)
    install(fresh)

    assert list(result.applied) == NAMES[NAMES.index(name) + 1 :]
    assert dump(server, upgraded) == dump(server, fresh)
    assert api.verify_store(settings_for(upgraded)).differences == ()
    assert rows(upgraded, MEMORIES) == before
    with connected(upgraded) as connection:
        found = connection.execute(
            "select content from memory_plugin.search(array['workspace:a'], query => 'number 42')"
        ).fetchone()
        assert found == ("memory number 42 ünï",)
        nearest = connection.execute(
            "select s.content from memory_plugin.memory_records r, lateral memory_plugin.search("
            "array['workspace:a', 'team:gone'], embedding => r.embedding, max_results => 1) s "
            "where r.content like '% 44 %'"
        ).fetchone()
        assert nearest == ("memory number 44 ünï",)
        gone = connection.execute("select count(*) from memory_plugin.search(array['team:gone'])").fetchone()
        assert gone == (0,)
