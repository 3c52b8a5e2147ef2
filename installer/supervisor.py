"""Run a command with a sidecar beside it, as PID 1 or below: forward signals, reap, restart, exit with its status."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
)  # fmt: skip
ENDING = tuple(number for number in FORWARDED if number != signal.SIGWINCH)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
FIRST_LOOK, LONGEST_LOOK = 0.05, 0.5
STEADY = 60.0
"""Seconds after which a sidecar counts as healthy again, so that the pauses start over."""
MAX_RESTARTS = 10
STOP_SECONDS = 8.0

Report = Callable[[str], None]


class StoppedError(KeyboardInterrupt):
    """A signal asks to end before the command runs; the driver takes it for a Ctrl-C and cancels its statement."""

    def __init__(self, number: int) -> None:
        """Take the signal's number."""
        self.number = number
        super().__init__(number)


class Supervisor:
    """One command, at most one sidecar; everything that happens arrives as a signal through one pipe."""

    def __init__(self, report: Report) -> None:
        """Take over the process's signals until `close`."""
        self._report = report
        self._sidecar: subprocess.Popen[bytes] | None = None
        self._start_sidecar: Callable[[], subprocess.Popen[bytes]] | None = None
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._restarts = 0
        self._status: dict[int, int] = {}
        self._held: list[int] = []
        self._read, write = os.pipe()
        os.set_blocking(write, False)
        self._write = write
        self._old_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        # A hangup that nohup ignores stays ignored, by the command too.
        ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
        self._ending = tuple(number for number in ENDING if number not in ignored)
        # A handler must be there for the wake-up to be written; the work is done in the loop.
        self._old = self._note([number for number in (*FORWARDED, signal.SIGCHLD) if number not in ignored])

    @staticmethod
    def _note(numbers: Iterable[int]) -> dict[int, Any]:
        """Leave these signals to the loop, which reads them from the pipe; return the handlers they had."""
        return {number: signal.signal(number, lambda number, frame: None) for number in numbers}

    def close(self) -> None:
        """Give the signals back."""
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def start_sidecar(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        """Start the sidecar, and start it again in this way whenever it dies."""
        self._start_sidecar = start
        self._sidecar = start()
        self._started_at = time.monotonic()

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> str:
        """Wait until ready; return "" or why it will not be: `died N` or `late`. Raises StoppedError on a signal."""
        deadline, pause = time.monotonic() + seconds, FIRST_LOOK
        while True:
            if ready():
                return ""
            self._stop_if_asked(pause)
            # Each look that finds nothing is a line in the sidecar's log.
            pause = min(LONGEST_LOOK, pause * 1.5)
            self._reap()
            if self._sidecar is not None and self._sidecar.pid in self._status:
                died, self._sidecar, self._start_sidecar = self._sidecar, None, None
                died.returncode = self._status.pop(died.pid)
                return f"died {died.returncode}"
            if time.monotonic() > deadline:
                return "late"

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let the first signal that asks to end raise StoppedError wherever the block stands."""

        def stop(number: int, frame: object) -> None:
            # What unwinds now must not be interrupted in its turn.
            self._note(self._ending)
            raise StoppedError(number)

        for number in self._ending:
            signal.signal(number, stop)
        try:
            self._stop_if_asked(0)
            yield
        finally:
            self._note(self._ending)

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run the command to its end and return its exit status, 128 + N when signal N ended it or came before it."""
        try:
            self._stop_if_asked(0)
            child = subprocess.Popen(command, env=dict(environ))
        except StoppedError as stopped:
            return 128 + stopped.number
        except FileNotFoundError:
            self._report(f"{command[0]}: command not found")
            return 127
        except OSError as error:
            self._report(f"{command[0]}: cannot be run: {(error.strerror or str(error)).lower()}")
            return 126
        while True:
            # Before the wait: the look for signals above may have taken the word of the sidecar's death.
            self._reap()
            if child.pid in self._status:
                child.returncode = self._status.pop(child.pid)
                return child.returncode
            self._care_for_sidecar()
            for number in self._signals(self._pause()):
                if number in FORWARDED:
                    _send(child.pid, number)

    def stop_sidecar(self) -> None:
        """Ask the sidecar to drain and end; kill it when it does not."""
        sidecar, self._sidecar, self._start_sidecar = self._sidecar, None, None
        if sidecar is None or sidecar.returncode is not None:
            return
        _send(sidecar.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while sidecar.pid not in self._status:
            if time.monotonic() > deadline:
                _send(sidecar.pid, signal.SIGKILL)
                deadline += STOP_SECONDS
            # They are for the command, or say that there shall be none.
            self._held += self._arrived(0.05)
            self._reap()
        sidecar.returncode = self._status.pop(sidecar.pid)

    def _stop_if_asked(self, seconds: float) -> None:
        """Raise StoppedError when a signal that asks to end is there or comes within so long."""
        for number in self._signals(seconds):
            if number in ENDING:
                raise StoppedError(number)

    def _signals(self, seconds: float | None) -> list[int]:
        """Wait for signals at most so long, unless some were held back; return their numbers."""
        held, self._held = self._held, []
        return held + self._arrived(0 if held else seconds)

    def _arrived(self, seconds: float | None) -> list[int]:
        readable, _, _ = select.select([self._read], [], [], seconds)
        return list(os.read(self._read, 512)) if readable else []

    def _reap(self) -> None:
        """Take the status of every child that has ended; as PID 1 also of orphans nobody else waits for."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            self._status[pid] = code if code >= 0 else 128 - code

    def _pause(self) -> float | None:
        return None if self._restart_at is None else max(0.0, self._restart_at - time.monotonic())

    def _care_for_sidecar(self) -> None:
        """Note a sidecar that has died, and start the next one when its pause is over."""
        now = time.monotonic()
        if self._sidecar is not None and self._sidecar.pid in self._status:
            status = self._sidecar.returncode = self._status.pop(self._sidecar.pid)
            self._sidecar = None
            if now - self._started_at > STEADY:
                self._restarts = 0
            self._start_later(f"the sidecar ended with status {status}", now)
        if self._restart_at is not None and now >= self._restart_at and self._start_sidecar is not None:
            self._restart_at = None
            try:
                self.start_sidecar(self._start_sidecar)
            except OSError as error:
                # No process or memory to be had at the moment: as if it had died at once.
                self._start_later(f"the sidecar cannot be started: {(error.strerror or str(error)).lower()}", now)
        # Orphans that were reaped are of no further interest.
        kept = self._sidecar.pid if self._sidecar else None
        self._status = {pid: code for pid, code in self._status.items() if pid == kept}

    def _start_later(self, why: str, now: float) -> None:
        """Have the sidecar started again after a pause, each longer than the one before, unless it was too often."""
        if self._restarts >= MAX_RESTARTS:
            self._report(f"warning: {why} for the {MAX_RESTARTS + 1}th time: not started again")
            return
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._restarts)
        self._restarts += 1
        self._restart_at = now + pause
        self._report(f"warning: {why}: starting it again in {pause:g} s")


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
