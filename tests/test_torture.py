"""The long run, at its smallest: it measures, judges, ends by itself, and writes its table where there is a place."""

from __future__ import annotations

import argparse
import importlib.util
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fixtures.reliability import FILES

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "torture" / "run.py"
pytestmark = pytest.mark.servers("any")


def program() -> ModuleType:
    """Return run.py as a module; it says itself where its others are."""
    spec = importlib.util.spec_from_file_location("torture_run", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


torture = program()
clients, load = torture.clients, torture.load
OK = clients.Request(b"GET /good HTTP/1.1\r\n\r\n", frozenset({200}))


def long_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, "--no-document", *arguments], capture_output=True, text=True, timeout=200, check=False
    )


def test_load_and_herd_at_their_smallest() -> None:
    done = long_run("--only", "load", "--minutes", "0.05", "--memories", "2000")
    lines = done.stdout.splitlines()
    assert lines[0] == "| tried | found | kept |", done.stderr
    tried = [line.split(" | ")[0] for line in lines[2:]]
    assert [line.strip("| ").split(" ")[0] for line in tried] == ["64", "resident", "connections", "1,000"]
    # Three seconds say nothing of drift; the other promises hold at any size.
    assert [line.rpartition(" | ")[2] for line in lines[2:]] == ["yes |", "not tried in full |", "yes |", "yes |"], (
        done.stdout + done.stderr
    )


def test_a_part_that_is_not_there_is_named() -> None:
    done = long_run("--only", "earthquake")
    assert done.returncode == 2
    assert "earthquake" in done.stderr


def test_the_document_has_a_place_for_the_figures() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert text.count("<!-- figures: make torture -->") == text.count("<!-- end of figures -->") == 1


def test_what_the_document_names_is_marked_and_nothing_else() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = {
        path.name for pattern in re.findall(r"tests/(test_[\w*]+\.py)", text) for path in (ROOT / "tests").glob(pattern)
    }
    assert named == set(FILES)


@pytest.mark.parametrize("broken", [RuntimeError("a | b\nc"), AssertionError(), subprocess.TimeoutExpired("x", 5)])
def test_a_part_that_breaks_is_a_promise_not_kept(monkeypatch: pytest.MonkeyPatch, broken: Exception) -> None:
    def part(_: argparse.Namespace) -> list[Any]:
        raise broken

    monkeypatch.setitem(torture.PARTS, "broken", part)
    (result,) = torture.run("broken", argparse.Namespace())
    assert result.kept is False
    assert torture.table([result]).splitlines()[2].count(" | ") == 2


def test_a_part_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torture.PARTS, "endless", lambda _: threading.Event().wait())
    monkeypatch.setattr(torture, "LIMIT", 1)
    (result,) = torture.run("endless", argparse.Namespace())
    assert (result.kept, "no end" in result.found) == (False, True)


def test_the_figures_of_parts_that_were_not_run_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    document = tmp_path / "docs" / "reliability.md"
    document.write_text(f"before\n{torture.BEGIN}\nold\n{torture.END}\nafter\n")
    (tmp_path / "results.json").write_text("[]")
    monkeypatch.setattr(torture, "HERE", tmp_path)
    monkeypatch.setattr(torture, "ROOT", tmp_path)
    first = {
        "load": [torture.Result("load", "slow", kept=False)],
        "model": [torture.Result("model", "the same", kept=True)],
    }
    torture.document(torture.keep(first, "first run"))
    torture.document(torture.keep({"load": [torture.Result("load", "fast", kept=True)]}, "second run"))
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert [line for line in text.splitlines() if line.startswith("| ")][1:] == [
        "| model | the same | yes |", "| load | fast | yes |",
    ]  # fmt: skip
    assert re.search(r"`first run`, [0-9-]+: model\. `second run`, [0-9-]+: load\.", text)


@contextmanager
def answering(answer: bytes | None, *, cut: bool = False) -> Iterator[tuple[str, int]]:
    """Answer every request with the same bytes; None: with nothing, ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk(sock: socket.socket) -> None:
            with sock, suppress(OSError):
                while sock.recv(65536):
                    if answer is not None:
                        sock.sendall(answer)
                    if cut:
                        return

        def work() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=work, daemon=True).start()
        yield listener.getsockname()
        # Wakes accept(), which would keep the listener alive.
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "outcome", "right"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200", True),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "204", False),
        (None, "no answer", False),
    ],
)
def test_clients_count_what_comes_and_end_on_time(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, outcome: str, right: bool
) -> None:
    monkeypatch.setattr(clients, "PATIENCE", 0.5)
    with answering(answer) as address:
        seen = clients.press(address, [OK], 3, 0.2)
    assert set(seen.outcomes) == {outcome}
    assert bool(seen.latencies) is right
    assert bool(seen.wrong) is not right
    assert seen.seconds < 20


def test_connections_that_are_cut_are_counted_and_made_anew() -> None:
    with answering(b"", cut=True) as address:
        seen = clients.press(address, [OK], 2, 0.3)
    assert set(seen.outcomes) == {"cut"}
    assert seen.outcomes["cut"] > 2


def test_where_nobody_listens_every_client_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    seen = clients.press(address, [OK], 2, 0.2)
    assert set(seen.outcomes) == {"refused"}


def test_memory_that_falls_or_rises_after_the_first_minute_is_drift() -> None:
    held = [(float(at), 50.0 if at < 60 else 100.0 + 10 * (at > 300)) for at in range(600)]
    assert load.drift(held, 600) == pytest.approx(0.1)
    assert load.drift([(at, 200 - size) for at, size in held], 600) == pytest.approx(-0.1)
    assert load.drift(held[:90], 90) is None


def test_the_mix_holds_every_kind_of_request() -> None:
    mix = load.mixed(800)
    lines = [request.message.partition(b"\r\n")[0].decode() for request in mix]
    searches = sum("/v1/search" in line for line in lines)
    commits = sum(line.startswith("POST") and "/memories" in line for line in lines)
    assert (searches / 800, commits / 800) == (pytest.approx(0.7, abs=0.05), pytest.approx(0.25, abs=0.05))
    for other in ("GET /v1/health", "PATCH /v1/n", "PUT /v1/n", "DELETE /v1/m", "DELETE /v1/n"):
        assert any(line.startswith(other) for line in lines), other
    bodies = b"".join(request.message for request in mix)
    assert b'"id": "' in bodies
    assert bodies.count(b'"embedding"') > 100
