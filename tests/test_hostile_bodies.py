"""Bodies made to hurt, at both doors: a clean 400 that stores nothing, or the right behaviour."""

from __future__ import annotations

import json
import uuid

import pytest

from doors import Contract, refused
from hostile import NO_BODIES, Watch, clean, memory, nested

pytestmark = pytest.mark.servers("any")
BODIED = {"put": 1, "patch": 1, "commit": 1, "search": 0, "forget": 1}
# A number that jsonb writes out with 131,072 digits.
LONG = "1e131071"


@pytest.mark.parametrize("body", NO_BODIES.values(), ids=NO_BODIES)
def test_what_is_no_json_object_is_refused_by_every_operation(contract: Contract, watch: Watch, body: str) -> None:
    path = {"forget": str(uuid.uuid4())}
    with watch.unchanged():
        for operation, arity in BODIED.items():
            given = [path.get(operation, contract.name())] * arity
            clean(contract.door.call(operation, *given, body=body), 400)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        ('{"content":"a","kind":"fact","source":"agent","content":"b"}', "b"),
        ('{"content":"a","kind":"rumour","source":"agent","kind":"fact"}', "a"),
        ('{"content":5,"kind":"fact","source":"agent","content":"c"}', "c"),
        ('{"c\\u006fntent":"d","kind":"fact","source":"agent"}', "d"),
    ],
)
def test_of_duplicate_keys_the_last_counts(contract: Contract, body: str, content: str) -> None:
    name = contract.name()
    assert contract.commit_body(name, body).status == 201
    assert contract.found([name]) == [content]


def test_a_last_duplicate_that_breaks_a_rule_is_refused(contract: Contract, watch: Watch) -> None:
    with watch.unchanged():
        assert refused(contract.commit_body(contract.name(), memory(kind='"fact","kind":"rumour"')), "kind")
        assert refused(contract.put(contract.name(), '{"kind":"team","kind":7}'), "kind")
        assert refused(contract.search_body('{"namespaces":["workspace:a"],"namespaces":[]}'), "namespaces")


def test_keys_are_told_apart_by_case(contract: Contract, watch: Watch) -> None:
    with watch.unchanged():
        assert refused(
            contract.commit_body(contract.name(), '{"Content":"a","kind":"fact","source":"agent"}'), "content"
        )


@pytest.mark.parametrize("key", ["__proto__", "constructor", "", "\u202e", "a" * 100_000, "content ", "$ref", "'"])
def test_a_strange_key_is_ignored_beside_the_fields_and_kept_in_an_object(contract: Contract, key: str) -> None:
    name = contract.name()
    value = {"kind": "fact", "source": "agent", "content": "x", key: [1], "propagation": {key: {key: None}}}
    assert contract.commit_body(name, value).status == 201
    (found,) = contract.search([name]).body["memories"]
    assert found["propagation"] == {key: {key: None}}


@pytest.mark.parametrize(
    "value",
    [LONG, "-1e309", "1.7977e308", "1e-324", "1" + "0" * 310, "1e999999999", "1e-999999999", "0." + "0" * 400 + "1"],
    ids=["long", "minus", "just over", "tiny", "digits", "absurd", "absurdly tiny", "tiny digits"],
)
def test_an_object_with_a_number_that_no_client_can_read_is_refused(
    contract: Contract, watch: Watch, value: str
) -> None:
    name = contract.name()
    with watch.unchanged():
        for inside in (value, f"[[{value}]]", f'{{"b":{value}}}'):
            assert refused(contract.commit_body(name, memory(propagation=f'{{"a":{inside}}}')), "propagation")
            assert refused(contract.put(name, f'{{"kind":"team","metadata":{{"a":{inside}}}}}'), "metadata")


