"""The served document says what the sidecar does: every operation, status and reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from http_sidecar import ask, raw, serving
from memory_plugin.installer.settings import MAX_DIMENSIONS
from memory_plugin.thin_api.routes import METRICS, ROUTES
from memory_plugin.thin_api.settings import DEFAULT_MAX_BODY

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
        (route.method, route.path) for route in (*ROUTES, METRICS)
    }


@pytest.mark.parametrize("route", [*ROUTES, METRICS], ids=lambda route: f"{route.method} {route.path}")
def test_an_operation_names_each_status_it_can_have(route: Any) -> None:
    operation = SPEC["paths"][route.path][route.method.lower()]
    # What is not HTTP, another method, too many headers: there is no path without these.
    expected = {route.status[:3], "400", "405", "431"}
    if route.path != "/v1/health":
        expected |= {"401", "403", "500"}
    if route.statement:
        expected.add("503")
    if "body" in route.parameters:
        expected.add("413")
    if "{" in route.path:
        expected.add("404")
    assert set(operation["responses"]) == expected
    assert ("requestBody" in operation) is ("body" in route.parameters)


@pytest.mark.servers("any")
def test_what_the_layer_beneath_answers_has_no_body_as_documented(database: str, tmp_path: Path) -> None:
    many = b"".join(b"X-%d: a\r\n" % number for number in range(101))
    with serving(database, tmp_path / "sidecar.log") as sidecar:
        for path in SPEC["paths"]:
            where = path.replace("{name}", "team:a").replace("{id}", "x").encode()
            answer = raw(sidecar, b"GET " + where + b" HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n")
            assert (answer.status, answer.body) == (431, b"")
        answer = raw(sidecar, b"GET / HTTP/7.7\r\n\r\n")
        assert (answer.status, answer.body) == (400, b"")


@pytest.mark.servers("any")
def test_another_method_is_405_on_every_path(database: str, tmp_path: Path) -> None:
    with serving(database, tmp_path / "sidecar.log") as sidecar:
        for path, item in SPEC["paths"].items():
            there = {method.upper() for method in item if method != "parameters"}
            for method in {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - there:
                answer = ask(sidecar, method, path.replace("{name}", "team:a").replace("{id}", "x"))
                assert (answer.status, answer.headers["allow"]) == (405, ", ".join(sorted(there)))


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
            if "HTTP layer answers" in response["description"]:
                continue
            assert "X-Request-Id" in response["headers"]
            assert ("Retry-After" in response["headers"]) is (status == "503")


def test_every_pattern_is_one_and_every_path_parameter_is_declared() -> None:
    for node in nodes(SPEC):
        if isinstance(node.get("pattern"), str):
            re.compile(node["pattern"])
    for path, item in SPEC["paths"].items():
        *named, request_id = item["parameters"]
        assert [parameter["name"] for parameter in named] == re.findall(r"\{(\w+)\}", path)
        assert resolve(request_id["$ref"])["name"] == "X-Request-Id"


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))


# Numbers in the rules that say nothing of what a caller may send: none and one, the digits of a pattern, the lengths
# beyond which an embedding is brought to 1, what a weight is by default, how the work on joined words is reckoned.
NO_LIMITS = {
    "_rules.sql": {0.0, 1.0, 3.0, 9.0, 64.0, 0.001, 1000.0, 300_000.0, 15_000_000.0, 1_048_576.0},
    "_check_search.sql": {0.0, 1.0, 9.0, 0.5},
}
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.]*\w)")
FUNCTIONS = files("memory_plugin.sql.functions")


def numbers(text: str) -> set[float]:
    return {float(number) for number in NUMBER.findall(text)}


@pytest.mark.parametrize("name", NO_LIMITS)
def test_every_limit_of_a_rule_is_in_the_document(name: str) -> None:
    code = re.sub(r"--.*", "", FUNCTIONS.joinpath(name).read_text())
    found = numbers(code)
    assert len(found) > 5
    # In the text of the document, thousands stand apart.
    said = numbers(re.sub(r"(?<=\d),(?=\d{3})", "", TEXT).lower())
    assert found - NO_LIMITS[name] <= said


def test_the_limits_that_stand_elsewhere_are_in_it_too() -> None:
    schemas = SPEC["components"]["schemas"]
    (read,) = re.findall(
        r"_lexical_reads\(\)\nreturns.*?return (\d+);", FUNCTIONS.joinpath("_lexical_parse.sql").read_text(), re.S
    )
    assert f"{int(read):,} characters" in schemas["SearchRequest"]["properties"]["query"]["description"]
    for _, _, operation in OPERATIONS:
        if "requestBody" in operation:
            assert f"{DEFAULT_MAX_BODY:,} bytes" in operation["requestBody"]["description"]
    for schema in ("MemoryWrite", "SearchRequest"):
        array = schemas[schema]["properties"]["embedding"]["anyOf"][0]
        assert array["maxItems"] == MAX_DIMENSIONS


def test_every_capability_is_named() -> None:
    named = schema("Health")["capabilities"]["items"]["enum"]
    (listed,) = re.findall(r"array\['fts'.*?(?=from \(select 1\))", FUNCTIONS.joinpath("health.sql").read_text(), re.S)
    assert set(re.findall(r"'(\w+)'", listed)) == set(named)


@pytest.mark.servers("any")
def test_extensions_have_the_types_that_the_document_gives(database: str, tmp_path: Path) -> None:
    body = {"namespaces": ["team:a"], "query": "apple", "embedding": [1.0] * 1536}
    asked = {**body, "explain": True, "recency_half_life": 60, "weights": {"lexical": 1, "semantic": 1}}
    with serving(database, tmp_path / "sidecar.log") as sidecar:
        for text in ("an apple", "a pear", "an apple and a pear"):
            memory = {"content": text, "kind": "fact", "source": "agent", "embedding": [0.5, *[1.0] * 1535]}
            assert ask(sidecar, "POST", "/v1/namespaces/team:a/memories", memory).status == 201
        answer = ask(sidecar, "POST", "/v1/search", asked).json
        health = ask(sidecar, "GET", "/v1/health").json
    fits(health, "Health")
    fits(answer, "SearchResponse")
    parts = {name for memory in answer["memories"] for name in memory["explain"]}
    assert parts == set(schema("Explanation"))


def schema(name: str) -> dict[str, Any]:
    properties: dict[str, Any] = SPEC["components"]["schemas"][name]["properties"]
    return properties


def fits(value: Any, name: str) -> None:
    """Hold a value to a schema of the document."""
    jsonschema_rs.validator_for({**SPEC, "$ref": f"#/components/schemas/{name}"}).validate(value)
