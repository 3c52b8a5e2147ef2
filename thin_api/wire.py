"""One statement over one connection, with a deadline that holds even if the server says nothing at all.

A statement_timeout is the server's to enforce: a stopped or unreachable server enforces none, and behind a transaction
pooler it cannot be set for a session. So the deadline is enforced here, on libpq's asynchronous calls. Parameters
travel as text in the unnamed statement of the extended protocol, in one round trip: nothing stays prepared, so poolers
are no problem.

The answer counts only once the server is ready for the next statement. In the extended protocol it reports a statement
complete *before* it commits, so acknowledging any earlier could acknowledge a write that is then lost.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from math import ceil
from time import monotonic

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from memory_plugin.thin_api.errors import SqlError

# How long a statement that does not heed being cancelled is waited for. Its process at the server stays until it ends.
UNHEEDED_SECONDS = 300.0


class LostError(Exception):
    """The connection broke; `sent` is False only when the server cannot have seen the statement."""

    def __init__(self, sent: bool) -> None:
        super().__init__("connection lost")
        self.sent = sent


class ExpiredError(Exception):
    """The server did not answer by the deadline; what became of the statement is not known."""


class Link:
    """A connection, and what it takes to wait on it."""

    __slots__ = ("_both", "_ended", "_incoming", "answered", "born", "conn", "pgconn")

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        self.pgconn: PGconn = conn.pgconn
        self.born = self.answered = monotonic()
        self._ended = False
        conn.add_notice_handler(self._noticed)
        self._incoming = select.poll()
        self._incoming.register(self.pgconn.socket, select.POLLIN)
        self._both = select.poll()
        self._both.register(self.pgconn.socket, select.POLLIN | select.POLLOUT)

    @property
    def usable(self) -> bool:
        """Tell whether the connection looks open."""
        return self.pgconn.status == ConnStatus.OK

    def quiet(self) -> bool:
        """Tell whether an idle connection still stands: a server that ended it has left a message or an end of file."""
        try:
            if not self._incoming.poll(0):
                return self.usable and not self._ended
            # A notice or a changed parameter is no reason to drop it. A last word is, even if the end of file is late.
            self.pgconn.consume_input()
            self.pgconn.is_busy()
            return self.usable and not self._ended and not self._incoming.poll(0)
        except psycopg.Error:
            return False

    def cancel(self, seconds: float, heed_seconds: float) -> bool:
        """Cancel the statement, which may take `seconds`; tell whether it ends within `heed_seconds` after that."""
        try:
            self.conn.cancel_safe(timeout=seconds)
            if not self.ended(heed_seconds):
                return False
            self.pgconn.consume_input()
        except psycopg.Error:
            return False
        return self.usable

    def ended(self, seconds: float) -> bool:
        """Wait until the server says something more, or the connection is gone; tell whether it was so in time."""
        return bool(self._incoming.poll(ceil(seconds * 1000)))

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        # What the server says of its own accord, between two statements: libpq takes an error for a notice then.
        if notice.severity_nonlocalized in ("FATAL", "PANIC"):
            self._ended = True

    def run(self, statement: bytes, parameters: Sequence[bytes], deadline: float) -> bytes:
        """Run a statement that returns one value and return that value's text (b"" for null or void)."""
        pgconn = self.pgconn
        try:
            pgconn.send_query_params(statement, parameters)
        except psycopg.Error:
            raise LostError(sent=False) from None
        try:
            if pgconn.flush():
                self._finish_sending(deadline)
            value = b""
            refused: SqlError | None = None
            while True:
                while pgconn.is_busy():
                    self._wait(self._incoming, deadline)
                    pgconn.consume_input()
                result = pgconn.get_result()
                if result is None:
                    break
                if result.status == ExecStatus.TUPLES_OK:
                    value = result.get_value(0, 0) or b""
                elif refused is None:
                    refused = _refused(result)
        except psycopg.Error:
            raise LostError(sent=True) from None
        if refused is not None:
            raise refused
        return value

    def _finish_sending(self, deadline: float) -> None:
        while self.pgconn.flush():
            # The server may be sending too, and each side's buffer full: read, or both wait for ever.
            if self._wait(self._both, deadline) & select.POLLIN:
                self.pgconn.consume_input()

    @staticmethod
    def _wait(poller: select.poll, deadline: float) -> int:
        while True:
            left = deadline - monotonic()
            if left <= 0:
                raise ExpiredError
            if ready := poller.poll(ceil(left * 1000)):
                return ready[0][1]


def connect(conninfo: str, attempt_seconds: int) -> Link:
    """Open a connection; each address is given `attempt_seconds`. Raises psycopg.Error."""
    conn = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, connect_timeout=attempt_seconds)
    return Link(conn)


def _refused(result: PGresult) -> SqlError:
    sqlstate = result.error_field(DiagnosticField.SQLSTATE)
    if sqlstate is None:
        # libpq's own words: the connection broke before the server had said anything.
        raise LostError(sent=True)
    message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or b""
    detail = result.error_field(DiagnosticField.MESSAGE_DETAIL)
    return SqlError(
        sqlstate.decode("ascii", "replace"),
        message.decode("utf-8", "replace"),
        None if detail is None else detail.decode("utf-8", "replace"),
    )
