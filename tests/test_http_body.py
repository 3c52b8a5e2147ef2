"""What is read of a body, under whichever WSGI server."""

from __future__ import annotations

import gzip
import io
from typing import Any

import pytest

from memory_plugin.thin_api import body as body_module
from memory_plugin.thin_api.body import GRACE, Bodies
from memory_plugin.thin_api.errors import RefusedError

LIMIT = 30


def given(content: bytes, length: object = None, *, ends: bool = True) -> dict[str, Any]:
    """Return a request's environment; a body without a length ends by itself only where the server says so."""
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(content)}
    if length is not None:
        environ["CONTENT_LENGTH"] = str(length)
    elif ends:
        environ["wsgi.input_terminated"] = True
    return environ


def refused(bodies: Bodies, environ: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        bodies.read(environ)
    assert bodies.reading == {}
    return caught.value.status, caught.value.message


def test_a_body_is_read_to_its_length_or_its_end() -> None:
    bodies = Bodies(LIMIT)
    assert bodies.read(given(b'{"a": 1} and more', 8)) == b'{"a": 1}'
    for whole in (b'{"a": 1}', b"x" * LIMIT):
        assert bodies.read(given(whole)) == bodies.read(given(whole, len(whole))) == whole
    assert bodies.reading == {}


@pytest.mark.parametrize("length", ["-1", "+5", "1.0", "x", "٣", " 3"])
def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    assert refused(Bodies(LIMIT), given(b"123", length)) == (400, "Content-Length must be a number")


@pytest.mark.parametrize("length", [LIMIT + 1, None])
def test_a_body_over_the_limit_is_read_on_for_the_clients_sake_and_refused(length: int | None) -> None:
    environ = given(b"x" * (LIMIT + 1), length)
    assert refused(Bodies(LIMIT), environ) == (413, "the body must be at most 30 bytes")
    assert environ["wsgi.input"].read() == b""


def test_no_more_is_read_on_than_is_bearable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "DISCARD", 100)
    environ = given(b"x" * 1000, 1000)
    assert refused(Bodies(LIMIT), environ)[0] == 413
    assert len(environ["wsgi.input"].read()) == 900


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (given(b"123", 4), "the body ended before its Content-Length"),
        (given(b"", 0), "a JSON body is required"),
        (given(b" \n", 2), "a JSON body is required"),
        (given(b"never ends", ends=False), "a JSON body is required"),
        (given(b"\xff", 1), "the body must be UTF-8"),
        (
            {**given(gzip.compress(b"{}")), "HTTP_CONTENT_ENCODING": "gzip"},
            "the body must be UTF-8, and not compressed: send it without Content-Encoding",
        ),
        (given(b'"\0"', 3), "the body holds a NUL byte"),
    ],
)
def test_what_is_no_body_is_refused(environ: dict[str, Any], message: str) -> None:
    assert refused(Bodies(LIMIT), environ) == (400, message)


@pytest.mark.parametrize(("took", "late"), [(GRACE - 0.1, False), (GRACE + 0.1, True)])
def test_a_chunked_body_that_comes_late_may_be_cut_off_and_is_refused(
    monkeypatch: pytest.MonkeyPatch, took: float, late: bool
) -> None:
    now = 100.0
    monkeypatch.setattr(body_module, "monotonic", lambda: now)

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal now
            now += took if self.tell() == 0 else 0
            return super().read(size)

    environ = {**given(b""), "wsgi.input": Slow(b"{}")}
    if late:
        assert refused(Bodies(LIMIT), environ)[1].startswith("a chunked body must come within 5 seconds")
    else:
        assert Bodies(LIMIT).read(environ) == b"{}"


def test_no_more_bodies_are_read_at_once_than_there_are_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "READERS", 1)
    bodies = Bodies(LIMIT)

    class Busy(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(RefusedError) as caught:
                bodies.read(given(b"{}"))
            assert (caught.value.status, caught.value.reason) == (503, "readers")
            raise OSError

    assert refused(bodies, {**given(b""), "wsgi.input": Busy()}) == (400, "the body could not be read")
    # Whatever became of it, its seat is free again.
    assert bodies.read(given(b"{}")) == b"{}"


@pytest.mark.parametrize(
    ("more", "seats", "left"),
    [
        ({}, 4, b""),
        ({"HTTP_EXPECT": "100-continue"}, 4, b"{}"),
        ({"CONTENT_LENGTH": "99999999"}, 4, b"{}"),
        ({}, 1, b"{}"),
    ],
)
def test_what_is_not_wanted_is_read_unless_it_is_large_or_not_sent_or_seats_run_short(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str], seats: int, left: bytes
) -> None:
    monkeypatch.setattr(body_module, "READERS", seats)
    bodies = Bodies(LIMIT)
    monkeypatch.setattr(body_module, "READERS", 4)
    environ = {**given(b"{}"), **more}
    bodies.drop(environ)
    assert environ["wsgi.input"].read() == left
