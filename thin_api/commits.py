"""Commit together, in one transaction, the commits that arrive while another is under way.

A commit's transaction costs more than what it writes: a round trip, a flush of the write-ahead log, two context
switches.

- While one transaction is under way, other commits queue, and the next transaction takes all of them
  (`v1_commit_memories`).
- A second one starts beside the first as soon as half of those who commit are queued: while the database writes for
  one half, the requests of the other half are read and answered. Not beside a search, though: two small transactions
  cost more than one large one, and searches would pay for it.
- A transaction under way for longer than LATE, behind a lock or a slow disk, holds nobody up, as far as there are
  connections.
- Whoever leads goes ahead of the searches that wait for a connection: it is quick, and many wait for it.
- Nobody queues for longer than PATIENCE.

Each request keeps its own answer, which counts only once the transaction is committed. What the statement leaves
undone (whatever is not plainly right, or might wait for somebody else) is committed by its own thread as if it had
come alone.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

from memory_plugin.thin_api.calls import Calls
from memory_plugin.thin_api.errors import RefusedError, internal
from memory_plugin.thin_api.routes import COMMIT, Route

# A larger one, with its embedding, is work for the server rather than waiting, and two of them run side by side.
SMALL = 4096
MOST = 16
PATIENCE = 0.2
LATE = 0.03
# Of the crowd, with each transaction: of sixty-four that have left nothing is expected a second later.
FADES = 0.1
# A store without the function is older than this program, until it is installed anew.
OFF_SECONDS = 60.0
_ID = b'"id"'


def _together(number: int) -> Route:
    names = ",".join(f"${2 * i + 1}::text" for i in range(number))
    bodies = ",".join(f"${2 * i + 2}::text" for i in range(number))
    statement = f"select memory_plugin.v1_commit_memories(array[{names}],array[{bodies}])"
    return COMMIT._replace(statement=statement.encode())


_TOGETHER = tuple(_together(number) for number in range(MOST + 1))


class _Place:
    """A request's place in the line."""

    __slots__ = ("answer", "arrived", "body", "error", "name", "party", "ready")

    def __init__(self, name: bytes, body: bytes, arrived: float) -> None:
        self.name = name
        self.body = body
        self.arrived = arrived
        self.ready = threading.Lock()
        self.ready.acquire()
        # Of the one who commits for all of them: everybody, himself first.
        self.party: list[_Place] = []
        self.answer = b""
        self.error: RefusedError | None = None


class Commits:
    """Commits of many requests, over `calls`, in at most `most` transactions at a time."""

    def __init__(self, calls: Calls, most: int, busy: Callable[[], int]) -> None:
        """`busy()` is how many connections are in use or waited for, by whomever."""
        self._calls = calls
        self._most = most
        self._busy = busy
        self._lock = threading.Lock()
        # Who leads a transaction that is under way, and since when.
        self._under_way: dict[_Place, float] = {}
        self._line: deque[_Place] = deque()
        # How many were at it at once of late, in line and under way.
        self._crowd = 0.0
        self._off_until = 0.0

    def run(self, name: bytes, body: bytes, arrived: float) -> bytes:
        """Return the answer to one commit; raises as `Calls.run` does."""
        if len(body) > SMALL or _ID in body or monotonic() < self._off_until:
            return self._calls.run(COMMIT, (name, body), arrived)
        place = _Place(name, body, arrived)
        with self._lock:
            self._line.append(place)
            self._start()
        if not place.party:
            self._stand(place)
        if place.party:
            try:
                if len(place.party) == 1:
                    return self._calls.run(COMMIT, (name, body), arrived, first=True)
                self._commit(place.party)
            finally:
                self._done(place)
                for other in place.party[1:]:
                    other.ready.release()
        if place.error is not None:
            raise place.error
        return place.answer or self._calls.run(COMMIT, (name, body), arrived)

    @property
    def in_line(self) -> int:
        """Return how many requests wait for a transaction to join."""
        return len(self._line)

    def _stand(self, place: _Place) -> None:
        """Wait until somebody has committed this place, or it is to lead, or it has waited enough and goes alone."""
        rest = max(PATIENCE - LATE, 0)
        if place.ready.acquire(timeout=LATE):
            return
        with self._lock:
            self._start()
        if place.ready.acquire(timeout=rest):
            return
        with self._lock:
            if place in self._line:
                self._line.remove(place)
                return
        # Under way by now: whoever leads ends by his statement's deadline.
        place.ready.acquire()

    def _start(self) -> None:
        """Let the first in line commit for those that stand there now, if it is time; the caller holds the lock."""
        self._crowd = max(self._crowd, self._present())
        while self._line and len(self._under_way) < self._most:
            now = monotonic()
            prompt = sum(now - since <= LATE for since in self._under_way.values())
            if prompt > 1 or (prompt == 1 and not self._may_start_beside()):
                return
            party = [self._line.popleft() for _ in range(min(len(self._line), MOST))]
            party[0].party = party
            self._under_way[party[0]] = now
            party[0].ready.release()

    def _done(self, place: _Place) -> None:
        """Note that the transaction which a place led has ended."""
        with self._lock:
            self._crowd = max(self._present(), self._crowd - FADES)
            del self._under_way[place]
            self._start()

    def _may_start_beside(self) -> bool:
        enough = len(self._line) >= min(self._crowd / 2, MOST)
        return enough and self._busy() <= len(self._under_way)

    def _present(self) -> int:
        return len(self._line) + sum(len(leader.party) for leader in self._under_way)

    def _commit(self, party: list[_Place]) -> None:
        parameters = [text for place in party for text in (place.name, place.body)]
        try:
            arrived = min(place.arrived for place in party)
            answer = self._calls.run(_TOGETHER[len(party)], parameters, arrived, first=True)
            answers = list(zip(party, answer.split(b"\n"), strict=True))
        except RefusedError as refused:
            if refused.reason == "42883":
                self._off_until = monotonic() + OFF_SECONDS
            elif not refused.rolled_back:
                # What became of it is not known, or there is no database: for one as for all.
                for place in party:
                    place.error = refused.again()
            return
        except BaseException as error:
            # All may be committed: whoever went on alone now would be committed twice.
            for place in party:
                place.error = internal(type(error).__name__)
            raise
        for place, line in answers:
            place.answer = line
