"""A store as an earlier state of the schema left it, with memories in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fixtures.installing import psql
from fixtures.server import Server
from memory_plugin.installer import plan, script, sources

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


def at_state(server: Server, url: str, name: str) -> None:
    """Bring an empty database to where the migrations up to and with this one leave it."""
    source = sources.load()
    values = sources.placeholders("memory_plugin", plan.DEFAULT_DIMENSIONS, plan.DEFAULT_TEXT_SEARCH_CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.sql"
        file.write_text("\n".join(script.one(source, one, values) for one in NAMES[: NAMES.index(name) + 1]))
        done = psql(server, url, file)
    assert done.returncode == 0, done.stderr
