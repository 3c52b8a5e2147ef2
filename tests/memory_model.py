"""What the contract says, in plain Python: the store that the service is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

Json = Any


def now() -> datetime:
    """Return the time of this machine, which is the server's too."""
    return datetime.now(timezone.utc)


@dataclass
class Memory:
    """A memory; `order` grows with created_at, which is filled in when an answer first shows it."""

    shown: dict[str, Json]
    expires_at: datetime | None
    pin: bool
    order: int
    created_at: datetime | None = None


@dataclass
class Namespace:
    """A namespace and its memories by id."""

    kind: str
    expires_at: datetime | None
    metadata: Json
    created_at: datetime | None = None
    memories: dict[str, Memory] = field(default_factory=dict)


def live(thing: Namespace | Memory | None) -> bool:
    """Tell whether something is there and has not expired."""
    return thing is not None and (thing.expires_at is None or thing.expires_at > now())


@dataclass
class Model:
    """Namespaces by name."""

    namespaces: dict[str, Namespace] = field(default_factory=dict)
    commits: int = 0

    def find(self, name: str) -> Namespace | None:
        """Return the live namespace of this name."""
        found = self.namespaces.get(name)
        return found if live(found) else None

    def put(self, name: str, kind: str, expires_at: datetime | None, metadata: Json) -> Namespace:
        """Replace what a live namespace says of itself, or start one."""
        known = self.find(name) or Namespace(kind, None, None)
        self.namespaces[name] = replace(known, kind=kind, expires_at=expires_at, metadata=metadata)
        return self.namespaces[name]

    def patch(self, name: str, changes: dict[str, Json]) -> Namespace | None:
        """Change a live namespace; None where there is none."""
        found = self.find(name)
        if found is not None:
            found.expires_at = changes.get("expires_at", found.expires_at)
            found.metadata = changes.get("metadata", found.metadata)
        return found

    def delete(self, name: str) -> bool:
        """Drop a live namespace; False where there is none."""
        found = self.find(name) is not None
        self.namespaces.pop(name, None)
        return found

    def commit(self, name: str, memory_id: str, shown: dict[str, Json], expires_at: datetime | None, pin: bool) -> None:
        """Write a memory, into a namespace made for it if need be."""
        namespace = self.find(name)
        if namespace is None:
            prefix = name.partition(":")[0]
            namespace = Namespace(prefix if prefix in ("workspace", "team", "org") else "custom", None, None)
            self.namespaces[name] = namespace
        self.commits += 1
        old = namespace.memories.get(memory_id)
        new = Memory(shown, expires_at, pin, self.commits)
        if old is not None and live(old):
            new = replace(new, order=old.order, created_at=old.created_at)
        namespace.memories[memory_id] = new

    def forget(self, name: str, memory_id: str) -> bool:
        """Drop a live memory of a live namespace; False where there is none."""
        namespace = self.find(name)
        found = namespace is not None and live(namespace.memories.get(memory_id))
        if namespace is not None and found:
            del namespace.memories[memory_id]
        return found

    def listing(self, names: list[str], kinds: list[str] | None, letter: str | None) -> list[tuple[str, str, Memory]]:
        """Return the live memories of these namespaces, pinned first, then newest: (namespace, id, memory)."""
        rows = [
            (name, memory_id, memory)
            for name in dict.fromkeys(names)
            if (namespace := self.find(name)) is not None
            for memory_id, memory in namespace.memories.items()
            if live(memory)
            and (not kinds or memory.shown["kind"] in kinds)
            and (letter is None or letter.lower() in memory.shown["content"].lower())
        ]
        return sorted(rows, key=lambda row: (not row[2].pin, -row[2].order))

    def pass_time(self, span: timedelta) -> None:
        """Let a span go by: every time comes so much nearer, or goes so much further back."""
        for namespace in self.namespaces.values():
            for thing in (namespace, *namespace.memories.values()):
                thing.expires_at = thing.expires_at and thing.expires_at - span
                thing.created_at = thing.created_at and thing.created_at - span
