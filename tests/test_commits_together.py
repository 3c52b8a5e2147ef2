"""Commits that arrive at the same moment share a transaction, and none of them notices."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import Any

import httpx
import psycopg
import pytest

from fixtures.sidecars import Sidecar, wait_until
from memory_plugin.thin_api.calls import Calls
from memory_plugin.thin_api.commits import MOST, SMALL, Commits
from memory_plugin.thin_api.errors import RefusedError, SqlError, refusal, unavailable

PLAIN = b'{"content":"tea","kind":"fact","source":"user"}'
OK = "tea"


class FakeCalls(Calls):
    """Statements that are noted and answered by the test; those of the name b"slow" wait for `let_go`."""

    def __init__(self, answer: Callable[[list[bytes]], bytes]) -> None:
        self.answer = answer
        self.let_go = threading.Event()
        self.statements: list[tuple[bytes, list[bytes]]] = []
        self.first: list[bool] = []

    def run(self, route: Any, parameters: Any, arrived: float, *, first: bool = False) -> bytes:
        self.first.append(first)
        self.statements.append((route.statement, list(parameters)))
        if b"commit_memories" in route.statement:
            return self.answer(list(parameters))
        if parameters[0] == b"slow":
            assert self.let_go.wait(10)
        return b"alone:" + parameters[0]

    @property
    def alone(self) -> list[bytes]:
        """Return the names that were committed by themselves, but for the slow one."""
        return sorted(p[0] for s, p in self.statements if b"commit_memories" not in s and p[0] != b"slow")


@contextmanager
def standing(
    calls: FakeCalls, names: list[bytes], most: int = 1, slow: int = 1, *, searched: bool = False
) -> Iterator[tuple[Commits, dict[bytes, Future[bytes]]]]:
    """Enter while `slow` commits, and perhaps searches, are under way and these wait in line behind, in this order."""
    commits = Commits(calls, most, lambda: most + 1 if searched else 0)
    with ThreadPoolExecutor(len(names) + slow) as pool:
        under_way = []
        for number in range(1, slow + 1):
            under_way.append(pool.submit(commits.run, b"slow", PLAIN, monotonic()))
            wait_until(lambda number=number: len(calls.statements) == number, "a slow commit")  # type: ignore[misc]
        waiting = {}
        for number, name in enumerate(names, 1):
            waiting[name] = pool.submit(commits.run, name, PLAIN, monotonic())
            wait_until(lambda number=number: commits.in_line == number, "a place in line")  # type: ignore[misc]
        yield commits, waiting
        calls.let_go.set()
        assert [one.result(10) for one in under_way] == [b"alone:slow"] * slow


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody leave the line because this machine is slow."""
    monkeypatch.setattr("memory_plugin.thin_api.commits.PATIENCE", 30.0)


@pytest.mark.usefixtures("patient")
def test_those_in_line_share_one_statement_and_each_gets_its_own_answer() -> None:
    calls = FakeCalls(lambda texts: b"\n".join(b"together:" + name for name in texts[::2]))
    with standing(calls, [b"a", b"b", b"c"]) as (_, waiting):
        calls.let_go.set()
        assert {name: future.result(10) for name, future in waiting.items()} == {
            name: b"together:" + name for name in (b"a", b"b", b"c")
        }
    statement, parameters = calls.statements[-1]
    assert statement == (
        b"select memory_plugin.v1_commit_memories(array[$1::text,$3::text,$5::text],array[$2::text,$4::text,$6::text])"
    )
    assert parameters == [b"a", PLAIN, b"b", PLAIN, b"c", PLAIN]
    assert calls.alone == []
    # Searches in line for a connection do not keep all of these.
    assert calls.first == [True, True]


@pytest.mark.usefixtures("patient")
def test_what_the_statement_leaves_undone_is_committed_by_itself() -> None:
    calls = FakeCalls(lambda texts: b"\n".join(b"" if name in (b"a", b"c") else b"done" for name in texts[::2]))
    with standing(calls, [b"a", b"b", b"c"]) as (_, waiting):
        calls.let_go.set()
        assert [waiting[name].result(10) for name in (b"a", b"b", b"c")] == [b"alone:a", b"done", b"alone:c"]
    assert calls.alone == [b"a", b"c"]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("sqlstate", ["55P03", "40P01", "53100", "42883", "42501"])
