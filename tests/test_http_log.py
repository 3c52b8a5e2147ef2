"""The log: one line a thing, as text or as JSON, with request ids, without content or secrets."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from fixtures.cluster import free_port
from fixtures.databases import fresh_database
from fixtures.server import Server
from fixtures.sidecars import PROGRAM, Sidecar, clean_env, running_sidecar, wait_until
from http_sidecar import ask, raw, serving
from memory_plugin.thin_api.log import log
from memory_plugin.thin_api.settings import SettingsError, from_env

OPERATIONS = Path(__file__).parent.parent / "docs" / "operations.md"
SECRET = "hunter2-s3cret"
TEXT_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z memory-plugin ((WARNING|ERROR) )?[A-Za-z_]+( \w+=(\"[^\"]*\"|\S+))*"
)


@contextmanager
def started(database: str, log_file: Path, **settings: str) -> Iterator[Path]:
    """Serve at an address of any kind until the block ends; yield the log."""
    command = [sys.executable, "-m", "memory_plugin.thin_api"]
    with log_file.open("wb") as output:
        env = clean_env(MEMORY_PLUGIN_CONNINFO=database, **settings)
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        yield log_file
    finally:
        process.terminate()
        assert process.wait(20) == 0


def lines(sidecar: Sidecar) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sidecar.log().splitlines()]


@pytest.fixture(params=["text", "json"])
def provoked(
    request: pytest.FixtureRequest, database: str, tmp_path: Path
) -> Iterator[tuple[str, Sidecar, dict[str, int]]]:
    """Yield a sidecar after requests full of secrets, a 500 and a 503; with the status of each request id."""
    answers: dict[str, int] = {}
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_LOG=request.param) as sidecar:

        def send(method: str, path: str, body: object = None) -> None:
            answer = ask(sidecar, method, path, body)
            answers[answer.headers["x-request-id"]] = answer.status

        memory = {"content": f"the password is {SECRET}", "kind": "fact", "source": "user"}
        send("POST", f"/v1/namespaces/workspace:{SECRET}/memories", memory)
        send("POST", f"/v1/namespaces/workspace:{SECRET}/memories", {**memory, "kind": SECRET})
        send(
            "POST",
            f"/v1/namespaces/workspace:{SECRET}/memories",
            {**memory, "metadata": {SECRET: SECRET}, "pin": SECRET},
        )
        send("POST", f"/v1/namespaces/workspace:{SECRET}/memories", f'{{"content": "{SECRET}'.encode())
        send("POST", f"/v1/namespaces/workspace:{SECRET}/memories", SECRET.encode() + b"\xff\0")
        send("POST", "/v1/search", {"namespaces": [f"workspace:{SECRET}"], "query": SECRET})
        send("POST", "/v1/search", {"namespaces": SECRET})
        send("GET", f"/v1/{SECRET}?token={SECRET}")
        answer = raw(sidecar, f"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Request-Id: {SECRET} {SECRET}\r\n\r\n".encode())
        answers[answer.headers["x-request-id"]] = answer.status
        with psycopg.connect(database, autocommit=True) as conn:
            # An error of ours, and one of Postgres' own that quotes what it was given.
            conn.execute(
                "create or replace function memory_plugin.v1_search(body json) returns json language plpgsql as "
                "$$ begin raise exception using errcode = 'XX000', message = body::text, detail = body::text; end $$"
            )
            send("POST", "/v1/search", {"query": SECRET})
            conn.execute("drop function memory_plugin.v1_search(json)")
            send("POST", "/v1/search", {"query": SECRET})
        yield request.param, sidecar, answers


def test_neither_content_nor_a_name_nor_a_secret_is_ever_logged(
    provoked: tuple[str, Sidecar, dict[str, int]],
) -> None:
    _, sidecar, answers = provoked
    assert {200, 201, 400, 404, 500, 503} <= set(answers.values())
    assert SECRET not in sidecar.log()


def test_each_5xx_is_one_line_with_its_request_id_and_no_other_request_is(
    provoked: tuple[str, Sidecar, dict[str, int]],
) -> None:
    form, sidecar, answers = provoked
    if form == "json":
        found = {line["request_id"]: line["status"] for line in lines(sidecar) if line["event"] == "failed"}
    else:
        matches = re.findall(r" ERROR failed request_id=(\S+) status=(\d+) ", sidecar.log())
        found = {request_id: int(status) for request_id, status in matches}
    assert found == {request_id: status for request_id, status in answers.items() if status >= 500}
    assert sorted(found.values()) == [500, 503]


def test_each_line_is_of_the_format(provoked: tuple[str, Sidecar, dict[str, int]]) -> None:
    form, sidecar, _ = provoked
    sidecar.process.terminate()
    assert sidecar.process.wait(20) == 0
    text = sidecar.log().splitlines()
    assert len(text) >= 5
    if form == "text":
        assert [line for line in text if not TEXT_LINE.fullmatch(line)] == []
        return
    for line in lines(sidecar):
        assert {"ts", "level", "event", "program"} <= set(line)
        assert line["level"] in ("info", "warning", "error")
    (failed, _) = [line for line in lines(sidecar) if line["event"] == "failed"]
    assert failed["level"] == "error"
    assert (failed["status"], failed["reason"], failed["route"]) == (500, "XX000", "POST /v1/search")
    assert isinstance(failed["ms"], int)
    assert {"started", "database_reachable", "superuser", "stopped"} <= {line["event"] for line in lines(sidecar)}


def test_an_id_that_the_client_gives_is_the_one_that_is_answered_and_logged(server: Server, tmp_path: Path) -> None:
    with (
        fresh_database(server) as nothing_installed,
        serving(nothing_installed, tmp_path / "log", status=503) as sidecar,
    ):
        answer = raw(
            sidecar, b"POST /v1/search HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine-7\r\nContent-Length: 2\r\n\r\n{}"
        )
        assert (answer.status, answer.headers["x-request-id"]) == (503, "mine-7")
        assert " failed request_id=mine-7 status=503 reason=3F000 " in sidecar.log()


@pytest.mark.servers("any")
def test_a_superuser_is_warned_of_once_and_a_member_of_the_api_role_is_not(
    server: Server, database: str, new_role: Any, tmp_path: Path
) -> None:
    with serving(database, tmp_path / "log", MEMORY_PLUGIN_SWEEP_SECONDS="1") as sidecar:
        wait_until(lambda: " WARNING superuser " in sidecar.log(), "the warning")
        wait_until(lambda: b'outcome="done"} 2.0' in ask(sidecar, "GET", "/metrics").body, "two rounds")
        assert sidecar.log().count(" superuser ") == 1
    login = new_role(password="x1")
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(f'grant memory_plugin_api to "{login}"'.encode())
    name = str(conninfo_to_dict(database)["dbname"])
    url = server.url(name, user=login, password="x1")
    with serving(url, tmp_path / "log2", MEMORY_PLUGIN_SWEEP_SECONDS="1") as sidecar:
        wait_until(
            lambda: b'outcome="done"} 2.0' in ask(sidecar, "GET", "/metrics").body, "two rounds of the plain role"
        )
        assert "superuser" not in sidecar.log()
        assert "maintenance_failed" not in sidecar.log()


@pytest.mark.servers("full")
def test_the_servers_log_shows_no_content_with_the_settings_of_the_guide(
    server: Server, database: str, new_role: Any, tmp_path: Path
) -> None:
    if server.own is None:
        pytest.skip("the log of a server that was given is not ours to read")
    log_file, login, name = server.own.log_file, new_role(password="x1"), str(conninfo_to_dict(database)["dbname"])
    server.execute(f'grant memory_plugin_api to "{login}"', name)
    for setting in (
        "log_statement = 'all'",
        "log_min_duration_statement = 0",
        "log_parameter_max_length_on_error = -1",
    ):
        server.execute(f'alter database "{name}" set {setting}')
    guide = re.findall(r"^alter role tenant_sidecar set .*$", OPERATIONS.read_text(), re.MULTILINE)
    shown = []
    for statements in ([], guide):
        for statement in statements:
            server.execute(statement.replace("tenant_sidecar", f'"{login}"'))
        before = log_file.stat().st_size
        with serving(server.url(name, user=login, password="x1"), tmp_path / "log") as sidecar:
            path = "/v1/namespaces/team:a/memories"
            for end in ('"}', "", '\\u0000"}'):
                ask(sidecar, "POST", path, f'{{"kind": "fact", "source": "user", "content": "{SECRET}{end}'.encode())
            ask(sidecar, "POST", "/v1/search", f'{{"namespaces": ["team:a"], "query": "{SECRET}"}}'.encode())
        written = log_file.read_bytes()[before:]
        assert b"v1_search(" in written
        shown.append(SECRET.encode() in written)
    assert shown == [True, False]


@pytest.mark.servers("any")
def test_listening_beyond_loopback_is_warned_of_loudly(database: str, tmp_path: Path) -> None:
    for host, warned in (("", True), ("0.0.0.0", True), ("127.0.0.1", False), ("[::1]", False)):
        address = f"{host}:{free_port()}"
        with started(database, tmp_path / "log", MEMORY_PLUGIN_LISTEN_ADDR=address) as log_file:
            # Only then is the server up, and what it says of its address said.
            wait_until(lambda: "database_reachable" in log_file.read_text(), "the start")
            assert (" WARNING LISTENING_BEYOND_LOOPBACK " in log_file.read_text()) is warned


@pytest.mark.servers("any")
def test_a_boot_and_its_failure_are_json_from_the_first_line_to_the_last(empty_database: str) -> None:
    def boot(url: str) -> tuple[int, list[dict[str, Any]]]:
        environ = clean_env(
            DATABASE_URL=url,
            MEMORY_PLUGIN_LOG="json",
            MEMORY_PLUGIN_REQUIRED="1",
            MEMORY_PLUGIN_LISTEN_ADDR=f"127.0.0.1:{free_port()}",
        )
        command = [PROGRAM, "boot", "--gate-seconds", "20", "--", "true"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90)
        assert done.stdout == ""
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]

    status, said = boot(empty_database)
    assert status == 0
    assert {"boot", "started", "stopped"} <= {line["event"] for line in said}
    status, said = boot(psycopg.conninfo.make_conninfo(empty_database, dbname="mp_absent"))
    assert status == 11
    assert (said[-1]["event"], said[-1]["level"], said[-1]["exit_code"]) == ("command_failed", "error", 11)


@pytest.mark.parametrize("setting", ["MEMORY_PLUGIN_POOL_SIZE", "MEMORY_PLUGIN_LISTEN_ADDR"])
def test_a_sidecar_that_does_not_start_says_why_in_json(setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        value = f"127.0.0.1:{listener.getsockname()[1]}" if setting == "MEMORY_PLUGIN_LISTEN_ADDR" else "99"
        environ = clean_env(DATABASE_URL="dbname=x", MEMORY_PLUGIN_LOG="json", **{setting: value})
        done = subprocess.run(
            [sys.executable, "-m", "memory_plugin.thin_api"], env=environ, capture_output=True, text=True, timeout=60
        )
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (done.returncode, line["event"], line["exit_code"]) == (21, "command_failed", 21)
    assert value in line["message"]


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"MEMORY_PLUGIN_POOL_SIZE": "99"}, 21),
        ({"MEMORY_PLUGIN_LISTEN_ADDR": "nowhere"}, 21),
        ({"MEMORY_PLUGIN_SKIP_MIGRATE": "1"}, 10),
        ({"MEMORY_PLUGIN_REQUIRED": ""}, 0),
    ],
)
def test_a_boot_says_each_of_its_failures_in_json(environ: dict[str, str], status: int) -> None:
    given = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/d", "MEMORY_PLUGIN_REQUIRED": "1", **environ}
    done = subprocess.run(
        [PROGRAM, "boot", "--gate-seconds", "1", "--", "true"],
        env=clean_env(MEMORY_PLUGIN_LOG="json", **{"MEMORY_PLUGIN_LISTEN_ADDR": f"127.0.0.1:{free_port()}", **given}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == status
    assert said[-1]["level"] == ("error" if status else "warning")


@pytest.mark.servers("any")
def test_serve_with_json_says_nothing_else(database: str, tmp_path: Path) -> None:
    with running_sidecar(database, tmp_path / "log", MEMORY_PLUGIN_LOG="json") as sidecar:
        pass
    assert {"install", "started", "stopped"} <= {line["event"] for line in lines(sidecar)}


@pytest.mark.parametrize("value", ["xml", "JSON ", "1"])
def test_another_format_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="MEMORY_PLUGIN_LOG must be text or json"):
        from_env({"DATABASE_URL": "postgresql://h/d", "MEMORY_PLUGIN_LOG": value})


def test_a_value_with_a_line_break_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    log("event", why='a\n"b" = c\u2028d')
    assert len(capsys.readouterr().err.splitlines()) == 1
