"""The pool's promises that no request can show by itself: who waits is told as soon as there is something to tell."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import psycopg
import pytest

from fixtures.cluster import free_port
from fixtures.server import Server
from fixtures.sidecars import wait_until
from http_sidecar import stopped
from memory_plugin.thin_api import pool as pool_module
from memory_plugin.thin_api import wire
from memory_plugin.thin_api.pool import ExhaustedError, FullError, Pool, SentAwayError, UnreachableError
from memory_plugin.thin_api.wire import ExpiredError, Link

# Far longer than a test may take: who is answered earlier did not wait for it.
LONG = 60.0


@pytest.fixture
def mute() -> Iterator[str]:
    """Return where a listener accepts and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"host=127.0.0.1 port={listener.getsockname()[1]} user=x dbname=x sslmode=disable"


def started(conninfo: str, size: int = 2) -> tuple[Pool, list[tuple[bool, str]]]:
    changes: list[tuple[bool, str]] = []
    pool = Pool(conninfo, size, lambda reachable, why: changes.append((reachable, why)))
    pool.start()
    return pool, changes


def waiting(pool: Pool, count: int) -> tuple[list[threading.Thread], list[Exception]]:
    """Let so many threads wait for a connection; return them and what they will have been told."""
    told: list[Exception] = []

    def wait() -> None:
        try:
            pool.acquire(monotonic() + LONG)
        except Exception as error:
            told.append(error)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(pool._waiters) == count, "the waiters to stand in line")
    return threads, told


def test_who_waits_is_told_at_once_that_nobody_is_there() -> None:
    pool, changes = started(f"host=127.0.0.1 port={free_port()} user=x dbname=x")
    try:
        with pytest.raises(UnreachableError):
            pool.acquire(monotonic() + LONG)
        wait_until(lambda: changes, "the change to be told")
        assert [reachable for reachable, _ in changes] == [False]
    finally:
        pool.close()


def test_who_waits_can_be_sent_away(mute: str) -> None:
    pool, _ = started(mute)
    try:
        threads, told = waiting(pool, 3)
        pool.release_waiters()
        for thread in threads:
            thread.join(5)
        assert [type(error) for error in told] == [SentAwayError] * 3
    finally:
        pool.close()


