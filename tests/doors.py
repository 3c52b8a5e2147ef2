"""The two doors of the contract, HTTP and SQL, behind one interface, so that each rule is tried at both."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

import httpx
import psycopg

from memory_plugin.thin_api.errors import status_of

Json = Any


@dataclass(frozen=True)
class Answer:
    """A status of the contract and the JSON that came with it (None for 204)."""

    status: int
    body: Json


class Door(Protocol):
    """One operation of the contract a method; bodies are JSON texts or objects to be written as JSON."""

    def call(self, operation: str, *path: str, body: Json = None) -> Answer:
        """Run one operation: health, put, patch, delete, commit, search or forget."""


def as_text(body: Json) -> str:
    """Return a body as JSON text; a str is taken as it is."""
    return body if isinstance(body, str) else json.dumps(body)


class HttpDoor:
    """The contract over HTTP."""

    routes: ClassVar = {
        "health": ("GET", "/v1/health"),
        "put": ("PUT", "/v1/namespaces/{}"),
        "patch": ("PATCH", "/v1/namespaces/{}"),
        "delete": ("DELETE", "/v1/namespaces/{}"),
        "commit": ("POST", "/v1/namespaces/{}/memories"),
        "search": ("POST", "/v1/search"),
        "forget": ("DELETE", "/v1/memories/{}"),
    }

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def call(self, operation: str, *path: str, body: Json = None) -> Answer:
        method, pattern = self.routes[operation]
        url = pattern.format(*(quote(part, safe="") for part in path))
        content = None if body is None else as_text(body).encode("utf-8", "surrogatepass")
        response = self.client.request(method, url, content=content, headers={"Content-Type": "application/json"})
        if response.status_code == 204:
            assert response.content == b""
            return Answer(204, None)
        assert response.headers["Content-Type"] == "application/json"
        return Answer(response.status_code, response.json())


class SqlDoor:
    """The contract as SQL calls of a role that owns nothing, with a search_path that helps nobody."""

    calls: ClassVar = {
        "health": ("select memory_plugin.v1_health()", 200),
        "put": ("select memory_plugin.v1_put_namespace(%s, %s)", 200),
        "patch": ("select memory_plugin.v1_patch_namespace(%s, %s)", 200),
        "delete": ("select memory_plugin.v1_delete_namespace(%s)", 204),
        "commit": ("select memory_plugin.v1_commit_memory(%s, %s)", 201),
        "search": ("select memory_plugin.v1_search(%s)", 200),
        "forget": ("select memory_plugin.v1_forget_memory(%s, %s)", 204),
    }

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def call(self, operation: str, *path: str, body: Json = None) -> Answer:
        statement, status = self.calls[operation]
        parameters = [*path] if body is None else [*path, as_text(body)]
        try:
            row = self.connection.execute(statement, parameters).fetchone()
        except psycopg.Error as error:
            # A lost connection has none, and is no answer of the contract.
            if error.sqlstate is None:
                raise
            mapped = status_of(error.sqlstate)
            message = error.diag.message_primary if error.sqlstate.startswith("MP") else ""
            return Answer(mapped.status, {"code": mapped.code, "message": message})
        assert row is not None
        return Answer(status, None if status == 204 else row[0])


class Contract:
    """The contract's operations in a test's words, through one door and in namespaces of its own."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.suffix = uuid.uuid4().hex[:12]

    def name(self, label: str = "a", kind: str = "workspace") -> str:
        """Return a namespace name that no other test uses."""
        return f"{kind}:{label}-{self.suffix}"

    def put(self, namespace: str, body: Json) -> Answer:
        return self.door.call("put", namespace, body=body)

    def patch(self, namespace: str, body: Json) -> Answer:
        return self.door.call("patch", namespace, body=body)

    def delete(self, namespace: str) -> Answer:
        return self.door.call("delete", namespace)

    def commit(self, namespace: str, content: str = "a fact", **fields: Json) -> Answer:
        return self.commit_body(namespace, {"content": content, "kind": "fact", "source": "agent", **fields})

    def commit_body(self, namespace: str, body: Json) -> Answer:
        return self.door.call("commit", namespace, body=body)

    def search(self, namespaces: Json, **fields: Json) -> Answer:
        return self.search_body({"namespaces": namespaces, **fields})

    def search_body(self, body: Json) -> Answer:
        return self.door.call("search", body=body)

    def found(self, namespaces: Json, **fields: Json) -> list[str]:
        """Return the contents that a search finds, in order."""
        answer = self.search(namespaces, **fields)
        assert answer.status == 200, answer
        return [memory["content"] for memory in answer.body["memories"]]

    def forget(self, memory_id: str, namespace: str) -> Answer:
        return self.door.call("forget", memory_id, body={"requested_by_namespace": namespace})

    def health(self) -> Answer:
        return self.door.call("health")


def refused(answer: Answer, *words: str, status: int = 400, code: str = "bad_request") -> bool:
    """Say whether this is the error expected, its message holding every word (a message of ours, if there is one)."""
    assert (answer.status, answer.body["code"]) == (status, code), answer
    message = answer.body["message"]
    return not message or all(word in message for word in words)
