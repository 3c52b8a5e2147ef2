"""Namespaces: PUT, PATCH and DELETE /v1/namespaces/{name}, and what expiry means for them."""

from __future__ import annotations

import re

import pytest

from doors import Contract, refused

PAST = "2020-01-01T00:00:00Z"
FUTURE = "2999-01-31T12:30:00.5Z"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def test_health_tells_status_version_and_what_the_store_can_do(contract: Contract) -> None:
    answer = contract.health()
    assert answer.status == 200
    assert answer.body["status"] == "ok"
    assert answer.body["version"] == "1.0.0"
    assert {"fts", "embedding", "ttl", "pin", "propagation"} <= set(answer.body["capabilities"])


def test_put_creates_a_namespace_and_leaves_out_what_is_empty(contract: Contract) -> None:
    name = contract.name()
    answer = contract.put(name, {"kind": "workspace"})
    assert answer.status == 200
    assert set(answer.body) == {"name", "kind", "created_at"}
    assert answer.body["name"] == name
    assert RFC3339.fullmatch(answer.body["created_at"])


def test_put_again_replaces_kind_expiry_and_metadata_and_keeps_created_at(contract: Contract) -> None:
    name = contract.name()
    first = contract.put(name, {"kind": "team", "expires_at": FUTURE, "metadata": {"a": {"b": [1, None, "ü"]}}}).body
    assert first["metadata"] == {"a": {"b": [1, None, "ü"]}}
    assert first["expires_at"].startswith("2999-01-31T12:30:00.5")
    second = contract.put(name, {"kind": "org", "metadata": None, "expires_at": None})
    assert second.status == 200
    assert second.body == {"name": name, "kind": "org", "created_at": first["created_at"]}


def test_put_of_a_live_namespace_keeps_its_memories(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "kept")
    contract.put(name, {"kind": "custom"})
    assert contract.found([name]) == ["kept"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "kind"),
        ({"kind": None}, "kind"),
        ({"kind": "galaxy"}, "kind"),
        ({"kind": 5}, "kind"),
        ({"kind": "team", "expires_at": "tomorrow"}, "expires_at"),
        ({"kind": "team", "expires_at": 1700000000}, "expires_at"),
        ({"kind": "team", "expires_at": "2026-13-45T00:00:00Z"}, "expires_at"),
        ({"kind": "team", "expires_at": "2026-01-01"}, "expires_at"),
        ({"kind": "team", "expires_at": "2026-01-01T00:00:00"}, "expires_at"),
        ({"kind": "team", "expires_at": "infinity"}, "expires_at"),
        ({"kind": "team", "expires_at": "2026-01-01T00:00:00+99:99"}, "expires_at"),
        ({"kind": "team", "metadata": []}, "metadata"),
        ({"kind": "team", "metadata": "x"}, "metadata"),
        ('{"kind": "team", "metadata": {"a": "\\u0000"}}', ""),
        ('{"kind": "team", "metadata": {"a": "\\ud800"}}', ""),
        ("[]", "body must be a JSON object"),
        ("null", "body must be a JSON object"),
        ('"x"', "body must be a JSON object"),
        ("{", ""),
        ("", ""),
    ],
)
def test_put_refuses_a_body_that_breaks_a_rule_and_creates_nothing(contract: Contract, body: object, word: str) -> None:
    name = contract.name()
    assert refused(contract.put(name, body), word)
    assert contract.patch(name, {"metadata": {}}).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "nocolon",
        "Workspace:a",
        "workspace:",
        ":a",
        "workspace:a b",
        "workspace:ä",
        "w1:a",
        "workspace:a\n",
        "workspace:" + "x" * 247,
        "'; drop table memory_records; --",
        "workspace:%",
    ],
)
def test_a_name_outside_the_pattern_is_refused_by_every_operation(contract: Contract, name: str) -> None:
    assert refused(contract.put(name, {"kind": "team"}), "name")
    assert refused(contract.patch(name, {"metadata": {}}), "name")
    assert refused(contract.delete(name), "name")
    assert refused(contract.commit(name), "namespace")
    assert refused(contract.search([name]), "namespaces")
    assert refused(contract.forget("8c2d1b51-5a0a-4d5e-9d9f-0a3a0a4f2c11", name), "requested_by_namespace")