def test_a_statement_that_was_rolled_back_leaves_all_of_them_to_themselves(sqlstate: str) -> None:
    def refuse(_: list[bytes]) -> bytes:
        raise refusal(SqlError(sqlstate, "no", None))

    calls = FakeCalls(refuse)
    with standing(calls, [b"a", b"b"]) as (commits, waiting):
        calls.let_go.set()
        assert [waiting[name].result(10) for name in (b"a", b"b")] == [b"alone:a", b"alone:b"]
        # The line is open again: nobody was left under way.
        assert commits.run(b"later", PLAIN, monotonic()) == b"alone:later"
    assert calls.alone == [b"a", b"b", b"later"]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "refused",
    [
        unavailable("the database is not available; try again", "connection_lost"),
        unavailable("the database did not answer in time; try again", "statement_deadline"),
        refusal(SqlError("57P01", "terminating", None)),
    ],
    ids=["lost", "late", "terminated"],
)
def test_a_statement_whose_outcome_is_unknown_is_repeated_for_none_of_them(refused: RefusedError) -> None:
    def refuse(_: list[bytes]) -> bytes:
        raise refused

    calls = FakeCalls(refuse)
    with standing(calls, [b"a", b"b"]) as (commits, waiting):
        calls.let_go.set()
        for future in waiting.values():
            error = future.exception(10)
            assert isinstance(error, RefusedError)
            assert (error.status, error.reason) == (503, refused.reason)
        assert commits.run(b"later", PLAIN, monotonic()) == b"alone:later"
    assert calls.alone == [b"later"]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("answer", [MemoryError(), b"one line for two"], ids=["error", "too few lines"])
def test_an_error_of_any_other_kind_commits_nobody_twice(answer: MemoryError | bytes) -> None:
    def fail(_: list[bytes]) -> bytes:
        if isinstance(answer, bytes):
            return answer
        raise answer

    calls = FakeCalls(fail)
    with standing(calls, [b"a", b"b"]) as (commits, waiting):
        calls.let_go.set()
        leader, other = (future.exception(10) for future in waiting.values())
        assert isinstance(leader, (MemoryError, ValueError))
        assert isinstance(other, RefusedError)
        assert (other.status, other.reason) == (500, type(leader).__name__)
        assert commits.run(b"later", PLAIN, monotonic()) == b"alone:later"
    assert calls.alone == [b"later"]


def test_nobody_stays_in_line_behind_a_commit_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = FakeCalls(lambda _: b"never")
    monkeypatch.setattr("memory_plugin.thin_api.commits.PATIENCE", 30.0)
    with standing(calls, [b"a"]) as (commits, waiting):
        monkeypatch.setattr("memory_plugin.thin_api.commits.PATIENCE", 0.05)
        assert commits.run(b"b", PLAIN, monotonic()) == b"alone:b"
        assert commits.in_line == 1
        calls.let_go.set()
        # One alone in line needs no statement for several.
        assert waiting[b"a"].result(10) == b"alone:a"