@pytest.mark.parametrize(
    "value",
    ["1.7976931348623157e308", "-1.7976931348623157e308"]
    + ["2.2250738585072014e-308", "-5e-324", "0", "-0", "0e999", "0.0", "5E-3"],
)
def test_a_number_at_the_edge_is_kept(contract: Contract, value: str) -> None:
    name = contract.name()
    assert contract.commit_body(name, memory(propagation=f'{{"a":{value}}}')).status == 201
    (found,) = contract.search([name]).body["memories"]
    # Postgres writes 1.7e308 as an integer, which Python reads as one.
    assert float(found["propagation"]["a"]) == float(value)


def test_numbers_that_grow_when_they_are_written_cannot_bring_a_search_down(contract: Contract, watch: Watch) -> None:
    name = contract.name()
    with watch.unchanged():
        body = memory(propagation='{"a":[' + ",".join([LONG] * 90_000) + "]}")
        assert refused(contract.commit_body(name, body), "propagation")
    with watch.quick():
        assert contract.found([name]) == []


def test_numbers_short_to_send_and_long_to_return_are_bounded(contract: Contract, watch: Watch) -> None:
    name = contract.name()
    many, some = ('{"a":[' + ",".join(["1e308"] * count) + "]}" for count in (14_000, 6_000))
    with watch.unchanged():
        assert refused(contract.commit_body(name, memory(propagation=many)), "propagation", "4194304 bytes")
    with watch.unchanged():
        assert refused(contract.put(name, f'{{"kind":"team","metadata":{many}}}'), "metadata", "4194304 bytes")
    for _ in range(2):
        assert contract.commit_body(name, memory(propagation=some)).status == 201
    with watch.quick():
        assert contract.found([name]) == ["x"] * 2


def test_more_distinct_words_than_an_index_holds_are_refused_and_tens_of_thousands_are_found(
    contract: Contract, watch: Watch
) -> None:
    name = contract.name()
    with watch.unchanged():
        assert refused(contract.commit(name, " ".join(f"{number:x}q" for number in range(140_000))))
    with watch.quick():
        assert contract.commit(name, " ".join(f"{number:x}q" for number in range(60_000))).status == 201
    with watch.quick():
        assert len(contract.found([name], query=f"{59_999:x}q")) == 1


def test_an_object_nested_too_deeply_to_be_read_is_refused_and_one_at_the_limit_is_kept(
    contract: Contract, watch: Watch
) -> None:
    name = contract.name()
    with watch.unchanged():
        for levels in (501, 5_000, 9_999):
            assert refused(contract.commit_body(name, memory(propagation=nested(levels))), "propagation", "500")
            assert refused(contract.put(name, f'{{"kind":"team","metadata":{nested(levels)}}}'), "metadata", "500")
    assert contract.commit_body(name, memory(propagation=nested(500))).status == 201
    for fields in ({}, {"query": "x y", "explain": True}, {"query": "x"}):
        (found,) = contract.search([name], **fields).body["memories"]
        assert found["propagation"] == json.loads(nested(500))


@pytest.mark.parametrize("levels", [1_000, 9_000, 20_000])
def test_an_unknown_field_may_be_nested_as_deeply_as_can_be_read(contract: Contract, watch: Watch, levels: int) -> None:
    name = contract.name()
    with watch.quick():
        answer = clean(contract.commit_body(name, memory(other=nested(levels))), 201, 400)
    assert contract.found([name]) == (["x"] if answer.status == 201 else [])


@pytest.mark.parametrize(
    ("limit", "status"),
    [("-0", 200), ("-0.0", 200), ("0e5", 200), ("1e2", 200), ("1000e-1", 200), ("5.0", 200)]
    + [("1e400", 400), ("-1e400", 400), ("1e-400", 400), ("100.0000000001", 400), ("9" * 10_000, 400)]
    + [("99999999999999999999", 400), ("-1", 400), ("1e3", 400), ("true", 400), ('"5"', 400)],
)
def test_a_limit_is_a_whole_number_however_it_is_written(
    contract: Contract, watch: Watch, limit: str, status: int
) -> None:
    with watch.quick():
        answer = contract.search_body(f'{{"namespaces":["workspace:a"],"limit":{limit}}}')
    assert clean(answer, status).status == status