@pytest.mark.parametrize("name", ["a:b", "workspace:A.b_c:d-e", "workspace:" + "x" * 246])
def test_a_name_inside_the_pattern_is_taken(contract: Contract, name: str) -> None:
    assert contract.put(name, {"kind": "custom"}).body["name"] == name


def test_patch_changes_only_what_is_there_and_an_explicit_null_clears(contract: Contract) -> None:
    name = contract.name()
    created = contract.put(name, {"kind": "team", "metadata": {"a": 1}}).body
    patched = contract.patch(name, {"expires_at": FUTURE})
    assert patched.status == 200
    assert patched.body["metadata"] == {"a": 1}
    assert patched.body["expires_at"].startswith("2999-01-31")
    assert patched.body["created_at"] == created["created_at"]
    assert patched.body["kind"] == "team"
    cleared = contract.patch(name, {"metadata": None})
    assert cleared.status == 200
    assert set(cleared.body) == {"name", "kind", "expires_at", "created_at"}
    both = contract.patch(name, {"expires_at": None, "metadata": {"b": 2}}).body
    assert both == {"name": name, "kind": "team", "metadata": {"b": 2}, "created_at": created["created_at"]}


@pytest.mark.parametrize("body", [{}, {"kind": "team"}, {"expires_at": 1}, {"metadata": 1}, "[]"])
def test_patch_refuses_a_body_with_nothing_to_change_or_of_a_wrong_type(contract: Contract, body: object) -> None:
    name = contract.name()
    before = contract.put(name, {"kind": "custom", "metadata": {"kept": True}}).body
    assert refused(contract.patch(name, body))
    assert contract.put(name, {"kind": "custom", "metadata": {"kept": True}}).body == before


def test_patch_and_delete_of_an_absent_namespace_are_404(contract: Contract) -> None:
    assert refused(contract.patch(contract.name(), {"metadata": {}}), status=404, code="not_found")
    assert refused(contract.delete(contract.name()), status=404, code="not_found")


def test_delete_takes_the_memories_along_and_is_404_the_second_time(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "gone")
    assert contract.delete(name).status == 204
    assert contract.found([name]) == []
    assert contract.delete(name).status == 404
    contract.commit(name, "new")
    assert contract.found([name]) == ["new"]


def test_an_expired_namespace_is_as_if_absent(contract: Contract) -> None:
    name = contract.name()
    memory = contract.commit(name, "hidden").body["id"]
    assert contract.patch(name, {"expires_at": PAST}).status == 200
    assert contract.found([name]) == []
    assert contract.found([name], query="hidden") == []
    assert contract.forget(memory, name).status == 404
    assert contract.patch(name, {"expires_at": None}).status == 404
    assert contract.delete(name).status == 404


def test_put_starts_an_expired_namespace_anew_without_its_memories(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "old")
    old = contract.put(name, {"kind": "team", "expires_at": PAST, "metadata": {"old": 1}}).body
    new = contract.put(name, {"kind": "org"})
    assert new.status == 200
    assert set(new.body) == {"name", "kind", "created_at"}
    assert new.body["created_at"] > old["created_at"]
    assert contract.found([name]) == []


def test_a_commit_starts_an_expired_namespace_anew_without_its_memories(contract: Contract) -> None:
    name = contract.name(kind="team")
    contract.commit(name, "old")
    contract.put(name, {"kind": "custom", "expires_at": PAST})
    assert contract.commit(name, "new").status == 201
    assert contract.found([name]) == ["new"]
    assert contract.patch(name, {"metadata": {}}).body["kind"] == "team"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("workspace", "workspace"), ("team", "team"), ("org", "org"), ("custom", "custom"), ("user", "custom")],
)
def test_a_commit_creates_its_namespace_with_the_kind_of_its_prefix(
    contract: Contract, kind: str, expected: str
) -> None:
    name = contract.name(kind=kind)
    assert contract.commit(name).status == 201
    assert contract.patch(name, {"metadata": {}}).body["kind"] == expected


def test_an_encoded_slash_never_reaches_another_route(contract: Contract) -> None:
    name = contract.name()
    contract.commit(name, "kept")
    for answer in (contract.delete(f"{name}/memories"), contract.put(f"{name}/memories", {"kind": "team"})):
        assert answer.status in (400, 404, 405)
    assert contract.found([name]) == ["kept"]
