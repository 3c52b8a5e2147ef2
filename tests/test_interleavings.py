"""Two sessions on the same rows, step by step: who waits, what each is told, and what stands in the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from fixtures.sidecars import wait_until

pytestmark = pytest.mark.servers("any")

NS = "workspace:w"
ID = "8c2d1b51-5a0a-4d5e-9d9f-0a3a0a4f2c11"
COMMIT = f"select memory_plugin.commit_memory('{NS}', 'new', id => '{ID}')"
OTHER = f"select memory_plugin.commit_memory('{NS}', 'other')"
DELETE = f"select memory_plugin.delete_namespace('{NS}')"
FORGET = f"select memory_plugin.forget_memory('{ID}', '{NS}')"
PUT = f"select memory_plugin.upsert_namespace('{NS}', 'org')"
PATCH = f"select memory_plugin.patch_namespace('{NS}', metadata => '{{}}')"
EXPIRE = f"select memory_plugin.patch_namespace('{NS}', expires_at => '2020-01-01Z')"
SWEEP = "select memory_plugin.sweep()"
# As a patch leaves it that began before the expiry and is not yet committed.
RENEW = f"update memory_plugin.memory_namespaces set expires_at = '2100-01-01Z' where name = '{NS}'"

# How things stand before: nothing, a namespace with a memory, with an expired memory, an expired one with a memory.
NOTHING: tuple[str, ...] = ()
LIVE = (f"select memory_plugin.commit_memory('{NS}', 'old', id => '{ID}')",)
STALE = (f"select memory_plugin.commit_memory('{NS}', 'old', id => '{ID}', expires_at => '2020-01-01Z')",)
EXPIRED = (*LIVE, EXPIRE)


@dataclass(frozen=True)
class Case:
    """`first` runs and stays open, `second` begins, `first` ends; `told` is what second gets: ok or a SQLSTATE."""

    before: tuple[str, ...]
    first: str
    second: str
    waits: bool
    told: str
    left: frozenset[str]
    end: str = "commit"


def case(
    before: tuple[str, ...], first: str, second: str, waits: str, told: str, *left: str, end: str = "commit"
) -> Case:
    return Case(before, first, second, waits == "waits", told, frozenset(left), end)


CASES = {
    "two commits make one namespace": case(NOTHING, COMMIT, OTHER, "waits", "ok", "new", "other"),
    "a commit after a maker that gives up": case(NOTHING, COMMIT, OTHER, "waits", "ok", "other", end="rollback"),
    "two commits to a live namespace": case(LIVE, OTHER, COMMIT, "free", "ok", "new", "other"),
    "two commits of one id": case(LIVE, COMMIT, COMMIT, "waits", "ok", "new"),
    "two commits to an expired namespace": case(EXPIRED, COMMIT, OTHER, "waits", "ok", "new", "other"),
    "a commit to an expired namespace after one that gives up": case(
        EXPIRED, COMMIT, OTHER, "waits", "ok", "other", end="rollback"
    ),
    "delete waits for a commit and takes it along": case(LIVE, OTHER, DELETE, "waits", "ok"),
    "delete after a commit that gives up": case(LIVE, OTHER, DELETE, "waits", "ok", end="rollback"),
    "commit waits for a delete and starts anew": case(LIVE, DELETE, OTHER, "waits", "ok", "other"),
    "commit after a delete that gives up": case(LIVE, DELETE, OTHER, "waits", "ok", "old", "other", end="rollback"),
    "the second of two deletes": case(LIVE, DELETE, DELETE, "waits", "MP004"),
    "delete after a delete that gives up": case(LIVE, DELETE, DELETE, "waits", "ok", end="rollback"),
    "delete of a namespace in the making": case(NOTHING, COMMIT, DELETE, "free", "MP004", "new"),
    "put waits for a delete": case(LIVE, DELETE, PUT, "waits", "ok"),
    "delete waits for a put": case(LIVE, PUT, DELETE, "waits", "ok"),
    "patch waits for a delete": case(LIVE, DELETE, PATCH, "waits", "MP004"),
    "a commit does not wait for a patch": case(LIVE, PATCH, OTHER, "free", "ok", "old", "other"),
    "two puts make one namespace": case(NOTHING, PUT, PUT, "waits", "ok"),
    "commit waits for a put that makes the namespace": case(NOTHING, PUT, COMMIT, "waits", "ok", "new"),
    "the second of two forgets": case(LIVE, FORGET, FORGET, "waits", "MP005"),
    "forget after a forget that gives up": case(LIVE, FORGET, FORGET, "waits", "ok", end="rollback"),
    "a commit of an id that is being forgotten": case(LIVE, FORGET, COMMIT, "waits", "ok", "new"),
    "forget of an id that is being written": case(LIVE, COMMIT, FORGET, "waits", "ok"),
    # Of a row that is being deleted, only its end tells whether it is still there to be taken along.
    "delete waits for a forget": case(LIVE, FORGET, DELETE, "waits", "ok"),
    "delete after a forget that gives up": case(LIVE, FORGET, DELETE, "waits", "ok", end="rollback"),
    "sweep passes over a memory that comes back": case(STALE, COMMIT, SWEEP, "free", "ok", "new"),
    "a memory comes back while it is swept": case(STALE, SWEEP, COMMIT, "waits", "ok", "new"),
    "a memory comes back after a sweep that gives up": case(STALE, SWEEP, COMMIT, "waits", "ok", "new", end="rollback"),
    "sweep passes over a namespace that starts anew": case(EXPIRED, COMMIT, SWEEP, "free", "ok", "new"),
    "sweep passes over a namespace that is renewed": case(EXPIRED, RENEW, SWEEP, "free", "ok", "old"),
    "a namespace starts anew while it is swept": case(EXPIRED, SWEEP, OTHER, "waits", "ok", "other"),
    "a namespace is put while it is swept": case(EXPIRED, SWEEP, PUT, "waits", "ok"),
    "two sweeps share the work": case((*STALE, *EXPIRED[1:]), SWEEP, SWEEP, "free", "ok"),
}


@dataclass
class Told:
    """What a statement of the second session came to."""

    sqlstate: str = ""


@pytest.fixture
def sessions(database: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        yield first, second


def run(session: psycopg.Connection, statement: str, told: Told) -> None:
    try:
        with session.transaction():
            session.execute(statement)  # type: ignore[arg-type]
        told.sqlstate = "ok"
    except psycopg.Error as error:
        told.sqlstate = error.sqlstate or "lost"


@pytest.mark.parametrize("name", CASES)
def test_two_sessions_on_the_same_rows(
    conn: psycopg.Connection, sessions: tuple[psycopg.Connection, psycopg.Connection], name: str
) -> None:
    this = CASES[name]
    first, second = sessions
    for statement in this.before:
        conn.execute(statement)  # type: ignore[arg-type]
    first.execute(this.first)  # type: ignore[arg-type]
    told, pid = Told(), second.info.backend_pid
    thread = threading.Thread(target=run, args=(second, this.second, told))
    thread.start()

    def blocked() -> bool:
        row = conn.execute("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", [pid]).fetchone()
        return bool(row and row[0])

    wait_until(lambda: told.sqlstate or blocked(), "the second session to end or to wait")
    assert (told.sqlstate == "") is this.waits
    first.execute(this.end)  # type: ignore[arg-type]
    thread.join(10)
    assert told.sqlstate == this.told
    found = conn.execute("select content from memory_plugin.search(array[%s])", [NS]).fetchall()
    assert frozenset(content for (content,) in found) == this.left
    # The rule that ties them: no memory without its namespace.
    assert conn.execute(
        "select count(*) from memory_plugin.memory_records r where not exists "
        "(select from memory_plugin.memory_namespaces n where n.name = r.namespace)"
    ).fetchone() == (0,)


@pytest.mark.parametrize("statement", [COMMIT, DELETE, PUT])
def test_a_lock_that_is_not_given_up_is_a_refusal_and_no_hang(
    conn: psycopg.Connection, sessions: tuple[psycopg.Connection, psycopg.Connection], statement: str
) -> None:
    first, second = sessions
    conn.execute(LIVE[0])  # type: ignore[arg-type]
    first.execute(f"select from memory_plugin.memory_namespaces where name = '{NS}' for update")  # type: ignore[arg-type]
    told = Told()
    run(second, statement, told)
    assert told.sqlstate == "55P03"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("statement", [COMMIT, PUT])
def test_a_stricter_isolation_is_told_of_the_conflict_and_does_not_loop(
    conn: psycopg.Connection, sessions: tuple[psycopg.Connection, psycopg.Connection], level: str, statement: str
) -> None:
    _, second = sessions
    second.execute(f"set transaction isolation level {level}")  # type: ignore[arg-type]
    second.execute("select count(*) from memory_plugin.memory_namespaces")
    conn.execute(OTHER)  # type: ignore[arg-type]
    second.execute("set local statement_timeout = '5s'")
    with pytest.raises(psycopg.errors.SerializationFailure):
        second.execute(statement)  # type: ignore[arg-type]
