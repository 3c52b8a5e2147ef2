"""From every earlier state of the schema, with memories in it, an install arrives where a fresh one does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.installing import connected, dump, install, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api
from upgrading import FILL, MEMORIES, NAMES, at_state


@pytest.mark.parametrize("name", NAMES[1:])
def test_an_upgrade_with_data_arrives_at_a_fresh_install(
    server: Server, new_empty_database: Callable[[], str], name: str
) -> None:
    upgraded, fresh = new_empty_database(), new_empty_database()
    at_state(server, upgraded, name)
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
