"""The served document says what the sidecar does: every operation, status and reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from http_sidecar import ask, serving
from memory_plugin.thin_api.routes import ROUTES

TEXT = files("memory_plugin.thin_api").joinpath("openapi.json").read_text()
SPEC: dict[str, Any] = json.loads(TEXT)
OPERATIONS = [
    (method, path, operation)
    for path, methods in SPEC["paths"].items()
    for method, operation in methods.items()
    if method != "parameters"
]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from nodes(child)


def resolve(ref: str) -> Any:
    found: Any = SPEC
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


@pytest.mark.servers("any")
def test_the_document_is_served_as_it_is_kept(database: str, tmp_path: Path) -> None:
    with serving(database, tmp_path / "sidecar.log") as sidecar:
        answer = ask(sidecar, "GET", "/v1/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == TEXT.encode()


def test_it_has_every_route_and_no_other() -> None:
    assert SPEC["openapi"].startswith("3.1.")
    assert {(method.upper(), path) for method, path, _ in OPERATIONS} == {
        (route.method, route.path) for route in ROUTES
    }


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_names_each_status_it_can_have(route: Any) -> None:
    operation = SPEC["paths"][route.path][route.method.lower()]
    documented = set(operation["responses"])
    expected = {route.status[:3]}
    if route.path != "/v1/health":
        expected.add("401")
    if route.statement:
        expected.add("503")
    if route.parameters or route.path == "/v1/search":
        expected |= {"400", "403", "500"}
    if "body" in route.parameters:
        expected.add("413")
    if "{" in route.path:
        expected |= {"404", "405"}
    assert documented == expected
    assert ("requestBody" in operation) is ("body" in route.parameters)


def test_every_reference_leads_somewhere_and_every_component_is_used() -> None:
    refs = {node["$ref"] for node in nodes(SPEC) if "$ref" in node}
    for ref in refs:
        assert resolve(ref)
    named = {name for node in (SPEC, *nodes(SPEC["paths"])) for one in node.get("security", ()) for name in one}
    assert named == set(SPEC["components"]["securitySchemes"])
    kept = {
        f"#/components/{group}/{name}"
        for group, members in SPEC["components"].items()
        if group != "securitySchemes"
        for name in members
    }
    assert kept == refs


def test_every_503_says_when_to_try_again_and_every_response_has_an_id() -> None:
    for _, _, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            response = resolve(response["$ref"]) if "$ref" in response else response
            assert "X-Request-Id" in response["headers"]
            assert ("Retry-After" in response["headers"]) is (status == "503")


def test_every_pattern_is_one_and_every_path_parameter_is_declared() -> None:
    for node in nodes(SPEC):
        if isinstance(node.get("pattern"), str):
            re.compile(node["pattern"])
    for path, item in SPEC["paths"].items():
        assert [parameter["name"] for parameter in item.get("parameters", [])] == re.findall(r"\{(\w+)\}", path)


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))