@pytest.mark.parametrize("value", ["1e-400", "-1e-999", f"0.{'0' * 2000}1"])
def test_a_number_next_to_nothing_is_not_too_small(contract: Contract, value: str) -> None:
    def asked(field: str) -> str:
        return f'{{"namespaces":["workspace:a"],"query":"a b",{field}}}'

    weights = (f'"weights":{{"lexical":{value},"semantic":1}}', '"weights":{"lexical":1e-400,"semantic":1e-400}')
    for field in (f'"min_score":{value}', '"diversity":1e-400', *weights[value[0] == "-" :]):
        clean(contract.search_body(asked(field)), 200)
    message = clean(contract.search_body(asked(f'"recency_half_life":{value}')), 400).body["message"]
    assert message.startswith("recency_half_life must be between")
    message = clean(contract.search_body(asked(f'"offset":{value}')), 400).body["message"]
    assert message == "offset must be an integer"


@pytest.mark.parametrize("field", ["min_score", "recency_half_life", "weights"])
@pytest.mark.parametrize("value", ["1e400", "-1e400", "1e-400", "9" * 5000, "1e999999999", "-0"])
def test_numbers_of_any_size_in_a_search_are_clean(contract: Contract, watch: Watch, field: str, value: str) -> None:
    inside = f'{{"lexical":{value}}}' if field == "weights" else value
    with watch.quick():
        for mode in ("", '"query":"a b",'):
            clean(contract.search_body(f'{{"namespaces":["workspace:a"],{mode}"{field}":{inside}}}'), 200, 400)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
        ("2030-01-01T00:00:00-00:00", "2030-01-01T00:00:00.000000Z"),
        ("2030-01-01t00:00:00z", "2030-01-01T00:00:00.000000Z"),
        ("2030-01-01T00:00:00.1234567891Z", "2030-01-01T00:00:00.123457Z"),
        (f"2030-01-01T00:00:00.{'1' * 400}Z", "2030-01-01T00:00:00.111111Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999Z"),
        ("9999-12-31T23:59:59.9999995+00:00", "9999-12-31T23:59:59.999999Z"),
        ("2030-01-01T00:00:59.999999999Z", "2030-01-01T00:01:00.000000Z"),
        ("2030-06-30T23:59:60+14:00", "2030-06-30T10:00:00.000000Z"),
        ("2096-02-29T12:00:00+05:45", "2096-02-29T06:15:00.000000Z"),
        ("2030-01-01T00:00:00-00:30", "2030-01-01T00:30:00.000000Z"),
        ("2030-01-01T12:00:00+23:59", "2029-12-31T12:01:00.000000Z"),
        ("2030-01-01T12:00:00.5-22:12", "2030-01-02T10:12:00.500000Z"),
    ],
)
def test_a_time_that_rfc_3339_allows_is_kept(contract: Contract, value: str, kept: str) -> None:
    name = contract.name()
    assert contract.put(name, {"kind": "team", "expires_at": value}).body["expires_at"] == kept
    assert contract.commit(name, expires_at=value).status == 201
    assert contract.search([name]).body["memories"][0]["expires_at"] == kept


