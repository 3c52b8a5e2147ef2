"""Memories: commit and forget, ids as idempotency keys, what a body may hold."""

from __future__ import annotations

import uuid

import pytest

from doors import Contract, refused

ABSENT = "8c2d1b51-5a0a-4d5e-9d9f-0a3a0a4f2c11"


def test_commit_answers_201_with_id_and_namespace(contract: Contract) -> None:
    name = contract.name()
    answer = contract.commit(name, "prefers tabs")
    assert answer.status == 201
    assert set(answer.body) == {"id", "namespace"}
    assert answer.body["namespace"] == name
    assert uuid.UUID(answer.body["id"])


def test_a_memory_comes_back_as_it_was_committed(contract: Contract) -> None:
    name = contract.name()
    fields = {
        "kind": "summary",
        "source": "user",
        "expires_at": "2999-05-06T07:08:09.123456Z",
        "pin": True,
        "propagation": {"to": ["team:x"], "depth": 2, "note": None},
        "embedding": None,
    }
    memory_id = contract.commit(name, 'naïve — 你好 "quoted" \\ 🙂\n', **fields).body["id"]
    (memory,) = contract.search([name]).body["memories"]
    created_at = memory.pop("created_at")
    assert created_at.endswith("Z")
    assert memory == {
        "id": memory_id,
        "namespace": name,
        "content": 'naïve — 你好 "quoted" \\ 🙂\n',
        "kind": "summary",
        "source": "user",
        "expires_at": "2999-05-06T07:08:09.123456Z",
        "pin": True,
        "propagation": {"to": ["team:x"], "depth": 2, "note": None},
    }


def test_optional_fields_are_left_out_when_empty(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "plain", pin=False, propagation=None, expires_at=None)
    (memory,) = contract.search([name]).body["memories"]
    assert set(memory) == {"id", "namespace", "content", "kind", "source", "created_at"}


def test_the_same_id_updates_in_place_and_keeps_created_at(contract: Contract) -> None:
    name, memory_id = contract.name(), str(uuid.uuid4())
    assert contract.commit(name, "first", id=memory_id).body["id"] == memory_id
    (before,) = contract.search([name]).body["memories"]
    for _ in range(2):
        assert contract.commit(name, "second", id=memory_id, kind="checkpoint", pin=True).status == 201
    (after,) = contract.search([name]).body["memories"]
    assert after == {**before, "content": "second", "kind": "checkpoint", "pin": True}


def test_an_id_in_another_namespace_neither_changes_nor_reveals_the_first(contract: Contract) -> None:
    first, second, memory_id = contract.name("one"), contract.name("two"), str(uuid.uuid4())
    contract.commit(first, "mine", id=memory_id)
    assert contract.commit(second, "yours", id=memory_id).status == 201
    assert contract.found([first]) == ["mine"]
    assert contract.forget(memory_id, second).status == 204
    assert contract.forget(memory_id, second).status == 404
    assert contract.found([first]) == ["mine"]


@pytest.mark.parametrize("content", ["", "   ", "\n\t ", "\u00a0\u3000", None])
def test_blank_content_is_refused(contract: Contract, content: object) -> None:
    assert refused(
        contract.commit_body(contract.name(), {"content": content, "kind": "fact", "source": "agent"}), "content"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", 5),
        ("content", ["x"]),
        ("content", {"a": 1}),
        ("content", True),
        ("kind", "rumour"),
        ("kind", ""),
        ("kind", None),
        ("kind", 1),
        ("source", "oracle"),
        ("source", None),
        ("source", []),
        ("id", "not-a-uuid"),
        ("id", "{8c2d1b51-5a0a-4d5e-9d9f-0a3a0a4f2c11}"),
        ("id", ""),
        ("id", 7),
        ("expires_at", "soon"),
        ("expires_at", 5),
        ("expires_at", ""),
        ("propagation", []),
        ("propagation", "x"),
        ("propagation", 1),
        ("pin", "true"),
        ("pin", 1),
        ("pin", {}),
        ("embedding", "x"),
        ("embedding", {}),
        ("embedding", [1, 2]),
        ("embedding", 5),
    ],
)
def test_a_field_that_breaks_its_rule_is_refused_by_name_and_stores_nothing(
    contract: Contract, field: str, value: object
) -> None:
    name = contract.name()
    assert refused(contract.commit(name, **{"content": "x", field: value}), field)
    assert contract.found([name]) == []
    assert contract.delete(name).status == 404


@pytest.mark.parametrize(
    "body",
    [
        '{"content": "a\\u0000b", "kind": "fact", "source": "agent"}',
        '{"content": "\\ud800", "kind": "fact", "source": "agent"}',
        '{"content": "x", "kind": "fact", "source": "agent", "propagation": {"a\\u0000": 1}}',
        '{"content": "x", "kind": "fact", "source": "agent", "propagation": {"n": 1e400000}}',
        '{"content": "x", "kind": "fact", "source": "agent"',
        "[" * 20000 + "]" * 20000,
        "",
        "null",
        "[]",
        "1",
    ],
)
def test_a_body_that_postgres_cannot_hold_or_read_is_a_clean_400(contract: Contract, body: str) -> None:
    name = contract.name()
    assert refused(contract.commit_body(name, body))
    assert contract.delete(name).status == 404


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"'])
def test_a_body_that_is_no_object_is_told_so_by_every_operation_that_takes_one(contract: Contract, body: str) -> None:
    name = contract.name()
    contract.put(name, {"kind": "team"})
    forget = contract.door.call("forget", ABSENT, body=body)
    for answer in (contract.patch(name, body), contract.commit_body(name, body), contract.search_body(body), forget):
        assert refused(answer, "body must be a JSON object")


