"""What the server's errors become over HTTP: a status and code of the registry, never a word of the server's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fixtures.sidecars import Sidecar
from http_sidecar import ask, serving
from memory_plugin.thin_api.errors import SqlError, refusal, status_of

pytestmark = pytest.mark.servers("any")

OURS = {
    "MP001": (400, "bad_request"),
    "MP002": (400, "bad_request"),
    "MP004": (404, "not_found"),
    "MP005": (404, "not_found"),
    "MP006": (403, "forbidden"),
    "MP009": (503, "unavailable"),
}
POSTGRES = {
    "22000": (400, "bad_request"),
    "22003": (400, "bad_request"),
    "22021": (400, "bad_request"),
    "22P02": (400, "bad_request"),
    "22P05": (400, "bad_request"),
    "54000": (400, "bad_request"),
    "54001": (400, "bad_request"),
    "08006": (503, "unavailable"),
    "23503": (503, "unavailable"),
    "25006": (503, "unavailable"),
    "3F000": (503, "unavailable"),
    "40001": (503, "unavailable"),
    "40P01": (503, "unavailable"),
    "42P01": (503, "unavailable"),
    "42704": (503, "unavailable"),
    "42883": (503, "unavailable"),
    "53100": (503, "unavailable"),
    "53200": (503, "unavailable"),
    "53300": (503, "unavailable"),
    "55P03": (503, "unavailable"),
    "57014": (503, "unavailable"),
    "57P01": (503, "unavailable"),
    "57P03": (503, "unavailable"),
    "58030": (503, "unavailable"),
    "23505": (500, "internal"),
    "42501": (500, "internal"),
    "42601": (500, "internal"),
    "54011": (500, "internal"),
    "P0001": (500, "internal"),
    "XX000": (500, "internal"),
}
SECRET = "secret text of the server"
RAISING = f"""
    create or replace function memory_plugin.v1_search(body json) returns json language plpgsql as $$
        begin
            raise exception using
                errcode = body ->> 'raise', message = '{SECRET}', detail = coalesce(body ->> 'detail', '');
        end
    $$;
