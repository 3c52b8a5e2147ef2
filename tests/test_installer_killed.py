"""An install killed at a statement and run again ends as one that nobody disturbed; `make torture` tries them all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fixtures.installing import dump
from fixtures.server import Server
from killed_install import kill_and_install_again, statements_of_an_install

FIFTHS = range(5)


@pytest.mark.servers("embedded18")
@pytest.mark.parametrize("fifth", FIFTHS)
def test_a_killed_install_is_finished_by_the_next(
    server: Server, new_empty_database: Callable[[], str], fifth: int
) -> None:
    undisturbed = new_empty_database()
    count = statements_of_an_install(server, undisturbed)
    assert count > 50
    # Another statement in each release, as the count changes; the first and the last are always tried.
    at = 1 + round(fifth / (len(FIFTHS) - 1) * (count - 1))
    kill_and_install_again(server, new_empty_database(), at, dump(server, undisturbed))