def test_unknown_fields_are_ignored(contract: Contract) -> None:
    assert contract.commit(contract.name(), "x", colour="blue", nested={"a": [1]}).status == 201


def test_embeddings_of_other_dimensions_are_refused_naming_both(contract: Contract) -> None:
    answer = contract.commit(contract.name(), embedding=[0.1] * 3)
    assert refused(answer, "1536", "3")


@pytest.mark.parametrize(
    "embedding", [[0] * 1536, [0.0] * 1536, ["1"] * 1536, [None] * 1536, [True] * 1536, [[1]] * 1536]
)
def test_embeddings_of_zeros_or_of_no_numbers_are_refused(contract: Contract, embedding: list[object]) -> None:
    assert refused(contract.commit(contract.name(), embedding=embedding), "embedding")


def test_an_infinite_embedding_is_refused(contract: Contract) -> None:
    body = '{"content": "x", "kind": "fact", "source": "agent", "embedding": [1e400' + ", 1" * 1535 + "]}"
    assert refused(contract.commit_body(contract.name(), body), "embedding")


def test_an_empty_embedding_is_as_if_absent(contract: Contract) -> None:
    assert contract.commit(contract.name(), embedding=[]).status == 201


def test_an_embedding_that_is_left_out_stays_with_its_text_and_goes_with_another(contract: Contract) -> None:
    name, memory_id, vector = contract.name(), str(uuid.uuid4()), [1.0 + i % 7 for i in range(1536)]
    contract.commit(name, "first", id=memory_id, embedding=vector)
    contract.commit(name, "first", id=memory_id)
    contract.commit(name, "first", id=memory_id, pin=True, embedding=[])
    assert contract.found([name], embedding=vector) == ["first"]
    contract.commit(name, "second", id=memory_id)
    assert contract.found([name], embedding=vector) == []
    contract.commit(name, "second", id=memory_id, embedding=vector)
    assert contract.found([name], embedding=vector) == ["second"]
    contract.commit(name, "second", id=memory_id, expires_at="2020-01-01T00:00:00Z")
    # An expired memory is as if absent, its embedding with it.
    contract.commit(name, "second", id=memory_id)
    assert contract.found([name], embedding=vector) == []


@pytest.mark.parametrize("scale", [1e-38, 1e-6, 1, 1e6, 1e37])
def test_an_embedding_of_any_length_is_found_by_its_direction(contract: Contract, scale: float) -> None:
    name = contract.name()
    contract.commit(name, "along", embedding=[scale * (1 + i % 7) for i in range(1536)])
    contract.commit(name, "across", embedding=[scale * (1 + (i * i) % 5) * (-1) ** i for i in range(1536)])
    answer = contract.search([name], embedding=[1.0 + i % 7 for i in range(1536)])
    assert [memory["content"] for memory in answer.body["memories"]] == ["along", "across"]
    assert answer.body["memories"][0]["score"] == pytest.approx(1, abs=1e-3)


def test_forget_removes_one_memory_and_is_404_afterwards(contract: Contract) -> None:
    name = contract.name()
    gone = contract.commit(name, "gone").body["id"]
    contract.commit(name, "stays")
    assert contract.forget(gone, name).status == 204
    assert contract.found([name]) == ["stays"]
    assert contract.forget(gone, name).status == 404


@pytest.mark.parametrize("memory_id", ["nope", ABSENT, ABSENT.replace("-", ""), "1' or '1'='1"])
def test_forget_of_an_absent_or_malformed_id_is_404(contract: Contract, memory_id: str) -> None:
    assert refused(contract.forget(memory_id, contract.name()), status=404, code="not_found")


@pytest.mark.parametrize("body", [{}, {"requested_by_namespace": None}, {"requested_by_namespace": 5}, "[]", "{"])
def test_forget_needs_the_namespace_that_asks(contract: Contract, body: object) -> None:
    name = contract.name()
    memory_id = contract.commit(name, "stays").body["id"]
    assert refused(contract.door.call("forget", memory_id, body=body))
    assert contract.found([name]) == ["stays"]


def test_an_expired_memory_is_gone_at_once_and_its_id_is_free(contract: Contract) -> None:
    name = contract.name()
    memory_id = contract.commit(name, "stale bread", expires_at="2020-01-01T00:00:00Z").body["id"]
    contract.commit(name, "fresh bread")
    assert contract.found([name]) == ["fresh bread"]
    assert contract.found([name], query="bread") == ["fresh bread"]
    assert contract.found([name], query="b") == ["fresh bread"]
    assert contract.forget(memory_id, name).status == 404
    assert contract.commit(name, "new bread", id=memory_id).status == 201
    assert contract.found([name]) == ["new bread", "fresh bread"]
