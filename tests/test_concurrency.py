"""Many clients on few namespaces at once: nobody is refused for it, and in the end the counts add up."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable

import httpx
import psycopg
import pytest

from fixtures.sidecars import Sidecar
from http_sidecar import ask_many

pytestmark = pytest.mark.servers("any")

THREADS = 12
WRITE = {"kind": "fact", "source": "agent"}
PAST = {"expires_at": "2020-01-01T00:00:00Z"}


def at_once(sidecar: Sidecar, one: Callable[[httpx.Client, int], None], count: int = THREADS) -> None:
    """Run `one` in so many threads, each with a client of its own; raise what any of them raised."""

    def run(number: int) -> None:
        with httpx.Client(base_url=sidecar.base_url, timeout=10, trust_env=False) as client:
            one(client, number)

    ask_many(count, run)


def found(sidecar: Sidecar, name: str) -> list[dict[str, object]]:
    response = sidecar.client.post("/v1/search", json={"namespaces": [name], "limit": 100})
    assert response.status_code == 200
    memories: list[dict[str, object]] = response.json()["memories"]
    return memories


def test_retries_of_one_id_make_one_row_and_keep_its_age(shared_sidecar: Sidecar, namespace: str) -> None:
    memory_id = str(uuid.uuid4())
    path = f"/v1/namespaces/{namespace}/memories"
    assert shared_sidecar.client.post(path, json={"content": "first", "id": memory_id, **WRITE}).status_code == 201
    (before,) = found(shared_sidecar, namespace)

    def retry(client: httpx.Client, number: int) -> None:
        for _ in range(10):
            answer = client.post(path, json={"content": f"by {number}", "id": memory_id, **WRITE})
            assert (answer.status_code, answer.json()["id"]) == (201, memory_id)

    at_once(shared_sidecar, retry)
    (after,) = found(shared_sidecar, namespace)
    assert after["created_at"] == before["created_at"]
    assert str(after["content"]).startswith("by ")


def test_first_commits_to_one_new_namespace_all_succeed(
    shared_sidecar: Sidecar, new_namespace: Callable[[], str]
) -> None:
    names = [new_namespace() for _ in range(8)]

    def commit(client: httpx.Client, number: int) -> None:
        for name in names:
            answer = client.post(f"/v1/namespaces/{name}/memories", json={"content": f"by {number}", **WRITE})
            assert answer.status_code == 201, answer.text

    at_once(shared_sidecar, commit)
    for name in names:
        assert len(found(shared_sidecar, name)) == THREADS


def test_commits_to_one_expired_namespace_all_survive_and_the_old_ones_do_not(
    shared_sidecar: Sidecar, new_namespace: Callable[[], str]
) -> None:
    names = [new_namespace() for _ in range(8)]
    for name in names:
        shared_sidecar.client.post(f"/v1/namespaces/{name}/memories", json={"content": "old", **WRITE})
        shared_sidecar.client.patch(f"/v1/namespaces/{name}", json={"expires_at": "2020-01-01T00:00:00Z"})

    def commit(client: httpx.Client, number: int) -> None:
        for name in names:
            answer = client.post(f"/v1/namespaces/{name}/memories", json={"content": f"new {number}", **WRITE})
            assert answer.status_code == 201, answer.text

    at_once(shared_sidecar, commit)
    for name in names:
        assert sorted(str(memory["content"]) for memory in found(shared_sidecar, name)) == sorted(
            f"new {number}" for number in range(THREADS)
        )


def test_those_who_let_a_namespace_expire_and_those_who_start_it_anew_do_not_wait_for_each_other(
    shared_sidecar: Sidecar, new_namespace: Callable[[], str]
) -> None:
    name = new_namespace()
    expired = {"kind": "team", "expires_at": "2020-01-01T00:00:00Z"}

    def put(client: httpx.Client, number: int) -> None:
        for turn in range(30):
            body = expired if (number + turn) % 2 else {"kind": "team"}
            answer = client.put(f"/v1/namespaces/{name}", json=body)
            assert answer.status_code == 200, answer.text

    at_once(shared_sidecar, put)


def test_one_id_in_many_namespaces_is_as_many_memories(
    shared_sidecar: Sidecar, new_namespace: Callable[[], str]
) -> None:
    memory_id = str(uuid.uuid4())
    names = [new_namespace() for _ in range(THREADS)]

    def commit(client: httpx.Client, number: int) -> None:
        path = f"/v1/namespaces/{names[number]}/memories"
        for _ in range(5):
            assert client.post(path, json={"content": names[number], "id": memory_id, **WRITE}).status_code == 201
        forgets = client.request("DELETE", f"/v1/memories/{memory_id}", json={"requested_by_namespace": names[number]})
        assert forgets.status_code == 204
        assert client.post(path, json={"content": names[number], "id": memory_id, **WRITE}).status_code == 201

    at_once(shared_sidecar, commit)
    for name in names:
        assert [(memory["id"], memory["content"]) for memory in found(shared_sidecar, name)] == [(memory_id, name)]


def test_a_storm_of_every_operation_meets_no_error_and_leaves_whole_namespaces(
    shared_sidecar: Sidecar, new_namespace: Callable[[], str]
) -> None:
    names = [new_namespace() for _ in range(3)]
    kept = new_namespace()
    shared_ids = [str(uuid.uuid4()) for _ in range(4)]
    seen: Counter[tuple[str, int]] = Counter()
    lock = threading.Lock()

    def storm(client: httpx.Client, number: int) -> None:
        chance = random.Random(number)
        for step in range(40):
            name, memory_id = chance.choice(names), chance.choice([None, *shared_ids])
            body = {"content": f"{number}.{step}", "id": memory_id, **WRITE}
            what = chance.choice(["commit"] * 4 + ["stale", "put", "expire", "delete", "forget", "search"])
            method, path, sent = {
                "commit": ("POST", f"/v1/namespaces/{name}/memories", body),
                "stale": ("POST", f"/v1/namespaces/{name}/memories", {**body, **PAST}),
                "put": ("PUT", f"/v1/namespaces/{name}", {"kind": "team"}),
                "expire": ("PATCH", f"/v1/namespaces/{name}", PAST),
                "delete": ("DELETE", f"/v1/namespaces/{name}", None),
                "forget": ("DELETE", f"/v1/memories/{memory_id or 'x'}", {"requested_by_namespace": name}),
                "search": ("POST", "/v1/search", {"namespaces": names, "query": str(number)}),
            }[what]
            status = client.request(method, path, json=sent).status_code
            with lock:
                seen[what, status] += 1
            # Beside the storm each writes where nobody deletes: of those not one may be missing.
            answer = client.post(f"/v1/namespaces/{kept}/memories", json={"content": f"{number}.{step}", **WRITE})
            assert answer.status_code == 201, answer.text

    stop = threading.Event()
    failures: list[Exception] = []

    def sweep() -> None:
        try:
            with psycopg.connect(shared_sidecar.database, autocommit=True, prepare_threshold=None) as conn:
                while not stop.is_set():
                    conn.execute("select memory_plugin.sweep(50)")
        except Exception as error:
            failures.append(error)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        at_once(shared_sidecar, storm)
    finally:
        stop.set()
        sweeper.join(20)
    assert failures == []
    allowed = {
        "commit": {201}, "stale": {201}, "put": {200}, "expire": {200, 404}, "delete": {204, 404},
        "forget": {204, 404}, "search": {200},
    }  # fmt: skip
    assert {(what, status) for what, status in seen if status not in allowed[what]} == set()
    with psycopg.connect(shared_sidecar.database, autocommit=True) as conn:
        row = conn.execute(
            "select count(*), count(distinct content) from memory_plugin.memory_records where namespace = %s", [kept]
        ).fetchone()
        orphans = conn.execute(
            "select count(*) from memory_plugin.memory_records r left join memory_plugin.memory_namespaces n "
            "on n.name = r.namespace where n.name is null"
        ).fetchone()
    assert row == (THREADS * 40, THREADS * 40)
    assert orphans == (0,)
