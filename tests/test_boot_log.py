"""Logs that take nothing, beneath `boot` and `serve`: what is lost is lines."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from booting import children, here, sidecar_of
from fixtures.sidecars import PROGRAM, clean_env, wait_until

ANY = pytest.mark.servers("any")
SKIP = {"MEMORY_PLUGIN_SKIP_MIGRATE": "1"}


@pytest.fixture(params=["full disk", "nobody at the other end", "nobody reading"])
def log(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return a file to log to that takes nothing."""
    if request.param == "full disk":
        reading, writing = None, os.open("/dev/full", os.O_WRONLY)
    else:
        reading, writing = os.pipe()
    if request.param == "nobody at the other end":
        assert reading is not None
        os.close(reading)
        reading = None
    if request.param == "nobody reading":
        os.set_blocking(writing, False)
        # As much of it as there is room for.
        os.write(writing, bytes(1 << 22))
        os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    if reading is not None:
        os.close(reading)


def healthy(base: str) -> bool:
    """Tell whether the sidecar there answers 200."""
    try:
        return httpx.get(f"{base}/v1/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@ANY
def test_a_boot_whose_log_takes_nothing_opens_its_gate_restarts_the_sidecar_and_hears_signals(
    database: str, log: int
) -> None:
    address = here()
    environ = clean_env(DATABASE_URL=database, **address, **SKIP)
    process = subprocess.Popen([PROGRAM, "boot", "--", "sleep", "120"], stderr=log, env=environ)
    try:
        wait_until(
            lambda: any(line.startswith("sleep") for line in children(process.pid).values()), "the command", timeout=60
        )
        first = sidecar_of(process.pid)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: sidecar_of(process.pid) not in (None, first), "the second sidecar")
        wait_until(lambda: healthy(f"http://{address['MEMORY_PLUGIN_LISTEN_ADDR']}"), "its health")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    finally:
        process.kill()
        process.wait()


def test_a_boot_whose_log_takes_nothing_ends_with_the_status_of_its_command_or_its_own(log: int) -> None:
    command = ("sh", "-c", "echo ran; exit 7")
    for environ, ended in (
        ({"MEMORY_PLUGIN_DISABLE": "1"}, (7, "ran\n")),
        ({"DATABASE_URL": "http://h/d"}, (7, "ran\n")),
        ({"DATABASE_URL": "http://h/d", "MEMORY_PLUGIN_REQUIRED": "1"}, (21, "")),
        ({"DATABASE_URL": "http://h/d", "MEMORY_PLUGIN_REQUIRED": "1", "MEMORY_PLUGIN_LOG": "json"}, (21, "")),
    ):
        done = subprocess.run(
            [PROGRAM, "boot", "--", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean_env(**environ),
            timeout=30,
        )
        assert (done.returncode, done.stdout) == ended


def test_a_boot_without_any_standard_error_runs_its_command() -> None:
    for form in ("text", "json"):
        done = subprocess.run(
            ["sh", "-c", '"$0" boot -- echo ran 2>&-', PROGRAM],
            capture_output=True,
            text=True,
            env=clean_env(MEMORY_PLUGIN_DISABLE="1", MEMORY_PLUGIN_LOG=form),
            timeout=30,
        )
        assert (done.returncode, done.stdout) == (0, "ran\n")


@ANY
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_serve_serves_whatever_its_output_takes(database: str, log: int, stream: str, tmp_path: Path) -> None:
    address = here()
    with (tmp_path / "other").open("wb") as other:
        outputs = {"stdout": other, "stderr": other, stream: log}
        environ = clean_env(DATABASE_URL=database, **address, **SKIP)
        process = subprocess.Popen([PROGRAM, "serve"], env=environ, **outputs)  # type: ignore[call-overload]
    try:
        wait_until(lambda: healthy(f"http://{address['MEMORY_PLUGIN_LISTEN_ADDR']}"), "its health")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