@pytest.mark.parametrize(
    "value",
    ["2030-02-30T00:00:00Z", "2030-13-01T00:00:00Z", "2030-01-01T24:00:00Z", "2030-01-01T00:60:00Z", "now", "infinity"]
    + ["2030-01-01T00:00:61Z", "2030-01-01T00:00:00", "2030-01-01T00:00:00+24:00", "2030-01-01T00:00:00+0000", "epoch"]
    + ["2030-01-01", "20300101T000000Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "10000-01-01T00:00:00Z"]
    + ["9999-12-31T23:59:59-12:00", "2030-01-01T00:00:00Z\n", " 2030-01-01T00:00:00Z", "2030-01-01T00:00:00 PST"]
    + [
        "２０３０-01-01T00:00:00Z",
        "2030-01-01T00:00:00Z'; --",
        "2030-01-01T00:00:00.Z",
        "allballs",
        "-2030-01-01T00:00:00Z",
    ],
)
def test_a_time_that_is_none_is_refused(contract: Contract, watch: Watch, value: str) -> None:
    name = contract.name()
    with watch.unchanged():
        assert refused(contract.put(name, {"kind": "team", "expires_at": value}), "expires_at")
        assert refused(contract.commit(name, expires_at=value), "expires_at")
        # A bound is only compared with, so that it need not be a time that can be shown.
        if not value.startswith(("0001", "9999")):
            assert refused(contract.search([name], created_after=value), "created_after")


@pytest.mark.parametrize(
    "name",
    ["workspace:a\n", "workspace:", ":a", "Workspace:a", "workspace:é", "workspace:a b", "workspace:a/b", "wörk:a"]
    + [
        "workspace:\u202ea",
        "workspace:a'--",
        'workspace:a"',
        "workspace:%s",
        "workspace:$1",
        "workspace:a\\",
        "a" * 300,
    ]
    + [
        "workspace:" + "a" * 247,
        "workspace:a,b",
        "{workspace:a}",
        "workspace:*",
        "work_space:a",
        "w0:a",
        "\tworkspace:a",
    ],
)
def test_a_name_outside_the_pattern_is_refused_wherever_it_is_given(
    contract: Contract, watch: Watch, name: str
) -> None:
    with watch.unchanged():
        assert refused(contract.search([name]))
        assert refused(contract.search([*(f"workspace:{i}" for i in range(2000)), name, "workspace:z"]))
        assert refused(contract.forget(str(uuid.uuid4()), name))
        if "/" not in name:
            assert refused(contract.commit(name))
            assert refused(contract.put(name, {"kind": "team"}))
            assert refused(contract.delete(name))


@pytest.mark.parametrize("fields", ["", ',"query":"x y"', ',"query":"x"'], ids=["listing", "words", "substring"])
def test_100_000_namespaces_in_one_search_are_answered_in_time(contract: Contract, watch: Watch, fields: str) -> None:
    name = contract.name()
    contract.commit(name, "x marks")
    many = ",".join(f'"a:{number:x}"' for number in range(100_000))
    with watch.quick():
        answer = contract.search_body(f'{{"namespaces":[{many},"{name}"]{fields}}}')
    assert [found["namespace"] for found in clean(answer, 200).body["memories"]] == [name]


def test_one_namespace_named_50_000_times_is_searched_once(contract: Contract, watch: Watch) -> None:
    name = contract.name()
    contract.commit(name, "x marks")
    with watch.quick():
        for fields in ({}, {"query": "x marks"}):
            assert contract.found([name] * 30_000, **fields) == ["x marks"]


def test_lists_of_100_000_kinds_or_sources_are_clean(contract: Contract, watch: Watch) -> None:
    with watch.quick():
        clean(contract.search(["workspace:a"], kinds=["fact"] * 100_000), 200, 400)
    with watch.quick():
        clean(contract.search(["workspace:a"], source=["agent"] * 100_000), 200, 400)


@pytest.mark.parametrize(
    "embedding", ["[" + "1," * 200_000 + "1]", "[" + "1e400," * 1535 + "1]", "[" + "[" * 5000 + "]" * 5001]
)
def test_an_embedding_of_absurd_shape_is_refused_quickly(contract: Contract, watch: Watch, embedding: str) -> None:
    with watch.unchanged():
        assert refused(contract.commit_body(contract.name(), memory(embedding=embedding)), "embedding")
        assert refused(contract.search_body(f'{{"namespaces":["workspace:a"],"embedding":{embedding}}}'), "embedding")
