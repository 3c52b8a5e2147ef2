"""`memory-plugin embedding`: what works is stored after it was tried, what does not is one line and changes nothing."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.embedding_service import KEY, EmbeddingService, Reply, Slow
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, clean_env


def embedding(database: str, *arguments: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    environ = clean_env(MEMORY_PLUGIN_DATABASE_URL=database, **({"MEMORY_PLUGIN_EMBEDDING_KEY": key} if key else {}))
    done = subprocess.run(
        [PROGRAM, "embedding", *arguments], env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    # Whatever happens, the key is nowhere.
    assert KEY not in done.stdout + done.stderr
    return done


def configured(conn: psycopg.Connection[Any]) -> tuple[str, str | None] | None:
    row = conn.execute("select model, api_key from memory_plugin.embedding_provider").fetchone()
    return None if row is None else (row[0], row[1])


@pytest.mark.servers("full")
def test_a_service_that_works_is_set_shown_and_tried(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    assert json.loads(embedding(database, "show", "--json").stdout or "0") is None
    done = embedding(
        database, "configure", "--url", embedding_service.url, "--model", "bag", "--batch-size", "7", "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["dimensions"], told["batch_size"], told["has_key"]) == ("bag", 1536, 7, True)
    assert told["test"]["ok"] is True
    assert told["test"]["took_ms"] > 0
    assert configured(conn) == ("bag", KEY)
    shown = embedding(database, "show").stdout
    assert "model: bag" in shown
    assert "status pending: 0" in shown
    tried = embedding(database, "test")
    assert tried.returncode == 0
    assert "ok: yes" in tried.stdout


@pytest.mark.servers("full")
def test_a_key_may_come_from_a_file(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    arguments = ("configure", "--url", embedding_service.url, "--model", "bag", "--key-file", str(file))
    assert embedding(database, *arguments, key="").returncode == 0
    assert configured(conn) == ("bag", KEY)
    (tmp_path / "blank").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    change = ("reembed", "--model", "bag", "--dimensions", "1536", "--key-file")
    for name, why in (("absent", "cannot read"), ("blank", "the file is empty"), ("binary", "not text")):
        refused = embedding(database, *arguments[:-1], str(tmp_path / name), key="")
        environ = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
        changed = subprocess.run(
            [PROGRAM, *change, str(tmp_path / name)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for done in (refused, changed):
            assert (done.returncode, "--key-file" in done.stderr, why in done.stderr) == (21, True, True), done.stderr


@pytest.mark.servers("full")
def test_a_key_is_kept_for_its_own_server_alone(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    to = ("configure", "--url", embedding_service.url, "--model", "bag")
    assert embedding(database, *to).returncode == 0
    assert embedding(database, *to, "--batch-size", "7", key="").returncode == 0
    assert configured(conn) == ("bag", KEY)
    elsewhere = ("configure", "--url", "http://127.0.0.1:9", "--model", "bag", "--no-test")
    assert embedding(database, *elsewhere, key="").returncode == 0
    assert configured(conn) == ("bag", None)
    assert embedding(database, *to).returncode == 0
    conn.execute("select memory_plugin.configure_embedding(%s, 'bag', 1536, '')", [embedding_service.url])
    assert configured(conn) == ("bag", None)


@pytest.mark.servers("full")
def test_another_model_beneath_vectors_that_are_there_takes_a_word(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    to = ("configure", "--url", embedding_service.url, "--model")
    assert embedding(database, *to, "bag").returncode == 0
    assert embedding(database, *to, "sack").returncode == 0
    conn.execute("select memory_plugin.commit_memory('team:a', 'a car')")
    conn.execute("call memory_plugin.embed_pending()")
    refused = embedding(database, *to, "bag")
    assert refused.returncode == 29
    assert "reembed" in refused.stderr
    assert configured(conn) == ("sack", KEY)
    forced = embedding(database, *to, "bag", "--force")
    assert forced.returncode == 0
    assert "keep the vectors of sack" in forced.stderr
    assert embedding(database, *to, "bag").stderr == ""


@pytest.mark.servers("full")
def test_nothing_is_locked_while_a_service_is_tried(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    to = ("configure", "--url", embedding_service.url, "--model", "bag")
    assert embedding(database, *to).returncode == 0
    slow = embedding_service.behaviour = Slow()
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(embedding(database, *to).returncode))
    thread.start()
    assert slow.waiting.acquire(timeout=30)
    conn.execute("set lock_timeout = '1ms'")
    for table in ("embedding_provider", "embedding_state"):
        conn.execute(f"select from memory_plugin.{table} for update".encode())
    conn.execute("select memory_plugin.retry_embeddings()")
    slow.released.set()
    thread.join(60)
    assert answers == [0]


@pytest.mark.servers("full")
def test_the_servers_log_never_shows_a_key(
    server: Server, database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService, tmp_path: Path
) -> None:
    if server.own is None:
        pytest.skip("the log of a server that was given is not ours to read")
    log = server.own.log_file
    name = conn.info.dbname
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = 'debug5'"):
        conn.execute(f'alter database "{name}" set {setting}'.encode())
    file = tmp_path / "key"
    file.write_text(KEY)
    before = log.stat().st_size
    assert embedding(database, "configure", "--url", embedding_service.url, "--model", "bag").returncode == 0
    assert embedding(database, "configure", "--url", "ftp://x", "--model", "bag").returncode == 21
    assert embedding(database, "test").returncode == 0
    change = ("reembed", "--dimensions", "1536", "--url", embedding_service.url, "--key-file", str(file), "--model")
    for model in ("sack", "", "sack"):
        run = [PROGRAM, *change, model]
        environ = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
        done = subprocess.run(run, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode in (0, 2, 21), done.stderr
    written = log.read_bytes()[before:]
    assert b"configure_embedding(" in written
    assert b"_reembed_start(" in written
    assert KEY.encode() not in written


@pytest.mark.servers("full")
def test_a_role_without_temporary_tables_is_refused_before_its_key_is_sent(
    server: Server,
    database: str,
    conn: psycopg.Connection[Any],
    embedding_service: EmbeddingService,
    new_role: Callable[..., str],
) -> None:
    role = new_role(password="x")
    conn.execute(f'grant memory_plugin_owner to "{role}"'.encode())
    conn.execute(f'revoke temporary on database "{conn.info.dbname}" from public'.encode())
    url = server.url(conn.info.dbname, user=role, password="x", tcp=not server.managed)
    to = ("configure", "--url", embedding_service.url, "--model", "bag")
    refused = embedding(url, *to)
    assert (refused.returncode, refused.stderr.count("\n")) == (22, 1), refused.stderr
    grant = refused.stderr.rpartition("run: ")[2].strip()
    assert grant == f"grant temporary on database {conn.info.dbname} to {role}"
    assert configured(conn) is None
    change = [PROGRAM, "reembed", "--model", "bag", "--dimensions", "8", "--url", embedding_service.url]
    environ = clean_env(MEMORY_PLUGIN_DATABASE_URL=url, MEMORY_PLUGIN_EMBEDDING_KEY=KEY)
    done = subprocess.run(change, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "grant temporary" in done.stderr, KEY in done.stderr) == (22, True, False), done.stderr
    assert embedding_service.requests == 0
    # Without a key there is nothing to hide; and with the grant it goes.
    assert embedding(url, *to, "--no-test", key="").returncode == 0
    conn.execute(grant.encode())
    assert embedding(url, *to).returncode == 0
    assert configured(conn) == ("bag", KEY)


@pytest.mark.servers("full")
def test_who_may_read_all_data_reads_no_key(
    conn: psycopg.Connection[Any], embedding_service: EmbeddingService, new_role: Callable[..., str]
) -> None:
    conn.execute("select memory_plugin.configure_embedding(%s, 'bag', 1536, %s)", [embedding_service.url, KEY])
    role = new_role()
    conn.execute(f'grant pg_read_all_data to "{role}"'.encode())
    conn.execute(f'set role "{role}"'.encode())
    assert conn.execute("select api_key from memory_plugin.embedding_provider").fetchall() == []


@pytest.mark.servers("full")
def test_a_service_is_tried_with_what_is_stored(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    to = ("configure", "--url", embedding_service.url, "--model", "bag")
    assert embedding(database, *to, "--timeout-ms", "100", "--max-characters", "100", "--no-test").returncode == 0

    def late(service: EmbeddingService, texts: list[str], reply: Reply) -> Reply:
        time.sleep(0.5)
        return reply

    embedding_service.behaviour = late
    # The wait of a request is the default again, and long enough.
    done = embedding(database, *to)
    assert done.returncode == 0, done.stderr
    stored = conn.execute("select timeout_ms, max_characters from memory_plugin.embedding_provider").fetchone()
    assert stored == (30000, 16000)


@pytest.mark.servers("full")
def test_a_service_that_does_not_work_is_one_line_and_not_stored(
    database: str, conn: psycopg.Connection[Any], embedding_service: EmbeddingService
) -> None:
    to = ("configure", "--url", embedding_service.url, "--model", "bag")
    wrong = embedding(database, *to, key="another-key")
    assert wrong.returncode == 31
    assert wrong.stderr.count("\n") == 1
    assert "401" in wrong.stderr
    away = embedding(database, "configure", "--url", "http://127.0.0.1:9", "--model", "bag")
    assert away.returncode == 31

    def short(service: EmbeddingService, texts: list[str], reply: Reply) -> Reply:
        body = json.loads(reply.body)
        for one in body["data"]:
            one["embedding"] = [1.0, 2.0]
        return Reply(200, json.dumps(body).encode(), reply.headers)

    embedding_service.behaviour = short
    small = embedding(database, *to)
    assert small.returncode == 31
    assert "1536" in small.stderr
    assert configured(conn) is None
    assert embedding(database, *to, "--no-test").returncode == 0
    assert configured(conn) == ("bag", KEY)
    assert embedding(database, "test").returncode == 31


@pytest.mark.servers("full")
@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("--url", "ftp://x", "--model", "m"), 21, "url"),
        (("--url", "http://a..b", "--model", "m", "--no-test"), 21, "url"),
        (("--url", f"http://{'a' * 64}.org", "--model", "m", "--no-test"), 21, "url"),
        (("--url", "http://127.0.0.1:9", "--model", "m", "--batch-size", "0"), 21, "batch_size"),
        (("--url", "http://127.0.0.1:9", "--model", "m", "--dimensions", "3"), 20, "dimensions"),
        (("--model", "m"), 2, "--url"),
    ],
)
def test_a_wish_that_breaks_a_rule_is_named(
    database: str, conn: psycopg.Connection[Any], arguments: tuple[str, ...], status: int, word: str
) -> None:
    done = embedding(database, "configure", *arguments)
    assert (done.returncode, word in done.stderr) == (status, True), done.stderr
    assert configured(conn) is None


@pytest.mark.servers("embedded18")
def test_without_python_in_the_database_it_says_so(database: str) -> None:
    done = embedding(database, "configure", "--url", "http://127.0.0.1:9", "--model", "m")
    assert done.returncode == 15
    assert "plpython3" in done.stderr
    assert "none" in embedding(database, "show").stdout
    tried = embedding(database, "test")
    assert tried.returncode == 15
    assert "type cast" not in tried.stderr
    environ = clean_env(MEMORY_PLUGIN_DATABASE_URL=database)
    change = [PROGRAM, "reembed", "--model", "m", "--dimensions", "3"]
    changed = subprocess.run(change, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert changed.returncode == 15
    for said in (tried.stderr, changed.stderr):
        assert said.endswith(" -- install postgresql-plpython3-N, then run memory-plugin install as superuser\n")
