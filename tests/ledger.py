"""Clients that write until told to stop and keep a ledger of what was acknowledged, and the audit of it afterwards."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

# What a client of the service allows; every answer must come before.
CLIENT_SECONDS = 2.0
# Within these of the cause's end writes are taken again.
RECOVERY_SECONDS = 5.0
NAMESPACE = "workspace:ledger"


@dataclass
class Ledger:
    """What the clients know: what was acknowledged to them of commits, forgets and patches, and how answers came."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    """Content of each memory whose 201 arrived, by the id in it."""
    retried: set[str] = field(default_factory=set)
    """Contents sent under an id of the client's own, again and again until the 201."""
    forgotten: set[str] = field(default_factory=set)
    """Ids whose 204 arrived."""
    unsure: set[str] = field(default_factory=set)
    """Ids whose forget had no clear answer to the end."""
    patched: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By namespace: the last number whose 200 arrived, the last that was sent."""
    statuses: dict[int, int] = field(default_factory=dict)
    slowest: float = 0.0
    last_failure: float = 0.0
    """When (time.monotonic) the last request ended that was not acknowledged."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: int, began: float) -> None:
        """Write one answer down; status 0 is a connection that was refused or cut."""
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if status in (0, 503):
                self.last_failure = time.monotonic()


def _send(address: tuple[str, int], method: str, path: str, body: object) -> tuple[int, bytes]:
    """Send one request on a connection of its own, as the client behind a breaker does."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


class _Writer:
    """One client, and what it does in turn."""

    def __init__(self, address: tuple[str, int], ledger: Ledger, number: int, padding: int, over: threading.Event):
        self._address = address
        self._ledger = ledger
        self._number = number
        self._padding = "x" * padding
        self._over = over
        self._own = f"{NAMESPACE}-{number}"

    def run(self) -> None:
        place = 0
        while not self._over.is_set():
            place += 1
            committed = self._commit(place)
            if committed and place % 4 == 1:
                self._forget(committed)
            if place % 5 == 1:
                self._patch(place)
            if place % 7 == 1:
                self._ask("POST", "/v1/search", {"namespaces": [self._own, "team:none"], "query": "a"})

    def _ask(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        began = time.monotonic()
        status, answer = _send(self._address, method, path, body)
        self._ledger.note(status, began)
        if status in (0, 503):
            # As a client that backs off would, and the listener that is away is not asked in a tight loop.
            self._over.wait(0.05)
        return status, answer

    def _commit(self, place: int) -> str:
        """Commit a memory; return its id if that was acknowledged and the id is the client's own."""
        content = f"{uuid.uuid4()} client {self._number} memory {place} {self._padding}"
        memory: dict[str, object] = {"content": content, "kind": "fact", "source": "agent"}
        if place % 2:
            memory["id"] = str(uuid.uuid4())
            with self._ledger.lock:
                self._ledger.retried.add(content)
        while True:
            status, body = self._ask("POST", f"/v1/namespaces/{NAMESPACE}/memories", memory)
            if status == 201:
                with self._ledger.lock:
                    self._ledger.acknowledged[json.loads(body)["id"]] = content
                return str(memory.get("id", ""))
            # A commit under the server's id may have happened although no answer came: it is not sent again.
            if "id" not in memory or self._over.is_set():
                return ""

    def _forget(self, memory_id: str) -> None:
        """Forget a memory, and go on until it is gone."""
        with self._ledger.lock:
            del self._ledger.acknowledged[memory_id]
            self._ledger.unsure.add(memory_id)
        tries = 0
        while not self._over.is_set():
            status, _ = self._ask("DELETE", f"/v1/memories/{memory_id}", {"requested_by_namespace": NAMESPACE})
            tries += 1
            # Gone already where an earlier try had no answer.
            if status == 204 or (status == 404 and tries > 1):
                with self._ledger.lock:
                    self._ledger.forgotten.add(memory_id)
                    self._ledger.unsure.remove(memory_id)
                return
            assert status in (0, 503), f"a memory that was acknowledged is not there: {status}"

    def _patch(self, number: int) -> None:
        """Write a number into a namespace of the client's own: the first makes it."""
        fields: dict[str, object] = {"metadata": {"seen": number}}
        method = "PATCH"
        acknowledged, _ = self._ledger.patched.get(self._own, (0, 0))
        if not acknowledged:
            fields["kind"] = "workspace"
            method = "PUT"
        self._ledger.patched[self._own] = (acknowledged, number)
        status, _ = self._ask(method, f"/v1/namespaces/{self._own}", fields)
        if status == 200:
            self._ledger.patched[self._own] = (number, number)


@contextmanager
def writing(address: tuple[str, int], clients: int = 4, padding: int = 0) -> Iterator[Ledger]:
    """Let clients write until the block ends.

    Each second memory has an id of theirs and is sent until it is acknowledged; some of those are forgotten again. Now
    and then a client patches a namespace of its own, and searches.
    """
    ledger, over = Ledger(), threading.Event()
    writers = [_Writer(address, ledger, number, padding, over) for number in range(clients)]
    threads = [threading.Thread(target=writer.run) for writer in writers]
    for thread in threads:
        thread.start()
    try:
        yield ledger
    finally:
        over.set()
        for thread in threads:
            thread.join(30)


def wait_for_writes(ledger: Ledger, more: int, timeout: float) -> float:
    """Wait until so many more writes are acknowledged; return how many seconds that took."""
    began, wanted = time.monotonic(), ledger.statuses.get(201, 0) + more
    while ledger.statuses.get(201, 0) < wanted:
        if time.monotonic() - began > timeout:
            raise AssertionError(f"no {more} writes within {timeout} s: {ledger.statuses}")
        # The pause between two looks, not a wait for an effect.
        time.sleep(0.01)
    return time.monotonic() - began


def survives(ledger: Ledger, fault: Callable[[], None]) -> None:
    """Write before, during and after a fault, and audit."""
    wait_for_writes(ledger, 20, 20)
    fault()
    took = wait_for_writes(ledger, 20, 20)
    assert took < RECOVERY_SECONDS, f"writes came back after {took:.1f} s: {ledger.statuses}"


def audit(ledger: Ledger, database: str) -> None:
    """Compare the ledger with the store: nothing acknowledged lost, undone or there twice; every answer in time."""
    with psycopg.connect(database) as conn:
        rows = conn.execute(
            "select id::text, content from memory_plugin.memory_records where namespace = %s", [NAMESPACE]
        ).fetchall()
        seen = conn.execute("select name, metadata ->> 'seen' from memory_plugin.memory_namespaces").fetchall()
    stored = dict(rows)
    lost = {one: content for one, content in ledger.acknowledged.items() if stored.get(one) != content}
    assert not lost, f"{len(lost)} of {len(ledger.acknowledged)} acknowledged writes lost or changed"
    assert not ledger.forgotten & set(stored), "a memory that was forgotten is there again"
    contents = [content for _, content in rows]
    assert len(contents) == len(set(contents)), "a write stands in the store twice"
    numbers = {name: int(number) for name, number in seen if number is not None}
    for name, (acknowledged, sent) in ledger.patched.items():
        assert acknowledged == 0 or acknowledged <= numbers[name] <= sent, f"a patch is lost: {name}"
    assert ledger.slowest < CLIENT_SECONDS, f"an answer took {ledger.slowest:.2f} s"
    # 404: of a memory whose forget had no answer the first time.
    unexpected = set(ledger.statuses) - {0, 200, 201, 204, 404, 503}
    assert not unexpected, ledger.statuses
    assert ledger.statuses.get(201, 0) > 0
    assert ledger.statuses.get(204, 0) > 0
