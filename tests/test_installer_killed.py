"""An install killed at a statement and run again ends as one that nobody disturbed; `make torture` tries them all."""

from __future__ import annotations

import pytest

from fixtures.databases import fresh_database
from fixtures.installing import dump
from fixtures.server import Server
from killed_install import FRESH, UPGRADE, Start, kill_and_install_again, statements_of_an_install

pytestmark = pytest.mark.servers("embedded18")

Undisturbed = dict[Start, tuple[int, str]]


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> Undisturbed:
    """Return how many statements an install takes and what it leaves, from either start."""
    found = {}
    for start in (FRESH, UPGRADE):
        with fresh_database(server) as url:
            found[start] = statements_of_an_install(server, url, start), dump(server, url)
    return found


def tried(server: Server, url: str, undisturbed: Undisturbed, place: float, start: Start, killed: str) -> None:
    """Kill at a place between the first statement (0) and the last (1): another one in each release."""
    count, fresh = undisturbed[start]
    assert count > 50
    kill_and_install_again(server, url, 1 + round(place * (count - 1)), fresh, start, killed)


@pytest.mark.parametrize(
    ("killed", "place"), [("backend", 0.0), ("backend", 0.4), ("backend", 1.0), ("installer", 0.3), ("installer", 0.7)]
)
def test_a_killed_install_is_finished_by_the_next(
    server: Server, empty_database: str, undisturbed: Undisturbed, killed: str, place: float
) -> None:
    tried(server, empty_database, undisturbed, place, FRESH, killed)


@pytest.mark.parametrize(("killed", "place"), [("backend", 0.3), ("installer", 0.6)])
def test_a_killed_upgrade_beneath_a_writer_is_finished_by_the_next_and_loses_nothing(
    server: Server, empty_database: str, undisturbed: Undisturbed, killed: str, place: float
) -> None:
    tried(server, empty_database, undisturbed, place, UPGRADE, killed)


def test_from_either_start_the_schema_is_the_same(undisturbed: Undisturbed) -> None:
    assert undisturbed[FRESH][1] == undisturbed[UPGRADE][1]
