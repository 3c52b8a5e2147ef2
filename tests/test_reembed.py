"""Changing the embedding model of a store that goes on serving: nothing fails, nothing is left behind."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psycopg
import pytest

from fixtures import embedding_service as service_module
from fixtures.embedding_service import CERTIFICATE, KEY, EmbeddingService, Reply, vector
from fixtures.installing import BEFORE_SKETCHES, MEMORY_PLUGIN, settings_for, undo
from fixtures.pgbouncer import Pooler, set_in_sessions
from fixtures.sidecars import Sidecar, wait_until
from memory_plugin.installer import api, cli, reembedding
from memory_plugin.installer.reembedding_wish import Wish

pytestmark = pytest.mark.servers("full")
Connection = psycopg.Connection[Any]
WORDS = ("car", "boat", "plane", "tree", "house", "river", "stone", "cloud")


@pytest.fixture
def other() -> Iterator[EmbeddingService]:
    """A service of a model with 384 dimensions."""
    service = EmbeddingService(384)
    yield service
    service.stop()


@pytest.fixture
def filled(conn: Connection, embedding_service: EmbeddingService) -> Connection:
    """A store with 300 memories, most of them embedded by its provider and some by their writers."""
    conn.execute(
        "select memory_plugin.configure_embedding(%s, 'first', 1536, %s, batch_size => 32, timeout_ms => 5000)",
        [embedding_service.url, KEY],
    )
    for i in range(300):
        text = f"{WORDS[i % 8]} number {i}"
        given = str(vector(text, 1536)) if i % 10 == 0 else None
        conn.execute("select memory_plugin.commit_memory('team:a', %s, embedding => %s)", [text, given])
    conn.execute("select memory_plugin.commit_memory('team:a', 'gone', expires_at => '2020-01-01')")
    conn.execute("call memory_plugin.embed_pending()")
    return conn


class Gate:
    """Let so many requests through, and hold the others back."""

    def __init__(self) -> None:
        self.places = threading.Semaphore(0)
        self.waiting = 0
        self.open = False

    def reset(self, *, opened: bool) -> None:
        """Let go of those that wait; hold back those to come unless it is opened."""
        before, self.places, self.waiting, self.open = self.places, threading.Semaphore(0), 0, opened
        for _ in range(100):
            before.release()

    def __call__(self, _service: EmbeddingService, texts: list[str], reply: Reply) -> Reply:
        if texts != [service_module.PROBE] and not self.open:
            self.waiting += 1
            self.places.acquire(timeout=60)
        return reply


def arguments(database: str, service: EmbeddingService, model: str = "second") -> list[str]:
    return [
        *("reembed", "--database-url", database, "--model", model, "--dimensions", str(service.dimensions)),
        *("--url", service.url, "--api-key-file", "-"),
    ]


def run(
    database: str, service: EmbeddingService, *more: str, model: str = "second"
) -> subprocess.CompletedProcess[str]:
    """Run reembed to its end."""
    command = [*MEMORY_PLUGIN, *arguments(database, service, model), *more]
    return subprocess.run(command, input=KEY, capture_output=True, text=True, timeout=120, check=False)


def begun(database: str, service: EmbeddingService) -> subprocess.Popen[str]:
    """Begin reembed."""
    program = subprocess.Popen(
        [*MEMORY_PLUGIN, *arguments(database, service)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert program.stdin is not None
    program.stdin.write(KEY)
    program.stdin.close()
    # Else communicate() would flush it.
    program.stdin = None
    return program


def kill(conn: Connection, program: subprocess.Popen[str], gate: Gate) -> None:
    """Kill a run between its first batch and its second; the server notices by itself."""
    wait_until(lambda: gate.waiting >= 1, "a request to be held back")
    gate.places.release()
    wait_until(lambda: gate.waiting >= 2, "the next request to be held back")
    program.kill()
    program.communicate()
    query = "select count(*) from pg_stat_activity where application_name like 'memory-plugin reembed%'"
    wait_until(lambda: conn.execute(query).fetchone() == (0,), "the killed run's sessions to end")


def unfinished(database: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what two commands say of a change that is not ended, the same both times."""
    told = []
    for command in (["status"], ["embedding", "show"]):
        capsys.readouterr()
        assert cli.run([*command, "--database-url", database]) == 0
        told.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("change ")])
    assert told[0] == told[1]
    return told[0]


def end(database: str, option: str) -> int:
    return cli.run(["reembed", "--database-url", database, option])


