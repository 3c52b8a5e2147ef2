"""Texts made to hurt, in every field that takes text and at both doors: kept as they are, and never more than text."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import psycopg
import pytest

from doors import Contract, refused
from hostile import TEXTS, Watch, clean

pytestmark = pytest.mark.servers("any")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_comes_back_as_it_went_in(contract: Contract, watch: Watch, text: str) -> None:
    name = contract.name()
    inside = {text: [text, {text: text}]}
    with watch.quick():
        assert contract.commit(name, f"x{text}x", propagation=inside).status == 201
    with watch.quick():
        assert contract.put(name, {"kind": "team", "metadata": inside}).body["metadata"] == inside
    (found,) = contract.search([name]).body["memories"]
    assert (found["content"], found["propagation"]) == (f"x{text}x", inside)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_as_a_query_finds_at_most_what_the_namespace_holds(contract: Contract, watch: Watch, text: str) -> None:
    mine, other = contract.name("mine"), contract.name("other")
    contract.commit(mine, f"said: {text}")
    contract.commit(other, f"said: {text}")
    before = watch.rows()
    for fields in ({}, {"explain": True}, {"kinds": ["fact"], "source": "agent"}, {"embedding": [1.0] * 1536}):
        with watch.quick():
            answer = clean(contract.search([mine], query=text, **fields), 200)
        assert {found["namespace"] for found in answer.body["memories"]} <= {mine}
    assert watch.rows() == before


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_a_field_that_knows_its_values_is_refused(contract: Contract, watch: Watch, text: str) -> None:
    name = contract.name()
    with watch.unchanged():
        for field in ("kind", "source", "id", "expires_at", "pin", "embedding", "propagation"):
            assert refused(contract.commit(name, **{field: text}), field)
        for field in ("kind", "expires_at", "metadata"):
            assert refused(contract.put(name, {"kind": "team", field: text}), field)
        for field in ("kinds", "source", "limit", "created_after", "min_score", "weights", "offset", "explain"):
            value = [text] if field == "kinds" else text
            assert refused(contract.search([name], **{field: value}))
        assert refused(contract.search([name, text]))
        assert refused(contract.forget(str(uuid.uuid4()), text))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_the_path_names_nothing(contract: Contract, watch: Watch, text: str) -> None:
    # A request line has its limit; what is over it never reaches the service.
    text = text[:2000]
    with watch.unchanged():
        for name in (text, f"workspace:{text}"):
            for answer in (contract.put(name, {"kind": "team"}), contract.commit(name), contract.delete(name)):
                clean(answer, 400, 404)
        assert clean(contract.forget(text, "workspace:a"), 404)


@pytest.mark.parametrize("character", [*"%_\\'\"$&|!:*()<>-{}[]^.?+", "é", "ß", "あ", "א", "🙂", "\u0301", "\ufeff"])
def test_a_single_character_is_searched_for_as_itself(contract: Contract, character: str) -> None:
    name = contract.name()
    contract.commit(name, f"with {character} inside")
    contract.commit(name, "without 0 inside")
    found = contract.found([name], query=character)
    assert found == [f"with {character} inside"]


@pytest.mark.parametrize("body", ['"a\\u0000b"', '"\\ud800"', '"\\udc00 \\ud800"', '"\\ud83d"', '"\\u0000"'])
def test_a_text_that_postgres_cannot_hold_is_refused_in_every_field(
    contract: Contract, watch: Watch, body: str
) -> None:
    name = contract.name()
    with watch.unchanged():
        for field in ("content", "kind", "source", "id", "expires_at"):
            fields = {"content": '"x"', "kind": '"fact"', "source": '"agent"', field: body}
            assert refused(contract.commit_body(name, "{" + ",".join(f'"{k}":{v}' for k, v in fields.items()) + "}"))
        for inside in (f'{{"a":{body}}}', f"{{{body}:1}}", f'{{"a":[[{body}]]}}'):
            assert refused(
                contract.commit_body(name, f'{{"content":"x","kind":"fact","source":"agent","propagation":{inside}}}')
            )
            assert refused(contract.put(name, f'{{"kind":"team","metadata":{inside}}}'))
        assert refused(contract.search_body(f'{{"namespaces":[{body}]}}'))
        assert refused(contract.search_body(f'{{"namespaces":["{name}"],"query":{body}}}'))


@pytest.mark.parametrize("text", [text for text in TEXTS.values() if len(text) < 10_000])
def test_the_typed_functions_take_a_text_for_no_more_than_that(watch: Watch, namespace: str, text: str) -> None:
    conn = watch.connection
    conn.execute("select memory_plugin.commit_memory(%s, %s, propagation => jsonb_build_object(%s::text, %s::text))",
                 [namespace, f"x{text}x", text, text])  # fmt: skip
    found = conn.execute("select content, propagation from memory_plugin.search(array[%s])", [namespace]).fetchall()
    assert found == [(f"x{text}x", {text: text})]
    conn.execute(
        "select count(*) from memory_plugin.search(array[%s], query => %s, explain => true)", [namespace, text]
    )
    refusals: list[Callable[[], object]] = [
        lambda: conn.execute("select memory_plugin.commit_memory(%s, 'x')", [text]),
        lambda: conn.execute("select memory_plugin.commit_memory(%s, 'x', %s)", [namespace, text]),
        lambda: conn.execute("select memory_plugin.commit_memory(%s, 'x', 'fact', %s)", [namespace, text]),
        lambda: conn.execute("select memory_plugin.upsert_namespace(%s, %s)", [namespace, text]),
        lambda: conn.execute("select memory_plugin.delete_namespace(%s)", [text]),
        lambda: conn.execute("select memory_plugin.search(array[%s, %s])", [namespace, text]),
        lambda: conn.execute("select memory_plugin.search(array[%s], kinds => array[%s])", [namespace, text]),
    ]
    before = watch.rows()
    for refusal in refusals:
        with pytest.raises(psycopg.Error) as caught:
            refusal()
        assert caught.value.sqlstate == "MP001"
    assert watch.rows() == before
