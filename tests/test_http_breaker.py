"""What opens the breaker, and what does not: a database that answers nobody, not a crowd."""

from __future__ import annotations

from time import monotonic

import pytest

from memory_plugin.thin_api import breaker as breaker_module
from memory_plugin.thin_api.breaker import IN_A_ROW, PROBE_EVERY, Breaker
from memory_plugin.thin_api.calls import Calls
from memory_plugin.thin_api.errors import RefusedError
from memory_plugin.thin_api.pool import ExhaustedError, FullError, Pool, SentAwayError
from memory_plugin.thin_api.routes import SEARCH
from memory_plugin.thin_api.wire import Link


class Crowded(Pool):
    """A pool in which nobody gets a connection, for one reason."""

    def __init__(self, why: type[Exception]) -> None:
        super().__init__("", 1, lambda _reachable, _why: None)
        self._why = why

    def acquire(self, deadline: float, *, first: bool = False) -> Link:
        raise self._why


def refused(why: type[Exception]) -> tuple[list[str], Breaker]:
    """Make as many requests as it takes, none of which gets a connection; return why they were refused."""
    breaker = Breaker()
    calls = Calls(Crowded(why), breaker)
    reasons = []
    for _ in range(IN_A_ROW):
        with pytest.raises(RefusedError) as caught:
            calls.run(SEARCH, (b"{}",), monotonic())
        assert caught.value.status == 503
        reasons.append(caught.value.reason)
    return reasons, breaker


@pytest.mark.parametrize(
    ("why", "reason"), [(FullError, "line_full"), (SentAwayError, "breaker")], ids=["line full", "sent away"]
)
def test_who_did_not_wait_says_nothing_about_the_database(why: type[Exception], reason: str) -> None:
    reasons, breaker = refused(why)
    assert reasons == [reason] * IN_A_ROW
    assert not breaker.open


def test_waits_to_the_end_open_it() -> None:
    reasons, breaker = refused(ExhaustedError)
    assert reasons == ["no_connection"] * IN_A_ROW
    assert breaker.open


def test_a_wait_during_which_others_were_answered_was_not_in_vain() -> None:
    breaker = Breaker()
    began = monotonic()
    breaker.success()
    for _ in range(IN_A_ROW):
        assert not breaker.failure(began)
    assert not breaker.open
    since = monotonic()
    assert [breaker.failure(since) for _ in range(IN_A_ROW)] == [False] * (IN_A_ROW - 1) + [True]
    assert breaker.open
    breaker.success()
    assert not breaker.open


def test_while_it_is_open_one_request_goes_through_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(breaker_module, "monotonic", lambda: now)
    breaker = Breaker()
    for _ in range(IN_A_ROW):
        assert breaker.admit()
        breaker.failure(now)
    for _ in range(2):
        assert not breaker.admit()
        now += PROBE_EVERY
        assert [breaker.admit() for _ in range(3)] == [True, False, False]
    breaker.success()
    assert [breaker.admit() for _ in range(3)] == [True] * 3