def dimensions(conn: Connection) -> dict[int | None, int]:
    """Return how many live memories have a vector of how many dimensions."""
    place = conn.execute(
        "select extnamespace::regnamespace::text from pg_extension where extname = 'vector'"
    ).fetchone()
    assert place is not None
    query = f"""
        select {place[0]}.vector_dims(embedding), count(*) from memory_plugin.memory_records
        where expires_at is null group by 1
    """
    return dict(conn.execute(query.encode()).fetchall())


def copies(conn: Connection) -> tuple[int, int]:
    """Return how many memories have a vector, and how many of these are in the copies that are searched."""
    row = conn.execute("""
        select count(*), count(v.id) filter (where s.signs = k.signs)
        from memory_plugin.memory_records r cross join lateral memory_plugin._sketch(r.embedding) k (signs)
        left join memory_plugin.memory_vectors v using (namespace, id)
        left join memory_plugin.memory_sketches s using (namespace, id) where r.embedding is not null
    """).fetchone()
    assert row is not None
    return row[0], row[1]


def spare(conn: Connection) -> bool:
    """Tell whether anything of a second vector is there."""
    row = conn.execute("""
        select exists (select from pg_class where relname like '%spare%')
        or exists (select from pg_attribute where attname like '%spare%' and not attisdropped)
        or exists (select from pg_trigger where tgname like '%spare%')
        or exists (select from memory_plugin.reembedding)
        or exists (select from memory_plugin.embedding_provider where slot = 'next')
    """).fetchone()
    assert row is not None
    return bool(row[0])


def first(conn: Connection, query: str) -> str:
    row = conn.execute(
        "select content from memory_plugin.search(array['team:a'], query => %s, lexical_weight => 0)", [query]
    ).fetchone()
    assert row is not None
    return str(row[0])


