"""The service and a plain Python model, driven together through both doors; a difference prints its shortest way."""

from __future__ import annotations

import json
import os
import uuid
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from doors import Answer, Contract, Door, HttpDoor, SqlDoor
from fixtures.sidecars import Sidecar
from memory_model import Model, Namespace, now

pytestmark = pytest.mark.servers("any")

# In a long run so many, and others each time; here the same few.
LONG = "TORTURE_MODEL_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("TORTURE_MODEL_EXAMPLES", "40"))
DAY = timedelta(days=1)
# Before and after the days that pass_time lets go by, never near their edge.
SPANS = {"past": -2.5 * DAY, "soon": 0.5 * DAY, "later": 1.5 * DAY, "far": 9000.5 * DAY}

doors = st.sampled_from(["http", "sql"])
names = st.sampled_from(["workspace:a", "team:b", "thing:c"])
ids = st.sampled_from([str(uuid.UUID(int=0x4000_8000_0000_0000_0000 + number)) for number in range(3)])
expiries = st.sampled_from([None, None, None, *SPANS])
objects = st.sampled_from([None, {}, {"a": [1, {"é": None}], "n": -0.5}])
kinds = st.sampled_from(["fact", "summary", "checkpoint"])
letters = "aBé%_\\"


def at(expiry: str | None) -> datetime | None:
    return None if expiry is None else now() + SPANS[expiry]