"""


@pytest.fixture(scope="module")
def sidecar(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with psycopg.connect(module_database, autocommit=True) as conn:
        conn.execute(RAISING)
    with serving(module_database, tmp_path_factory.mktemp("http") / "sidecar.log") as running:
        yield running


@pytest.mark.parametrize(("sqlstate", "status", "code"), [(state, *answer) for state, answer in POSTGRES.items()])
def test_an_error_of_postgres_is_answered_in_our_words(sidecar: Sidecar, sqlstate: str, status: int, code: str) -> None:
    answer = ask(sidecar, "POST", "/v1/search", {"raise": sqlstate, "detail": SECRET})
    assert (answer.status, answer.json["code"]) == (status, code)
    assert set(answer.json) == {"code", "message"}
    assert answer.json["message"]
    assert "secret" not in answer.body.decode()
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) is (status == 503)


@pytest.mark.parametrize("sqlstate", ["23503", "40001", "40P01", "XX000"])
def test_what_the_server_rolled_back_for_a_moments_reason_is_run_again(
    database: str, tmp_path: Path, sqlstate: str
) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("create sequence public.tries")
        conn.execute(
            f"""
            create or replace function memory_plugin.v1_search(body json) returns json language plpgsql as $$
                begin
                    if nextval('public.tries') < 3 then
                        raise exception using errcode = '{sqlstate}', message = 'cache lookup failed for function 1';
                    end if;
                    return '{{"memories": []}}';
                end
            $$
            """.encode()
        )
    with serving(database, tmp_path / "sidecar.log") as running:
        answer = ask(running, "POST", "/v1/search", {"namespaces": ["team:a"]})
    assert (answer.status, answer.json) == (200, {"memories": []})


@pytest.mark.parametrize(("sqlstate", "status", "code"), [(state, *answer) for state, answer in OURS.items()])
def test_an_error_of_ours_says_what_it_says_in_sql(sidecar: Sidecar, sqlstate: str, status: int, code: str) -> None:
    answer = ask(sidecar, "POST", "/v1/search", {"raise": sqlstate})
    assert (answer.status, answer.json) == (status, {"code": code, "message": SECRET})
    assert ("retry-after" in answer.headers) is (status == 503)


def test_a_limit_of_the_server_is_the_answers_size_for_a_read_and_no_fault_of_a_write(sidecar: Sidecar) -> None:
    assert "ask for fewer memories" in ask(sidecar, "POST", "/v1/search", {"raise": "54000"}).json["message"]
    refused = refusal(SqlError("54000", SECRET, None))
    assert (refused.status, refused.code) == (503, "unavailable")
    assert "takes no writes" in refused.message


@pytest.mark.parametrize("text", ["\\ud800", "x\\udc00\\ud800y", "a\\u0000b"])
@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "namespaces/team:a/memories", '{"content":"TEXT","kind":"fact","source":"agent"}', "content"),
        ("POST", "namespaces/team:a/memories", '{"content":"x","kind":"TEXT","source":"agent"}', "kind"),
        ("POST", "namespaces/team:a/memories", '{"id":"\\\\u0000","propagation":[1,{"b":"TEXT"}]}', "propagation"),
        ("PUT", "namespaces/team:a", '{"kind":"\\ud83d\\ude00","metadata":{"TEXT":1e999999}}', "metadata"),
        ("PATCH", "namespaces/team:a", '{"metadata":{"a":{"b":"TEXT"}}}', "metadata"),
        ("DELETE", "memories/x", '{"requested_by_namespace":"TEXT"}', "requested_by_namespace"),
    ],
)  # fmt: skip
def test_text_that_postgres_cannot_hold_is_refused_by_field(
    sidecar: Sidecar, method: str, path: str, body: str, field: str, text: str
) -> None:
    answer = ask(sidecar, method, f"/v1/{path}", body.replace("TEXT", text).encode())
    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert answer.json["message"] == f"{field} must not contain \\u0000 or a lone surrogate"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"namespaces":["team:a"],"query":"\\ud800"}', "query must not contain"),
        (b'{"namespaces":["team:a","team:\\u0000"]}', "namespaces must not contain"),
        (b'{"\\ud800":1,"query":"\\ud800"}', "the name of a field must not contain"),
        (b'{"%s":"\\ud800"}' % (b"n" * 65), "a field must not contain"),
        (b'{"query":"x"', "body must be valid JSON"),
        (b'{"query":"\\ud800"', "body must be valid JSON"),
        (b'{"query":"\\ud83d\\ude00"}', "body must be valid JSON"),
        (b'["\\ud800"]', "body must be valid JSON"),
        (b'{"a":' + b"[" * 100_000, "body must be valid JSON"),
        (b"", "body must be valid JSON"),
    ],
)
def test_only_a_body_that_is_json_is_searched_for_text_that_cannot_be_held(body: bytes, message: str) -> None:
    assert refusal(SqlError("22P02", SECRET, None), body=body).message.startswith(message)


@pytest.mark.parametrize(
    ("detail", "details"),
    [("plain text", {"detail": "plain text"}), ('{"limit": 3}', {"limit": 3}), ("{broken", {"detail": "{broken"})],
)
def test_a_detail_of_ours_becomes_an_object(sidecar: Sidecar, detail: str, details: object) -> None:
    answer = ask(sidecar, "POST", "/v1/search", {"raise": "MP001", "detail": detail})
    assert answer.json["details"] == details


def test_a_5xx_is_logged_once_with_its_id_and_without_the_servers_words(sidecar: Sidecar) -> None:
    request_id = ask(sidecar, "POST", "/v1/search", {"raise": "XX000", "detail": SECRET}).headers["x-request-id"]
    lines = [line for line in sidecar.log().splitlines() if f"request_id={request_id} " in line]
    assert len(lines) == 1
    assert "status=500" in lines[0]
    assert "reason=XX000" in lines[0]
    assert "secret" not in sidecar.log()


def test_a_4xx_is_not_logged(sidecar: Sidecar) -> None:
    request_id = ask(sidecar, "POST", "/v1/search", {"raise": "MP001"}).headers["x-request-id"]
    assert request_id not in sidecar.log()


def test_an_error_at_commit_is_no_success(module_database: str, sidecar: Sidecar) -> None:
    with psycopg.connect(module_database, autocommit=True) as conn:
        conn.execute("""
            create function memory_plugin.test_refuse() returns trigger language plpgsql as $$
                begin raise exception using errcode = 'MP009', message = 'refused at commit'; end
            $$;
            create constraint trigger test_refuse after insert on memory_plugin.memory_namespaces
                deferrable initially deferred for each row execute function memory_plugin.test_refuse();
        """)
        answer = ask(sidecar, "PUT", "/v1/namespaces/workspace:refused", {"kind": "workspace"})
        assert (answer.status, answer.json["message"]) == (503, "refused at commit")
        row = conn.execute(
            "select count(*) from memory_plugin.memory_namespaces where name = 'workspace:refused'"
        ).fetchone()
        assert row == (0,)


@pytest.mark.parametrize("sqlstate", ["22023", "53400", "58P01", "MP007", "", "99999"])
def test_every_sqlstate_has_an_answer(sqlstate: str) -> None:
    answer = refusal(SqlError(sqlstate, SECRET, SECRET))
    assert (answer.status, answer.code) == status_of(sqlstate)
    assert SECRET not in answer.body().decode()