class Traffic:
    """Writes and searches over HTTP, one after the other, until stopped."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.failures: list[str] = []
        self.written = 0
        self.searches = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._write, self._search)]
        for thread in self._threads:
            thread.start()

    def _post(self, path: str, body: dict[str, Any], status: int) -> None:
        answer = self.client.post(path, json=body)
        if answer.status_code != status:
            self.failures.append(answer.text)

    def _write(self) -> None:
        # Some 30 a second: more than the model takes would have no end.
        while not self._stop.wait(0.03):
            self.written += 1
            body = {
                "content": f"{WORDS[self.written % 8]} of traffic {self.written}",
                "kind": "fact",
                "source": "agent",
            }
            self._post("/v1/namespaces/team:a/memories", body, 201)

    def _search(self) -> None:
        while not self._stop.is_set():
            self.searches += 1
            self._post("/v1/search", {"namespaces": ["team:a"], "query": "vehicle"}, 200)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_change_under_traffic_that_is_killed_twice_loses_nothing(
    database: str, filled: Connection, other: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")
    traffic = Traffic(sidecar.client)
    gate = other.behaviour = Gate()
    try:
        for killed in (False, True):
            program = begun(database, other)
            kill(filled, program, gate)
            gate.reset(opened=killed)
        done = run(database, other)
        assert done.returncode == 0, done.stderr
        assert "in force: second (384 dimensions)" in done.stdout
        wait_until(lambda: traffic.searches > 20 and traffic.written > 20, "some traffic")
    finally:
        traffic.stop()
    assert traffic.failures == []
    filled.execute("call memory_plugin.embed_pending()")
    wait_until(lambda: dimensions(filled) == {384: 300 + traffic.written}, "every memory to have its new vector")
    assert copies(filled) == (300 + traffic.written,) * 2
    assert first(filled, "automobile number 0").startswith("car ")
    body = {"content": "x", "kind": "fact", "source": "agent", "embedding": [0.5] * 384}
    assert sidecar.client.post("/v1/namespaces/team:a/memories", json=body).status_code == 201
    body["embedding"] = [0.5] * 1536
    refused = sidecar.client.post("/v1/namespaces/team:a/memories", json=body)
    assert (refused.status_code, refused.json()["message"]) == (400, "embedding must have 384 dimensions, not 1536")
    assert spare(filled)
    assert end(database, "--finish") == 0
    assert not spare(filled)
    assert api.verify_store(settings_for(database)).differences == ()
    assert first(filled, "automobile number 0").startswith("car ")
    assert api.install(settings_for(database)).dimensions == 384


def test_a_change_ends_though_writes_go_on_and_the_model_is_slow(
    database: str, filled: Connection, other: EmbeddingService, start_sidecar: Callable[..., Sidecar]
) -> None:
    sidecar = start_sidecar(database, MEMORY_PLUGIN_EMBED_SECONDS="1")
    other.behaviour = service_module.Slow(0.3)
    traffic = Traffic(sidecar.client)
    try:
        done = run(database, other)
    finally:
        traffic.stop()
    assert (done.returncode, traffic.failures) == (0, []), done.stderr
    assert "still wait" not in done.stdout
    wait_until(lambda: dimensions(filled) == {384: 300 + traffic.written}, "every memory to have its new vector")


class AlwaysOneMore:
    """Commit a memory whenever texts are asked for, so that one is always left; note what is asked under the lock."""

    def __init__(self, database: str, *, slow: bool) -> None:
        self.database = database
        self.slow = slow
        self.last: list[list[str]] = []
        self.committed = 0

    def __call__(self, _service: EmbeddingService, texts: list[str], reply: Reply) -> Reply:
        if texts == [service_module.PROBE]:
            return reply
        with psycopg.connect(self.database, autocommit=True) as look:
            row = look.execute("""
                select count(*) from pg_locks
                where granted and mode = 'ShareRowExclusiveLock' and relation = 'memory_plugin.memory_records'::regclass
            """).fetchone()
        if row != (0,):
            self.last.append(texts)
            if self.slow:
                time.sleep(reembedding.LAST_SECONDS + 0.3)
            return reply
        with psycopg.connect(self.database, autocommit=True) as conn:
            self.committed += 1
            conn.execute("select memory_plugin.commit_memory('team:a', %s)", [f"one more {self.committed}"])
        return reply


@pytest.mark.parametrize("slow", [False, True], ids=["in time", "too slow"])
def test_what_is_written_up_to_the_swap_is_fetched_while_writers_wait_unless_the_provider_is_slow(
    database: str, filled: Connection, other: EmbeddingService, slow: bool
) -> None:
    more = other.behaviour = AlwaysOneMore(database, slow=slow)
    done = run(database, other)
    assert done.returncode == 0, done.stderr
    if slow:
        # The swap is tried again, and each time gives up on what is left; the last time it is made without.
        assert 1 < len(more.last) <= len(reembedding.TRIES)
        # What was written while the others waited, and nothing that was fetched before.
        asked = [text for texts in more.last for text in texts]
        assert len(set(asked)) == len(asked)
        assert all(text.startswith("one more ") for text in asked)
    else:
        assert more.last == [[f"one more {more.committed}"]]
    assert ("memories of the last moments" in done.stderr) == slow
    if not slow:
        # Without a further call: nobody but the swap could have fetched it.
        assert dimensions(filled) == {384: 300 + more.committed}
        assert copies(filled) == (300 + more.committed,) * 2


def test_a_batch_means_its_own_types_whatever_the_callers_path_leads_to(
    database: str, filled: Connection, other: EmbeddingService
) -> None:
    settings = settings_for(database)
    with reembedding.session(settings) as connection:
        change = reembedding.Change(settings, lambda line: None, lambda total: None, connection)
        change.start(Wish("second", 384, other.url, KEY))
    for name in ("uuid", "text", "int4"):
        filled.execute(f"create domain public.{name} as integer check (value > 10)".encode())
    filled.execute("set search_path = public, memory_plugin, pg_catalog")
    (told,) = filled.execute("call memory_plugin._reembed_batch(10, false, null)").fetchone() or ({},)
    assert (told["stored"], told["problem"]) == (10, None)


def test_back_from_the_middle_and_from_behind_the_swap(
    database: str, filled: Connection, other: EmbeddingService, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = other.behaviour = Gate()
    program = begun(database, other)
    kill(filled, program, gate)
    gate.reset(opened=True)
    assert unfinished(database, capsys) == [
        "change of the model: to second (384 dimensions), 32 of 300 memories: "
        "memory-plugin reembed --model second --dimensions 384 goes on, --abort goes back"
    ]
    assert end(database, "--finish") == 2
    assert end(database, "--abort") == 0
    assert not spare(filled)
    assert unfinished(database, capsys) == []
    assert dimensions(filled) == {1536: 300}
    assert end(database, "--abort") == 2

    assert run(database, other).returncode == 0
    assert dimensions(filled) == {384: 300}
    assert unfinished(database, capsys) == [
        "change of the model: to second (384 dimensions), done: "
        "memory-plugin reembed --finish drops the former vectors, --abort goes back"
    ]
    # Behind the swap: one is changed, one is new, one is deleted.
    row = filled.execute("select id from memory_plugin.memory_records where content = 'car number 0'").fetchone()
    assert row is not None
    filled.execute("select memory_plugin.commit_memory('team:a', 'a changed content', id => %s)", [row[0]])
    filled.execute("select memory_plugin.commit_memory('team:a', 'a new one')")
    filled.execute("delete from memory_plugin.memory_records where content = 'boat number 1'")
    filled.execute("call memory_plugin.embed_pending()")
    assert dimensions(filled) == {384: 300}
    assert end(database, "--abort") == 0
    assert not spare(filled)
    assert dimensions(filled) == {1536: 298, None: 2}
    assert copies(filled) == (298, 298)
    filled.execute("call memory_plugin.embed_pending()")
    assert dimensions(filled) == {1536: 300}
    assert api.verify_store(settings_for(database)).differences == ()


@BEFORE_SKETCHES
def test_a_change_that_began_before_sketches_were_as_they_are_ends_with_them(
    database: str, filled: Connection, other: EmbeddingService, undone: list[str]
) -> None:
    gate = other.behaviour = Gate()
    program = begun(database, other)
    kill(filled, program, gate)
    gate.reset(opened=True)
    undo(filled, *undone)
    filled.execute(
        "select memory_plugin.commit_memory('team:a', 'a changed one', id => (select id from "
        "memory_plugin.memory_records where content = 'car number 0'))"
    )
    api.install(settings_for(database))
    held = "select (select count(*) from memory_plugin.memory_sketches_spare), (select count(*) from "
    held += "memory_plugin.memory_records where embedding_spare is not null)"
    ((sketches, vectors),) = filled.execute(held).fetchall()
    assert sketches == vectors > 0
    assert run(database, other).returncode == 0
    assert dimensions(filled) == {384: 300}
    assert copies(filled) == (300, 300)
    assert end(database, "--abort") == 0
    filled.execute("call memory_plugin.embed_pending()")
    assert copies(filled) == (300, 300)
    assert api.verify_store(settings_for(database)).differences == ()


def test_a_model_of_the_same_dimensions_takes_over_in_one_session(
    database: str, filled: Connection, embedding_service: EmbeddingService
) -> None:
    before = filled.execute("select embedding::text from memory_plugin.memory_records where content like 'tree%'")
    texts = {row[0] for row in before.fetchall()}
    another = EmbeddingService(1536)

    def reversed_vectors(items: list[dict[str, Any]]) -> None:
        for item in items:
            item["embedding"].reverse()

    another.behaviour = service_module.data(reversed_vectors)
    try:
        assert first(filled, "tree number 3") == "tree number 3"
        assert run(database, another).returncode == 0
        assert first(filled, "tree number 3") == "tree number 3"
        # What is committed, changed and deleted in a session of before the swap reaches the copy.
        filled.execute("select memory_plugin.commit_memory('team:a', 'tree of another kind')")
        filled.execute("call memory_plugin.embed_pending()")
        assert another.sent["tree of another kind"] == 1
        assert embedding_service.sent["tree of another kind"] == 0
        assert copies(filled) == (301, 301)
        assert first(filled, "tree of another kind") == "tree of another kind"
        after = filled.execute("select embedding::text from memory_plugin.memory_records where content like 'tree%'")
        assert not texts & {row[0] for row in after.fetchall()}
        assert end(database, "--finish") == 0
    finally:
        another.stop()


def test_what_cannot_be_is_refused_and_changes_nothing(
    database: str, filled: Connection, other: EmbeddingService, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*more: str) -> tuple[int, str]:
        code = cli.run(["reembed", "--database-url", database, *more])
        return code, capsys.readouterr().err

    assert said("--model", "x")[0] == 2
    assert said("--finish", "--abort")[0] == 2
    assert said("--finish", "--model", "x", "--dimensions", "5")[0] == 2
    assert said()[0] == 2
    code, text = said("--model", "x", "--dimensions", "384")
    assert code == 31
    assert "the vectors have 1536 dimensions" in text
    code, text = said("--model", "x", "--dimensions", "384", "--url", "ftp://host")
    assert code == 21
    assert "url must be http://" in text
    code, text = said("--model", "x", "--dimensions", "384", "--url", other.url)
    assert code == 31
    assert "the key is not accepted" in text
    assert "--key-file" in text
    assert KEY not in text
    assert other.requests == 1
    assert said("--model", "x", "--dimensions", "384", "--url", "http://127.0.0.1:9")[0] == 31
    assert not spare(filled)
    filled.execute("select memory_plugin.remove_embedding_provider()")
    code, text = said("--model", "x", "--dimensions", "384")
    assert code == 21
    assert "url is required" in text
    # Embeddings that came with their memories, and no provider: the new model is fetched all the same.
    assert run(database, other).returncode == 0
    assert dimensions(filled) == {384: 300}
    assert run(database, other, model="third").returncode == 2
    assert end(database, "--abort") == 0
    assert dimensions(filled) == {1536: 300}
    assert filled.execute("select memory_plugin.embedding_provider()").fetchone() == (None,)


@pytest.mark.parametrize("code", [400, 403])
def test_a_refused_memory_keeps_the_change_from_being_made_unless_it_may_be_left(
    database: str, filled: Connection, other: EmbeddingService, code: int
) -> None:
    filled.execute("select memory_plugin.commit_memory('team:a', 'an unspeakable word')")
    other.behaviour = service_module.refusing("unspeakable", code)
    done = run(database, other)
    assert done.returncode == 29
    assert "refuses 1 memories" in done.stderr
    assert "unspeakable is too much for me" in done.stderr
    assert 1536 in dimensions(filled)
    done = run(database, other, "--leave-refused")
    assert done.returncode == 0, done.stderr
    assert dimensions(filled) == {384: 300, None: 1}
    found = filled.execute("select reason from memory_plugin.embedding_failures()").fetchall()
    assert len(found) == 1


@pytest.mark.parametrize(
    ("trouble", "problem"),
    [
        (service_module.crashing("unspeakable"), "the connection was lost"),
        (service_module.refusing("unspeakable", 429), "HTTP 429"),
    ],
    ids=["crash", "429"],
)
def test_a_memory_that_the_model_fails_at_is_found_and_said(
    database: str,
    filled: Connection,
    other: EmbeddingService,
    trouble: service_module.Behaviour,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def hasty(seconds: float) -> None:
        time.sleep(min(seconds, 0.1))

    monkeypatch.setattr(reembedding, "time", SimpleNamespace(monotonic=time.monotonic, sleep=hasty))
    key = tmp_path / "key"
    key.write_text(KEY)
    change = "update memory_plugin.memory_records set content = %s where content = 'boat number 1'"
    filled.execute(change, ["an unspeakable word"])
    other.behaviour = trouble
    assert cli.run([*arguments(database, other)[:-1], str(key)]) == 29
    said = capsys.readouterr().err
    assert f"is waited for: {problem}" in said
    assert "refuses 1 memories" in said
    # What was refused is asked for again by a run that goes on.
    other.behaviour = service_module.losing(3)
    assert cli.run([*arguments(database, other)[:-1], str(key)]) == 0
    assert dimensions(filled) == {384: 300}


def test_a_memory_that_somebody_holds_is_waited_for_and_not_sent_meanwhile(
    database: str, filled: Connection, other: EmbeddingService
) -> None:
    gate = other.behaviour = Gate()
    program = begun(database, other)
    wait_until(lambda: gate.waiting >= 1, "a request to be held back")
    with psycopg.connect(database) as holder:
        holder.execute("update memory_plugin.memory_records set pin = true where content = 'car number 200'")
        gate.reset(opened=True)
        wait_until(lambda: len(other.sent) >= 299, "the others to be fetched")
        # The swap asks for the table again and again meanwhile, and gives way.
        waits = "select true from pg_locks where not granted and relation = 'memory_plugin.memory_records'::regclass"
        wait_until(lambda: filled.execute(waits).fetchone(), "the swap to wait for the table")
    said = program.communicate(timeout=60)[0]
    assert program.returncode == 0, said
    assert dimensions(filled) == {384: 300}
    assert max(other.sent.values()) == 1


def test_a_run_that_is_gone_on_with_takes_a_new_key_and_url_and_no_other_prefix(
    database: str, filled: Connection, other: EmbeddingService, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = other.behaviour = Gate()
    kill(filled, begun(database, other), gate)
    gate.reset(opened=True)
    # It needs the store's own provider no more.
    filled.execute("select memory_plugin.remove_embedding_provider()")
    assert cli.run(["embedding", "show", "--database-url", database]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["provider", "change of the model"]
    moved = EmbeddingService(384, key="another-key")
    try:
        command = [*MEMORY_PLUGIN, *arguments(database, moved)]
        environ = {"input": "another-key", "capture_output": True, "text": True, "timeout": 120, "check": False}
        prefixed = subprocess.run([*command, "--text-prefix", "passage: "], **environ)
        assert prefixed.returncode == 21
        assert "text_prefix" in prefixed.stderr
        sent = other.requests
        done = subprocess.run(command, **environ)
        assert done.returncode == 0, done.stderr
        assert other.requests == sent
        assert dimensions(filled) == {384: 300}
        now = filled.execute("select url, api_key from memory_plugin.embedding_provider where slot = 'current'")
        assert now.fetchone() == (f"{moved.url}/v1/embeddings", "another-key")
    finally:
        moved.stop()


def test_a_service_with_a_certificate_of_its_own_is_changed_to_and_gone_on_with(
    database: str, filled: Connection, other: EmbeddingService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    authorities = "select ca_certificate from memory_plugin.embedding_provider where slot = 'next'"
    services = [EmbeddingService(384, tls=service_module.tls()) for _ in range(2)]
    try:
        first_one, second_one = ([*arguments(database, service)[:-1], str(key)] for service in services)
        assert cli.run(first_one) == 31
        assert "certificate not accepted" in capsys.readouterr().err
        assert cli.run([*first_one, "--ca-file", str(key)]) == 21
        assert "ca_certificate must be a certificate in PEM" in capsys.readouterr().err
        services[0].behaviour = service_module.refusing("river", 400)
        assert cli.run([*first_one, "--ca-file", str(CERTIFICATE)]) == 29
        assert filled.execute(authorities).fetchone() == (CERTIFICATE.read_text(),)
        # Kept for the same server, and trusted for no other.
        assert cli.run(first_one) == 29
        renew = "select memory_plugin._reembed_renew(%s, null, false, '', '', null)"
        with filled.transaction(force_rollback=True):
            filled.execute(renew, [other.url])
            assert filled.execute(authorities).fetchone() == (None,)
        assert cli.run([*second_one, "--ca-file", str(CERTIFICATE)]) == 0
    finally:
        for service in services:
            service.stop()
    assert dimensions(filled) == {384: 300}


def test_two_runs_at_once_are_one(database: str, filled: Connection, other: EmbeddingService) -> None:
    gate = other.behaviour = Gate()
    program = begun(database, other)
    wait_until(lambda: gate.waiting >= 1, "a request to be held back")
    second = run(database, other)
    assert second.returncode == 18
    assert "another reembed is at work" in second.stderr
    gate.reset(opened=True)
    said = program.communicate(timeout=60)[0]
    assert program.returncode == 0, said
    assert dimensions(filled) == {384: 300}


def test_a_run_that_waits_for_the_provider_outlives_the_patience_with_idle_sessions(
    database: str, filled: Connection, other: EmbeddingService
) -> None:
    filled.execute(f"alter database \"{filled.info.dbname}\" set idle_session_timeout = '400ms'".encode())
    busy = [Reply(429, b"", {"Retry-After": "1"})]
    other.behaviour = lambda _service, texts, reply: (
        reply if texts == [service_module.PROBE] or not busy else busy.pop()
    )
    done = run(database, other)
    assert done.returncode == 0, done.stderr
    assert "is waited for: HTTP 429" in done.stderr
    assert dimensions(filled) == {384: 300}


def test_no_batch_waits_for_its_statements_to_be_compiled(conn: Connection) -> None:
    plans: list[str] = []
    conn.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
    conn.execute("load 'auto_explain'")
    conn.execute("set auto_explain.log_nested_statements = on")
    conn.execute("set auto_explain.log_min_duration = 0")
    conn.execute("set client_min_messages = log")
    conn.execute("set jit = on")
    conn.execute("select memory_plugin._reembed_settle(gen_random_uuid(), '{}', '{}', '{}', '{}', null)")
    assert any("reembedding" in plan for plan in plans)
    assert not any("JIT" in plan for plan in plans)


def test_a_run_through_a_pooler_leaves_no_setting_behind(pooler: Pooler, database: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(database)["dbname"])
    done = subprocess.run(
        [*MEMORY_PLUGIN, "reembed", "--finish", "--database-url", pooler.url(name)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "no change of the model is under way" in done.stderr
    assert set_in_sessions(pooler, name) == []