@pytest.mark.usefixtures("patient")
def test_commits_that_are_late_are_overtaken_by_all_behind_them_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = FakeCalls(lambda texts: b"\n".join(b"together:" + name for name in texts[::2]))
    monkeypatch.setattr("memory_plugin.thin_api.commits.LATE", 30.0)
    with standing(calls, [b"a", b"b"], most=3, slow=2) as (commits, waiting):
        monkeypatch.setattr("memory_plugin.thin_api.commits.LATE", 0.0)
        # Whoever arrives sees that they are late.
        assert commits.run(b"c", PLAIN, monotonic()) == b"together:c"
        assert {name: future.result(10) for name, future in waiting.items()} == {
            b"a": b"together:a", b"b": b"together:b",
        }  # fmt: skip
        assert not calls.let_go.is_set()
        # Beside the late ones the line is open again.
        assert commits.run(b"d", PLAIN, monotonic()) == b"alone:d"
    # And so it is once those have ended.
    assert commits.run(b"e", PLAIN, monotonic()) == b"alone:e"
    assert [len(p) // 2 for s, p in calls.statements if b"commit_memories" in s] == [3]


def test_one_that_stands_alone_behind_late_commits_goes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.commits.PATIENCE", 30.0)
    monkeypatch.setattr("memory_plugin.thin_api.commits.LATE", 0.5)
    calls = FakeCalls(lambda _: b"never")
    with standing(calls, [b"a"], most=3, slow=2) as (_, waiting):
        assert waiting[b"a"].result(10) == b"alone:a"
        assert not calls.let_go.is_set()


@pytest.mark.usefixtures("patient")
def test_a_second_transaction_starts_beside_one_when_half_of_the_crowd_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.commits.LATE", 30.0)
    monkeypatch.setattr("memory_plugin.thin_api.commits.PATIENCE", 60.0)
    calls = FakeCalls(lambda texts: b"\n".join(texts[::2]))
    # Of two the second is half, and has company enough in itself: eight are a crowd.
    with standing(calls, [b"n%d" % i for i in range(6)], most=4, slow=2) as (commits, waiting):
        calls.let_go.set()
        assert [future.result(10) for future in waiting.values()] == list(waiting)
        with ThreadPoolExecutor(5) as pool:
            calls.let_go.clear()
            before = len(calls.statements)
            slow = pool.submit(commits.run, b"slow", PLAIN, monotonic())
            wait_until(lambda: len(calls.statements) == before + 1, "a slow commit")
            others = {}
            for number, name in enumerate((b"a", b"b", b"c"), 1):
                others[name] = pool.submit(commits.run, name, PLAIN, monotonic())
                wait_until(lambda number=number: commits.in_line == number, "a place in line")  # type: ignore[misc]
            assert commits.run(b"d", PLAIN, monotonic()) == b"d"
            assert [future.result(10) for future in others.values()] == list(others)
            assert not slow.done()
            calls.let_go.set()
            assert slow.result(10) == b"alone:slow"
    assert [len(p) // 2 for s, p in calls.statements if b"commit_memories" in s] == [6, 4]


@pytest.mark.usefixtures("patient")
def test_beside_a_search_no_second_transaction_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memory_plugin.thin_api.commits.LATE", 30.0)
    calls = FakeCalls(lambda texts: b"\n".join(texts[::2]))
    # The first of these would be half of the crowd.
    with standing(calls, [b"a", b"b", b"c"], most=4, searched=True) as (_, waiting):
        calls.let_go.set()
        assert [future.result(10) for future in waiting.values()] == list(waiting)
    assert [len(p) // 2 for s, p in calls.statements if b"commit_memories" in s] == [3]


def test_large_commits_and_those_with_an_id_wait_for_nobody() -> None:
    calls = FakeCalls(lambda _: b"never")
    with standing(calls, []) as (commits, _):
        for body in (b"x" * (SMALL + 1), PLAIN[:-1] + b',"id":null}'):
            assert commits.run(b"own", body, monotonic()) == b"alone:own"


@pytest.mark.usefixtures("patient")
def test_no_transaction_takes_more_than_its_share() -> None:
    calls = FakeCalls(lambda texts: b"\n".join(texts[::2]))
    names = [b"n%02d" % i for i in range(MOST + 3)]
    with standing(calls, names) as (_, waiting):
        calls.let_go.set()
        assert [waiting[name].result(10) for name in names] == names
    assert [len(p) // 2 for s, p in calls.statements if b"commit_memories" in s] == [MOST, 3]


def together(conn: psycopg.Connection[Any], *asked: tuple[str, Any]) -> list[Any]:
    """Return an answer or None for each namespace and body."""
    bodies = [body if isinstance(body, str) else json.dumps(body) for _, body in asked]
    row = conn.execute("select memory_plugin.v1_commit_memories(%s, %s)", ([n for n, _ in asked], bodies)).fetchone()
    assert row is not None
    lines = row[0].split("\n")
    assert len(lines) == len(asked)
    return [json.loads(line) if line else None for line in lines]


def memory(**fields: Any) -> dict[str, Any]:
    return {"content": OK, "kind": "fact", "source": "user", **fields}


def test_plain_memories_are_written_as_if_committed_singly(conn: psycopg.Connection[Any]) -> None:
    conn.execute(
        "select memory_plugin.upsert_namespace('team:a', 'team'), memory_plugin.upsert_namespace('org:b', 'org')"
    )
    asked = [
        ("team:a", memory()),
        ("org:b", memory(content='a "quoted" \\ line\n', kind="summary", source="agent", pin=True)),
        ("team:a", memory(pin=None, id=None, unknown=[1])),
        ("team:a", memory(kind="checkpoint", source="runtime", pin=False)),
    ]
    answers = together(conn, *asked)
    assert [answer["namespace"] for answer in answers] == ["team:a", "org:b", "team:a", "team:a"]
    for (namespace, body), answer in zip(asked, answers, strict=True):
        row = conn.execute(
            "select namespace, content, kind, source, pin, expires_at, propagation, embedding is null "
            "from memory_plugin.memory_records where id = %s",
            (answer["id"],),
        ).fetchall()
        assert row[0][:5] == (namespace, body["content"], body["kind"], body["source"], bool(body.get("pin")))
        assert row[0][5:8] == (None, None, True)
    counted = conn.execute("select count(*) from memory_plugin.memory_records").fetchone()
    assert counted == (4,)


@pytest.mark.parametrize(
    "body",
    [
        memory(content=" \t\n"),
        memory(content=""),
        memory(content=None),
        memory(content=5),
        memory(kind="rumour"),
        memory(kind=None),
        memory(source=["user"]),
        memory(pin="true"),
        memory(pin=1),
        memory(id=str(uuid.uuid4())),
        memory(expires_at="2999-01-01T00:00:00Z"),
        memory(propagation={}),
        memory(embedding=[1, 2]),
        {},
        "[]",
        "null",
    ],
)
def test_what_is_not_plainly_right_is_left_undone_and_harms_no_other(conn: psycopg.Connection[Any], body: Any) -> None:
    conn.execute("select memory_plugin.upsert_namespace('team:a', 'team')")
    answers = together(conn, ("team:a", memory()), ("team:a", body), ("team:a", memory()))
    # What is no JSON object at all undoes the statement.
    kept = 0 if isinstance(body, str) else 2
    assert [answer is not None for answer in answers] == ([True, False, True] if kept else [False] * 3)
    assert conn.execute("select count(*) from memory_plugin.memory_records").fetchone() == (kept,)


@pytest.mark.parametrize("body", ["{", "", '{"content":"\\u0000","kind":"fact","source":"user"}', "[" * 100_000])
def test_what_cannot_be_read_undoes_the_statement_and_nothing_else(conn: psycopg.Connection[Any], body: str) -> None:
    conn.execute("select memory_plugin.upsert_namespace('team:a', 'team')")
    assert together(conn, ("team:a", memory()), ("team:a", body)) == [None, None]
    assert conn.execute("select count(*) from memory_plugin.memory_records").fetchone() == (0,)


def test_namespaces_that_are_absent_expired_or_locked_are_left_alone(
    conn: psycopg.Connection[Any], database: str
) -> None:
    for name in ("team:live", "team:held"):
        conn.execute("select memory_plugin.upsert_namespace(%s, 'team')", (name,))
    conn.execute("select memory_plugin.upsert_namespace('team:old', 'team', '2000-01-01')")
    with psycopg.connect(database) as holder:
        holder.execute("select from memory_plugin.memory_namespaces where name = 'team:held' for update")
        conn.execute("set statement_timeout = '900ms'")
        names = ("team:live", "team:held", "team:old", "team:never", "not a name")
        answers = together(conn, *((name, memory()) for name in names))
        holder.rollback()
    assert [answer is not None for answer in answers] == [True, False, False, False, False]


def test_with_redaction_on_everything_goes_the_way_that_redacts(conn: psycopg.Connection[Any]) -> None:
    conn.execute("select memory_plugin.upsert_namespace('team:a', 'team')")
    conn.execute("insert into memory_plugin.settings (name, value) values ('redact_on_commit', 'true')")
    assert together(conn, ("team:a", memory()), ("team:a", memory())) == [None, None]


def test_a_storm_of_good_and_bad_commits_over_http_leaves_one_row_for_each_good_one(shared_sidecar: Sidecar) -> None:
    suffix = uuid.uuid4().hex[:8]
    asked: list[tuple[str, dict[str, Any], int]] = []
    for i in range(240):
        kind = i % 8
        namespace = f"team:storm-{i % 3}-{suffix}" if kind != 1 else f"team:new-{i}-{suffix}"
        body = memory(content=f"m{i}")
        if kind == 2:
            body["id"] = str(uuid.uuid4())
        if kind == 3:
            body["content"] = "  "
        if kind == 4:
            body["kind"] = "rumour"
        if kind == 5:
            body["expires_at"] = "2999-01-01T00:00:00Z"
        asked.append((namespace, body, 400 if kind in (3, 4) else 201))

    def commit(one: tuple[str, dict[str, Any], int]) -> httpx.Response:
        return clients[threading.get_ident() % len(clients)].post(f"/v1/namespaces/{one[0]}/memories", json=one[1])

    clients = [httpx.Client(base_url=shared_sidecar.base_url, timeout=10, trust_env=False) for _ in range(12)]
    try:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(commit, asked))
    finally:
        for client in clients:
            client.close()
    assert [answer.status_code for answer in answers] == [status for _, _, status in asked]
    expected = {}
    for (namespace, body, status), answer in zip(asked, answers, strict=True):
        if status == 201:
            assert answer.json()["namespace"] == namespace
            expected[answer.json()["id"]] = (namespace, body["content"])
    with psycopg.connect(shared_sidecar.database) as connection:
        rows = connection.execute(
            "select id::text, namespace, content from memory_plugin.memory_records where namespace like %s",
            (f"%{suffix}",),
        ).fetchall()
    assert {row[0]: row[1:] for row in rows} == expected