def test_the_line_has_an_end_and_who_goes_first_is_not_kept_by_it(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAX_WAITING", 3)
    pool, _ = started(mute)
    try:
        threads, _ = waiting(pool, 3)
        with pytest.raises(FullError):
            pool.acquire(monotonic() + LONG)
        with pytest.raises(ExhaustedError):
            pool.acquire(monotonic(), first=True)
        pool.release_waiters()
        for thread in threads:
            thread.join(5)
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_no_error_ends_the_thread_that_connects(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Exception] = [RuntimeError("can't start new thread"), MemoryError()]

    def connect(conninfo: str, seconds: int) -> Link:
        if outcomes:
            raise outcomes.pop()
        return wire.connect(conninfo, seconds)

    monkeypatch.setattr(pool_module, "connect", connect)
    pool, changes = started(server.url())
    try:
        wait_until(lambda: changes[-1:] == [(True, "")], "a connection")
        pool.release(pool.acquire(monotonic() + LONG))
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_no_error_ends_the_thread_that_closes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    pool, _ = started(server.url())
    try:
        bad, good = pool.acquire(monotonic() + LONG), pool.acquire(monotonic() + LONG)
        with bad.conn, good.conn:
            monkeypatch.setattr(bad.conn, "cancel_safe", fails)
            pool.discard(bad, cancel=True)
            pool.discard(good)
            wait_until(lambda: good.conn.closed, "the second one's end")
            assert bad.conn.closed
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_it_tells_of_a_server_that_heeds_a_cancel(server: Server) -> None:
    pool, _ = started(server.url())
    heeded = threading.Event()
    try:
        link = pool.acquire(monotonic() + LONG)
        with pytest.raises(ExpiredError):
            link.run(b"select pg_sleep(60)", (), monotonic() + 0.1)
        pool.discard(link, cancel=True, on_answer=heeded.set)
        assert heeded.wait(LONG / 2)
        wait_until(lambda: link.conn.closed, "its end")
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_a_connection_keeps_its_place_until_it_is_closed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server never sees more than the pool's size, and what one statement does not heed keeps no other waiting."""
    heeding, together = threading.Event(), threading.Barrier(3)

    def cancel(*_: object) -> bool:
        together.wait(LONG)
        return heeding.wait(LONG)

    pool, _ = started(server.url(), size=2)
    try:
        links = [pool.acquire(monotonic() + LONG) for _ in range(2)]
        monkeypatch.setattr(Link, "cancel", cancel)
        for link in links:
            pool.discard(link, cancel=True)
        together.wait(LONG)
        assert pool.state().open == 2
        with pytest.raises(ExhaustedError):
            pool.acquire(monotonic() + 0.3)
        assert not any(link.conn.closed for link in links)
        heeding.set()
        pool.release(pool.acquire(monotonic() + LONG))
        assert any(link.conn.closed for link in links)
    finally:
        heeding.set()
        pool.close()


@pytest.mark.servers("embedded18")
def test_statements_that_heed_no_cancel_bring_at_most_as_many_connections_again(server: Server) -> None:
    """As with a disk that hangs: a process that waits for it does so even when its client is gone."""
    pool, _ = started(server.url() + "&application_name=unheeding", size=2)
    hung: list[int] = []
    count = "select count(*) from pg_stat_activity where application_name = 'unheeding'"
    try:
        with stopped(hung), server.connect() as watching:
            for _ in range(2):
                links = [pool.acquire(monotonic() + LONG) for _ in range(2)]
                for link in links:
                    hung.append(link.pgconn.backend_pid)
                    os.kill(hung[-1], signal.SIGSTOP)
                    with pytest.raises(ExpiredError):
                        link.run(b"select 1", (), monotonic())
                    pool.discard(link, cancel=True)
            with pytest.raises(ExhaustedError):
                pool.acquire(monotonic() + 2)
            assert watching.execute(count).fetchall() == [(4,)]
        for link in [pool.acquire(monotonic() + LONG) for _ in range(2)]:
            pool.release(link)
        wait_until(lambda: pool.state().open == 2, "the end of those that were hung")
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_it_tells_whether_the_database_answers(server: Server, mute: str) -> None:
    for conninfo, answers, seconds in ((server.url(), True, LONG), (mute, False, 0.3)):
        pool, changes = started(conninfo)
        try:
            wait_until(lambda: changes or not answers, "a connection")  # noqa: B023
            assert [pool.alive(seconds) for _ in range(2)] == [answers] * 2
        finally:
            pool.close()


@pytest.mark.servers("embedded18")
def test_it_opens_no_more_than_its_size_and_serves_in_turn(server: Server) -> None:
    pool, changes = started(server.url() + "&application_name=pool_test", size=2)
    try:
        held = [pool.acquire(monotonic() + LONG), pool.acquire(monotonic() + LONG)]
        order: list[int] = []
        threads = []
        for number in range(3):
            threads.append(threading.Thread(target=_take_and_give, args=(pool, order, number)))
            threads[-1].start()
            wait_until(lambda number=number: len(pool._waiters) == number + 1, "one more in line")  # type: ignore[misc]
        with server.connect() as conn:
            row = conn.execute("select count(*) from pg_stat_activity where application_name = 'pool_test'").fetchone()
        assert row == (2,)
        assert pool.busy() == 5
        pool.release(held[0])
        for thread in threads:
            thread.join(10)
        assert order == [0, 1, 2]
        assert pool.busy() == 1
        pool.release(held[1])
        assert pool.busy() == 0
        assert changes == [(True, "")]
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_who_goes_first_is_served_before_those_in_line(server: Server) -> None:
    pool, _ = started(server.url(), size=1)
    try:
        held = pool.acquire(monotonic() + LONG)
        order: list[int] = []
        threads = []
        for number in range(3):
            threads.append(threading.Thread(target=_take_and_give, args=(pool, order, number, number == 2)))
            threads[-1].start()
            wait_until(lambda number=number: len(pool._waiters) == number + 1, "one more in line")  # type: ignore[misc]
        pool.release(held)
        for thread in threads:
            thread.join(10)
        assert order == [2, 0, 1]
    finally:
        pool.close()


@pytest.mark.servers("embedded18")
def test_a_connection_that_only_has_news_waiting_is_kept(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn, server.connect() as other:
        conn.execute("listen news")
        link = Link(conn)
        assert link.quiet()
        other.execute("notify news")
        wait_until(lambda: link._incoming.poll(0), "the news to arrive")
        assert link.quiet()
        assert link.run(b"select $1::text", [b"still"], monotonic() + LONG) == b"still"


@pytest.mark.servers("embedded18")
def test_a_connection_that_the_server_ended_is_not_kept(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn, server.connect() as other:
        link = Link(conn)
        assert link.quiet()
        other.execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        wait_until(lambda: link._incoming.poll(0), "the end to arrive")
        assert not link.quiet()


@pytest.mark.servers("embedded18")
def test_a_last_word_is_enough_though_the_end_of_file_is_late(server: Server) -> None:
    with psycopg.connect(server.url(), autocommit=True) as conn, server.connect() as other:
        link = Link(conn)
        other.execute("select pg_terminate_backend(%s)", [conn.info.backend_pid])
        wait_until(lambda: link._incoming.poll(0), "the end to arrive")
        with suppress(psycopg.Error):
            link.pgconn.consume_input()
        link.pgconn.is_busy()
        assert link._ended
        assert not link.quiet()


def _take_and_give(pool: Pool, order: list[int], number: int, first: bool = False) -> None:
    link = pool.acquire(monotonic() + LONG, first=first)
    order.append(number)
    pool.release(link)
