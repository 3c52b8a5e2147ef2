"""What a call does when its connection breaks, the server refuses it or its time is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, cast

import pytest

from memory_plugin.thin_api import calls as calls_module
from memory_plugin.thin_api.breaker import IN_A_ROW, Breaker
from memory_plugin.thin_api.calls import ATTEMPTS, Calls
from memory_plugin.thin_api.errors import RefusedError, SqlError
from memory_plugin.thin_api.pool import ExhaustedError, Pool
from memory_plugin.thin_api.routes import COMMIT, HEALTH, SEARCH, Route
from memory_plugin.thin_api.wire import ExpiredError, Link, LostError


def refused(sqlstate: str) -> SqlError:
    return SqlError(sqlstate, "so it is", None)


class Scripted(Pool):
    """A pool, and its one connection: statements meet these errors one after the other, and then an answer."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("", 1, lambda _reachable, _why: None)
        self.errors = list(errors)
        self.given_back: list[str] = []
        self.asked: list[tuple[float, bool]] = []
        self.deadlines: list[float] = []

    def acquire(self, deadline: float, *, first: bool = False) -> Link:
        self.asked.append((deadline, first))
        return cast(Link, self)

    def run(self, _statement: bytes, _parameters: Sequence[bytes], deadline: float) -> bytes:
        self.deadlines.append(deadline)
        if self.errors:
            raise self.errors.pop(0)
        return b"{}"

    def release(self, link: Link) -> None:
        self.given_back.append("kept")

    def discard(self, link: Link, *, cancel: bool = False, on_answer: Callable[[], None] | None = None) -> None:
        self.given_back.append("cancelled" if cancel else "dropped")

    def alive(self, seconds: float) -> bool:
        return True


@pytest.mark.parametrize(
    ("route", "errors", "given_back"),
    [
        (SEARCH, [], ["kept"]),
        (SEARCH, [LostError(sent=True)] * (ATTEMPTS - 1), ["dropped"] * (ATTEMPTS - 1) + ["kept"]),
        (SEARCH, [refused("57P01")], ["dropped", "kept"]),
        (SEARCH, [refused("08006")], ["dropped", "kept"]),
        (COMMIT, [LostError(sent=False)], ["dropped", "kept"]),
        (COMMIT, [refused("40001"), refused("40P01")], ["kept"] * 3),
    ],
)
def test_what_the_server_has_not_done_is_run_again(
    route: Route, errors: list[Exception], given_back: list[str]
) -> None:
    pool = Scripted(*errors)
    assert Calls(pool, Breaker()).run(route, (b"", b"{}"), monotonic()) == b"{}"
    assert pool.given_back == given_back


@pytest.mark.parametrize(
    ("route", "errors", "reason", "given_back"),
    [
        (SEARCH, [LostError(sent=True)] * ATTEMPTS, "connection_lost", ["dropped"] * ATTEMPTS),
        (COMMIT, [LostError(sent=False)] * ATTEMPTS, "connection_lost", ["dropped"] * ATTEMPTS),
        (COMMIT, [refused("40001")] * ATTEMPTS, "40001", ["kept"] * ATTEMPTS),
        (COMMIT, [LostError(sent=True)], "connection_lost", ["dropped"]),
        (COMMIT, [refused("57P01")], "57P01", ["dropped"]),
        (COMMIT, [refused("08006")], "08006", ["dropped"]),
        (COMMIT, [refused("57014")], "57014", ["kept"]),
        (SEARCH, [refused("55P03")], "55P03", ["kept"]),
        (SEARCH, [ExpiredError()], "statement_deadline", ["cancelled"]),
    ],
)
def test_what_may_be_done_or_fails_each_time_is_a_503(
    route: Route, errors: list[Exception], reason: str, given_back: list[str]
) -> None:
    pool = Scripted(*errors)
    with pytest.raises(RefusedError) as caught:
        Calls(pool, Breaker()).run(route, (b"", b"{}"), monotonic())
    assert (caught.value.status, caught.value.reason) == (503, reason)
    assert pool.given_back == given_back
    assert pool.errors == []


class Crowded(Scripted):
    """A pool in which nobody gets a connection, before a database that gives a sign of life, or gives none."""

    def __init__(self, *, answers: bool) -> None:
        super().__init__()
        self.answers = answers
        self.sent_away = 0

    def acquire(self, deadline: float, *, first: bool = False) -> Link:
        raise ExhaustedError

    def alive(self, seconds: float) -> bool:
        return self.answers

    def release_waiters(self) -> None:
        self.sent_away += 1


@pytest.mark.parametrize("answers", [True, False])
def test_a_line_is_sent_away_once_the_database_gives_no_sign_of_life(answers: bool) -> None:
    pool, breaker = Crowded(answers=answers), Breaker()
    for _ in range(IN_A_ROW):
        assert pool.sent_away == 0
        with pytest.raises(RefusedError):
            Calls(pool, breaker).run(SEARCH, (b"{}",), monotonic())
    assert (breaker.open, pool.sent_away) == (not answers, 0 if answers else 1)


def test_what_an_open_breaker_turns_away_asks_for_no_connection() -> None:
    pool, breaker = Scripted(), Breaker()
    for _ in range(IN_A_ROW):
        breaker.failure(monotonic())
    with pytest.raises(RefusedError) as caught:
        Calls(pool, breaker).run(SEARCH, (b"{}",), monotonic())
    assert (caught.value.status, caught.value.reason) == (503, "breaker")
    assert pool.asked == []


def test_a_connection_on_which_something_unforeseen_happened_is_not_used_again() -> None:
    pool = Scripted(MemoryError())
    with pytest.raises(MemoryError):
        Calls(pool, Breaker()).run(SEARCH, (b"{}",), monotonic())
    assert pool.given_back == ["dropped"]


@pytest.mark.parametrize(("ago", "wait", "statement"), [(0.0, 1.0, 1.5), (0.25, 0.75, 1.5), (1.0, 0.0, 0.75)])
def test_what_a_request_has_waited_shortens_what_it_may_wait(
    monkeypatch: pytest.MonkeyPatch, ago: float, wait: float, statement: float
) -> None:
    monkeypatch.setattr(calls_module, "monotonic", lambda: 100.0)
    pool = Scripted()
    Calls(pool, Breaker()).run(SEARCH, (b"{}",), 100.0 - ago)
    assert pool.asked == [(100.0 + wait, False)]
    assert pool.deadlines == [100.0 + statement]


@pytest.mark.parametrize(("route", "how"), [(HEALTH, {}), (SEARCH, {"first": True})])
def test_health_and_who_is_told_to_stand_first_in_line(route: Route, how: dict[str, Any]) -> None:
    pool = Scripted()
    Calls(pool, Breaker()).run(route, (), monotonic(), **how)
    assert [first for _, first in pool.asked] == [True]
