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
    """What the clients know: ids and contents acknowledged, contents sent without an answer, and how answers came."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    """Content of each memory whose 201 arrived, by the id in it."""
    retried: set[str] = field(default_factory=set)
    """Contents sent under an id of the client's own, again and again until the 201."""
    statuses: dict[int, int] = field(default_factory=dict)
    slowest: float = 0.0
    last_failure: float = 0.0
    """When (time.monotonic) the last request ended that was not acknowledged."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, status: int, began: float, body: bytes, content: str) -> None:
        """Write one answer down; status 0 is a connection that was refused or cut."""
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            if status == 201:
                self.acknowledged[json.loads(body)["id"]] = content
            else:
                self.last_failure = time.monotonic()


def _commit(address: tuple[str, int], memory: dict[str, object]) -> tuple[int, bytes]:
    """Send one commit on a connection of its own, as the client behind a breaker does."""
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request("POST", f"/v1/namespaces/{NAMESPACE}/memories", json.dumps(memory))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


@contextmanager
def writing(address: tuple[str, int], clients: int = 4, padding: int = 0) -> Iterator[Ledger]:
    """Let clients commit until the block ends; each second memory has an id of theirs and is sent till acknowledged."""
    ledger, over = Ledger(), threading.Event()

    def run(number: int) -> None:
        place = 0
        while not over.is_set():
            place += 1
            content = f"{uuid.uuid4()} client {number} memory {place} " + "x" * padding
            memory: dict[str, object] = {"content": content, "kind": "fact", "source": "agent"}
            if place % 2:
                memory["id"] = str(uuid.uuid4())
                with ledger.lock:
                    ledger.retried.add(content)
            while True:
                began = time.monotonic()
                status, body = _commit(address, memory)
                ledger.note(status, began, body, content)
                # A commit under the server's id may have happened although no answer came: it is not sent again.
                if status == 201 or "id" not in memory or over.is_set():
                    break
                # As a client that backs off would, and the listener that is away is not asked in a tight loop.
                over.wait(0.05)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
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
    began, wanted = time.monotonic(), len(ledger.acknowledged) + more
    while len(ledger.acknowledged) < wanted:
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
    """Compare the ledger with the store: nothing acknowledged lost, changed or there twice; every answer in time."""
    with psycopg.connect(database) as conn:
        rows = conn.execute(
            "select id::text, content from memory_plugin.memory_records where namespace = %s", [NAMESPACE]
        ).fetchall()
    stored = dict(rows)
    lost = {one: content for one, content in ledger.acknowledged.items() if stored.get(one) != content}
    assert not lost, f"{len(lost)} of {len(ledger.acknowledged)} acknowledged writes lost or changed"
    contents = [content for _, content in rows]
    assert len(contents) == len(set(contents)), "a write stands in the store twice"
    assert ledger.slowest < CLIENT_SECONDS, f"an answer took {ledger.slowest:.2f} s"
    unexpected = set(ledger.statuses) - {0, 201, 503}
    assert not unexpected, ledger.statuses
    assert ledger.statuses.get(201, 0) > 0