def written(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


class Machine(RuleBasedStateMachine):
    """Runs one operation a rule on both sides and compares what they say."""

    def __init__(self, all_doors: dict[str, Door], admin: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.contracts = {name: Contract(door) for name, door in all_doors.items()}
        self.admin = admin
        self.model = Model()
        self.suffix = f".{uuid.uuid4().hex}"

    def same_namespace(self, answer: Answer, name: str, expected: Namespace) -> None:
        shown = dict(answer.body)
        created_at = datetime.fromisoformat(shown.pop("created_at").replace("Z", "+00:00"))
        expected.created_at = expected.created_at or created_at
        assert created_at == expected.created_at
        self.same_time(shown.pop("expires_at", None), expected.expires_at)
        wanted = {"name": name, "kind": expected.kind, "metadata": expected.metadata}
        assert shown == {key: value for key, value in wanted.items() if value is not None}

    @staticmethod
    def same_time(shown: str | None, expected: datetime | None) -> None:
        assert (None if shown is None else datetime.fromisoformat(shown.replace("Z", "+00:00"))) == expected

    @rule(
        door=doors, name=names, kind=st.sampled_from(["workspace", "org", "custom"]), expiry=expiries, metadata=objects
    )
    def put(self, door: str, name: str, kind: str, expiry: str | None, metadata: object) -> None:
        name, expires_at = name + self.suffix, at(expiry)
        answer = self.contracts[door].put(name, {"kind": kind, "expires_at": written(expires_at), "metadata": metadata})
        assert answer.status == 200
        self.same_namespace(answer, name, self.model.put(name, kind, expires_at, metadata))

    @rule(
        door=doors, name=names, fields=st.fixed_dictionaries({}, optional={"expires_at": expiries, "metadata": objects})
    )
    def patch(self, door: str, name: str, fields: dict[str, Any]) -> None:
        name = name + self.suffix
        changes = {key: at(value) if key == "expires_at" else value for key, value in fields.items()}
        body = {key: written(value) if key == "expires_at" else value for key, value in changes.items()}
        answer = self.contracts[door].patch(name, body)
        if not changes:
            assert answer.status == 400
        elif (expected := self.model.patch(name, changes)) is None:
            assert answer.status == 404
        else:
            assert answer.status == 200
            self.same_namespace(answer, name, expected)

    @rule(door=doors, name=names)
    def delete(self, door: str, name: str) -> None:
        name = name + self.suffix
        assert self.contracts[door].delete(name).status == (204 if self.model.delete(name) else 404)

    @rule(
        door=doors,
        name=names,
        memory_id=st.one_of(st.none(), ids),
        content=st.text(letters, min_size=1, max_size=3),
        kind=kinds,
        expiry=expiries,
        pin=st.booleans(),
        propagation=objects,
    )
    def commit(
        self, door: str, name: str, memory_id: str | None, content: str, kind: str, expiry: str | None, pin: bool,
        propagation: object,
    ) -> None:  # fmt: skip
        name, expires_at = name + self.suffix, at(expiry)
        fields = {"id": memory_id, "kind": kind, "pin": pin, "propagation": propagation}
        answer = self.contracts[door].commit(name, content, **fields, expires_at=written(expires_at))
        assert (answer.status, answer.body["namespace"]) == (201, name)
        assert memory_id in (None, answer.body["id"])
        shown = {"content": content, "kind": kind, "source": "agent", "propagation": propagation, "pin": pin or None}
        shown = {key: value for key, value in shown.items() if value is not None}
        self.model.commit(name, answer.body["id"], shown, expires_at, pin)

    @rule(some=st.lists(st.tuples(names, st.text(letters, min_size=1, max_size=3)), min_size=1, max_size=4))
    def commit_together(self, some: list[tuple[str, str]]) -> None:
        # As the sidecar does while others commit: an empty line is a memory that must be committed by itself.
        where = [name + self.suffix for name, _ in some]
        bodies = [json.dumps({"content": content, "kind": "fact", "source": "agent"}) for _, content in some]
        row = self.admin.execute("select memory_plugin.v1_commit_memories(%s, %s)", [where, bodies]).fetchone()
        assert row is not None
        shown = {"kind": "fact", "source": "agent"}
        committed = []
        for name, (_, content), line in zip(where, some, row[0].split("\n"), strict=True):
            if line:
                committed.append((name, json.loads(line)["id"], content))
                assert self.model.find(name) is not None
        # One statement has one time: their order is that of the ids, backwards.
        for name, memory_id, content in sorted(committed, key=lambda one: one[1], reverse=True):
            self.model.commit(name, memory_id, {**shown, "content": content}, None, False)

    @rule(door=doors, name=names, memory_id=ids)
    def forget(self, door: str, name: str, memory_id: str) -> None:
        name = name + self.suffix
        assert self.contracts[door].forget(memory_id, name).status == (
            204 if self.model.forget(name, memory_id) else 404
        )

    @rule(
        door=doors,
        some=st.lists(names, min_size=1, max_size=4),
        only=st.one_of(st.none(), st.lists(kinds, max_size=2)),
        limit=st.sampled_from([None, 0, 1, 2, 100]),
        offset=st.sampled_from([None, None, 0, 1, 3]),
        letter=st.one_of(st.none(), st.sampled_from(letters)),
    )
    def search(
        self, door: str, some: list[str], only: list[str] | None, limit: int | None, offset: int | None,
        letter: str | None,
    ) -> None:  # fmt: skip
        where = [name + self.suffix for name in some]
        answer = self.contracts[door].search(where, kinds=only, limit=limit, offset=offset, query=letter)
        assert answer.status == 200
        expected = self.model.listing(where, only, letter)[offset or 0 :][: limit or 20]
        assert [(row["namespace"], row["id"]) for row in answer.body["memories"]] == [row[:2] for row in expected]
        for row, (name, memory_id, memory) in zip(answer.body["memories"], expected, strict=True):
            created_at = datetime.fromisoformat(row.pop("created_at").replace("Z", "+00:00"))
            memory.created_at = memory.created_at or created_at
            assert created_at == memory.created_at
            self.same_time(row.pop("expires_at", None), memory.expires_at)
            assert row == {"namespace": name, "id": memory_id, **memory.shown}

    @rule()
    def sweep(self) -> None:
        # Sweeping changes nothing that anybody can see.
        self.admin.execute("select memory_plugin.sweep()")

    @rule()
    def pass_a_day(self) -> None:
        mine = f"%{self.suffix}"
        moved = "set expires_at = expires_at - interval '24 hours', created_at = created_at - interval '24 hours'"
        self.admin.execute(f"update memory_plugin.memory_namespaces {moved} where name like %s", [mine])  # type: ignore[arg-type]
        self.admin.execute(f"update memory_plugin.memory_records {moved} where namespace like %s", [mine])  # type: ignore[arg-type]
        self.model.pass_time(DAY)

    def teardown(self) -> None:
        # Whatever was looked at on the way, in the end the two hold the same.
        for door in self.contracts:
            for name in ("workspace:a", "team:b", "thing:c"):
                self.search(door, [name], None, 100, None, None)


def test_the_service_and_the_model_never_differ(
    shared_sidecar: Sidecar, plain_role_connection: psycopg.Connection[Any]
) -> None:
    both: dict[str, Door] = {"http": HttpDoor(shared_sidecar.client), "sql": SqlDoor(plain_role_connection)}
    with psycopg.connect(shared_sidecar.database, autocommit=True, prepare_threshold=None) as admin:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            lambda: Machine(both, admin),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=30,
                derandomize=not LONG,
                print_blob=True,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
