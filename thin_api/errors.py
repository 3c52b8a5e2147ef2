"""Turn what went wrong into an HTTP answer: one table from SQLSTATE to status, code and sentence.

A message from the server reaches a client only for our own SQLSTATEs (class MP), whose text names a field and a rule.
Every other error gets a sentence of ours, so no SQL, path or object name leaks.

For text that Postgres cannot hold, the server names no field, and for a lone surrogate it reports an SQLSTATE of
invalid JSON. Only then is the body parsed here, to say which field it is.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

BAD_REQUEST = "bad_request"
NOT_FOUND = "not_found"
FORBIDDEN = "forbidden"
# Beside the contract's codes: only where an operator has set a token.
UNAUTHORIZED = "unauthorized"
INTERNAL = "internal"
UNAVAILABLE = "unavailable"

_GONE = "the database is not available; try again"
_BUSY = "the database is busy; try again"
_RACE = "the request met another one on the same rows; try again"
_READ_ONLY = "the database takes no writes at the moment; try again"
_NO_STORE = "the memory store is not installed in this database"
_TEXT = "the body holds text that cannot be stored: \\u0000 or a lone surrogate"

# Looked up by the whole SQLSTATE first, then by its class (two characters). A sentence of None: the raised message.
_TABLE: dict[str, tuple[int, str, str | None]] = {
    "MP001": (400, BAD_REQUEST, None),
    "MP002": (400, BAD_REQUEST, None),
    "MP004": (404, NOT_FOUND, None),
    "MP005": (404, NOT_FOUND, None),
    "MP006": (403, FORBIDDEN, None),
    "MP009": (503, UNAVAILABLE, None),
    "22P02": (400, BAD_REQUEST, "body must be valid JSON"),
    "22P05": (400, BAD_REQUEST, _TEXT),
    "22021": (400, BAD_REQUEST, _TEXT),
    "22": (400, BAD_REQUEST, "a value in the body is malformed or out of range"),
    # No content does this, its rule comes before: the server has run out of transaction ids, until it is vacuumed.
    "54000": (503, UNAVAILABLE, _READ_ONLY),
    "54001": (400, BAD_REQUEST, "the body is nested too deeply"),
    "25006": (503, UNAVAILABLE, _READ_ONLY),
    "3F000": (503, UNAVAILABLE, _NO_STORE),
    "42P01": (503, UNAVAILABLE, _NO_STORE),
    "42704": (503, UNAVAILABLE, _NO_STORE),
    "42883": (503, UNAVAILABLE, _NO_STORE),
    "23503": (503, UNAVAILABLE, _RACE),
    "40001": (503, UNAVAILABLE, _RACE),
    "40P01": (503, UNAVAILABLE, _RACE),
    "55P03": (503, UNAVAILABLE, _BUSY),
    "57014": (503, UNAVAILABLE, _BUSY),
    "08": (503, UNAVAILABLE, _GONE),
    "53": (503, UNAVAILABLE, _GONE),
    "57": (503, UNAVAILABLE, _GONE),
    "58": (503, UNAVAILABLE, _GONE),
}
# Nothing is stored by a request that reads: what was too large is the answer.
_READS: dict[str, tuple[int, str, str | None]] = {
    **_TABLE,
    "54000": (400, BAD_REQUEST, "the answer would be too large; ask for fewer memories with limit"),
}
_MAY_BE_TEXT = frozenset(("22P02", "22P05", "22021"))
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_LONGEST_NAME = 64
_REST = (500, INTERNAL, "internal error; the log names it by this answer's X-Request-Id")


class Status(NamedTuple):
    """An HTTP status and the contract's code for it."""

    status: int
    code: str


class RefusedError(Exception):
    """Refused: an answer that is not a success."""

    def __init__(
        self, status: int, code: str, message: str, *, details: object = None, allow: str = "", reason: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.allow = allow
        # For the log alone: a SQLSTATE or a word of ours, never text from the server or the client.
        self.reason = reason

    @property
    def rolled_back(self) -> bool:
        """Tell whether the server itself refused the statement, so that nothing of it is left."""
        # A word of ours is in small letters.
        is_sqlstate = len(self.reason) == 5 and self.reason == self.reason.upper()
        return is_sqlstate and self.reason[:2] not in ("08", "57", "58")

    def again(self) -> RefusedError:
        """Return the same refusal, for another request."""
        return RefusedError(
            self.status, self.code, self.message, details=self.details, allow=self.allow, reason=self.reason
        )

    def body(self) -> bytes:
        """Return the error object of the contract: {code, message, details?}."""
        shown: dict[str, object] = {"code": self.code, "message": self.message}
        if self.details is not None:
            shown["details"] = self.details
        return json.dumps(shown, ensure_ascii=False).encode("utf-8", "replace")


class SqlError(Exception):
    """The server refused a statement."""

    def __init__(self, sqlstate: str, message: str, detail: str | None) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail


def status_of(sqlstate: str) -> Status:
    """Return what a SQLSTATE is answered with."""
    status, code, _ = _found(sqlstate, _TABLE)
    return Status(status, code)


def refusal(error: SqlError, *, reads: bool = False, body: bytes = b"") -> RefusedError:
    """Return the answer for a statement that the server refused; `reads` says that it would have written nothing.

    `body` is the request's, if it had one.
    """
    status, code, sentence = _found(error.sqlstate, _READS if reads else _TABLE)
    if sentence is not None:
        if error.sqlstate in _MAY_BE_TEXT and (field := _unstorable_field(body)):
            sentence = f"{field} must not contain \\u0000 or a lone surrogate"
        return RefusedError(status, code, sentence, reason=error.sqlstate)
    return RefusedError(status, code, error.message, details=_details(error.detail), reason=error.sqlstate)


def bad_request(message: str) -> RefusedError:
    """Return a 400."""
    return RefusedError(400, BAD_REQUEST, message)


def unavailable(message: str, reason: str) -> RefusedError:
    """Return a 503; `reason` is one word for the log."""
    return RefusedError(503, UNAVAILABLE, message, reason=reason)


def internal(reason: str) -> RefusedError:
    """Return a 500 that says nothing but where to look."""
    return RefusedError(*_REST, reason=reason)


def _found(sqlstate: str, table: dict[str, tuple[int, str, str | None]]) -> tuple[int, str, str | None]:
    return table.get(sqlstate) or table.get(sqlstate[:2]) or _REST


def _unstorable_field(body: bytes) -> str | None:
    """Return which field of a JSON object holds text that Postgres cannot, if one does."""
    try:
        # Objects as tuples of pairs, so that they differ from arrays and keep what is there twice.
        members = json.loads(body, object_pairs_hook=tuple, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    if not isinstance(members, tuple):
        return None
    for name, value in members:
        if _UNSTORABLE.search(name):
            return "the name of a field"
        values = [value]
        while values:
            value = values.pop()
            if isinstance(value, (list, tuple)):
                values.extend(value)
            elif isinstance(value, str) and _UNSTORABLE.search(value):
                return name if len(name) <= _LONGEST_NAME else "a field"
    return None


def _details(detail: str | None) -> object:
    """Return the DETAIL as a JSON object in every case, so that clients see one type."""
    if not detail:
        return None
    if detail.startswith("{"):
        try:
            return json.loads(detail)
        except ValueError:
            pass
    return {"detail": detail}
