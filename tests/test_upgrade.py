"""From every earlier state of the schema, with memories in it, an install arrives where a fresh one does."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.installing import connected, dump, install, psql, rows, settings_for
from fixtures.server import Server
from memory_plugin.installer import api
from upgrading import FILL, MEMORIES, NAMES, at_state

# What `memory-plugin render` printed once, before a release or a large change of the functions.
PROGRAMS = sorted((Path(__file__).parent / "data" / "programs").glob("*.sql.gz"))
# Functions that a program once made and today's does not, where no program above has them.
GONE = (
    "_semantic_crowded(_candidate[], integer, double precision)",
    "_lexical_rarest(text[], tsquery[])",
    "_lexical_scan(text[], _lexical_plan, _filter, integer)",
    "_lexical_parse(text)",
    "_lexical_candidates(text[], text, _filter, integer)",
    "_rank(_candidate[], _candidate[], integer, integer, double precision, double precision, double precision,"
    " double precision, boolean)",
)


def test_an_upgrade_from_the_first_state_arrives_at_a_fresh_install(
    server: Server, new_empty_database: Callable[[], str]
) -> None:
    upgrade(server, new_empty_database, NAMES[1])


# On one server: every migration was run on each of them above.
@pytest.mark.servers("any")
@pytest.mark.parametrize("name", NAMES[2:])
def test_an_upgrade_from_a_later_state_arrives_at_a_fresh_install(
    server: Server, new_empty_database: Callable[[], str], name: str
) -> None:
    upgrade(server, new_empty_database, name)


def upgrade(server: Server, new_empty_database: Callable[[], str], name: str) -> None:
    """Bring a state with memories in it up to date, and compare."""
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


@pytest.mark.servers("any")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name.partition(".")[0])
def test_a_store_of_an_earlier_program_with_its_functions_arrives_there_too(
    server: Server, new_empty_database: Callable[[], str], tmp_path: Path, program: Path
) -> None:
    upgraded, fresh = new_empty_database(), new_empty_database()
    file = tmp_path / "program.sql"
    file.write_bytes(gzip.decompress(program.read_bytes()))
    done = psql(server, upgraded, file)
    assert done.returncode == 0, done.stderr
    rows(upgraded, FILL)
    before = rows(upgraded, MEMORIES)

    install(upgraded)
    install(fresh)

    assert dump(server, upgraded) == dump(server, fresh)
    assert api.verify_store(settings_for(upgraded)).differences == ()
    assert rows(upgraded, MEMORIES) == before


@pytest.mark.servers("any")
def test_functions_that_only_an_earlier_program_had_go(empty_database: str) -> None:
    install(empty_database)
    with connected(empty_database) as connection:
        connection.execute("set search_path to memory_plugin, pg_catalog")
        for signature in GONE:
            connection.execute(f"create function {signature} returns integer language sql return 1".encode())
    left = " ".join(api.verify_store(settings_for(empty_database)).differences)
    for signature in GONE:
        assert signature.partition("(")[0] in left

    install(empty_database)

    assert api.verify_store(settings_for(empty_database)).differences == ()
