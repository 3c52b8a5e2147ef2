"""`memory-plugin embedding`: what works is stored after it was tried, what does not is one line and changes nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fixtures.embedding_service import KEY, EmbeddingService, Reply
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
    absent = embedding(database, *arguments[:-1], str(tmp_path / "absent"), key="")
    assert absent.returncode == 21
    assert "--key-file" in absent.stderr


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
    assert embedding(database, "test").returncode == 15
