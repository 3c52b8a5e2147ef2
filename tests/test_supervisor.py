"""What runs a tenant's command and its sidecar, without either of them: signals, restarts and their bound."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

START = """
import os, signal, subprocess, sys
from memory_plugin.installer import supervisor as module
from memory_plugin.installer.supervisor import StoppedError, Supervisor

starts, lines = [], []
command = "import sys; sys.stdin.read(); sys.exit(5)"
until, hold = os.pipe()

def report(line):
    lines.append(line)
    print(line)
    if done():
        os.close(hold)

def done():
    return "not started again" in lines[-1]

def start():
    starts.append(1)
    return subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.exit(3)"])

def run(supervisor):
    # The command ends when the pipe is closed.
    os.dup2(until, 0)
    os.set_inheritable(hold, False)
    return supervisor.run([sys.executable, "-S", "-c", command], os.environ)
"""


def script(text: str) -> list[str]:
    """Run a program that has a supervisor of its own, since that takes over signals and children; return its lines."""
    done = subprocess.run(
        [sys.executable, "-c", START + textwrap.dedent(text)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_sidecar_that_dies_at_once_is_started_again_after_growing_pauses_and_ten_times_at_most() -> None:
    *lines, last, end = script("""
        module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.03
        supervisor = Supervisor(report)
        supervisor.start_sidecar(start)
        print(run(supervisor), len(starts))
    """)
    pauses = [0.01, 0.02] + [0.03] * 8
    assert lines == [f"warning: the sidecar ended with status 3: starting it again in {pause:g} s" for pause in pauses]
    assert last == "warning: the sidecar ended with status 3 for the 11th time: not started again"
    assert end == "5 11"


def test_a_sidecar_that_cannot_be_started_again_is_tried_like_one_that_died() -> None:
    lines = script("""
        module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.03
        started = start
        def start():
            # For a while there is no such program, as where the machine has no process left for it.
            if 1 <= len(starts) <= 3:
                starts.append(0)
                return subprocess.Popen(["/nonexistent/python"])
            return started()
        supervisor = Supervisor(report)
        supervisor.start_sidecar(start)
        print(run(supervisor), len(starts))
    """)
    died, failed = "the sidecar ended with status 3", "the sidecar cannot be started: no such file or directory"
    pauses = [0.01, 0.02] + [0.03] * 8
    whys = [died] + [failed] * 3 + [died] * 6
    assert lines == [
        *(f"warning: {why}: starting it again in {pause:g} s" for why, pause in zip(whys, pauses, strict=True)),
        f"warning: {died} for the 11th time: not started again",
        "5 11",
    ]


def test_a_sidecar_that_can_never_be_started_again_leaves_the_command_running() -> None:
    *lines, last, end = script("""
        module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.03
        started = start
        def start():
            if starts:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            return started()
        supervisor = Supervisor(report)
        supervisor.start_sidecar(start)
        status = run(supervisor)
        supervisor.stop_sidecar()
        print(status)
    """)
    assert len(lines) == 10
    reason = "the sidecar cannot be started: resource temporarily unavailable"
    assert last == f"warning: {reason} for the 11th time: not started again"
    assert end == "5"


def test_a_sidecar_that_was_steady_counts_its_restarts_anew() -> None:
    *lines, end = script("""
        module.FIRST_PAUSE, module.STEADY = 0.01, 0.0
        done = lambda: len(lines) == 15
        supervisor = Supervisor(report)
        supervisor.start_sidecar(start)
        status = run(supervisor)
        supervisor.stop_sidecar()
        print(status)
    """)
    assert set(lines) == {"warning: the sidecar ended with status 3: starting it again in 0.01 s"}
    assert len(lines) >= 15
    assert end == "5"


def test_a_sidecar_that_died_in_the_last_look_at_it_is_started_again() -> None:
    first, *lines, end = script("""
        module.FIRST_PAUSE, module.LONGEST_PAUSE = 0.01, 0.03
        supervisor = Supervisor(report)
        supervisor.start_sidecar(start)
        # Its death is noted, its status not taken.
        print(os.waitid(os.P_PID, supervisor._sidecar.pid, os.WEXITED | os.WNOWAIT).si_status)
        print(run(supervisor), len(starts))
    """)
    assert (first, end) == ("3", "5 11")
    assert len(lines) == 11


def test_a_sidecar_that_died_in_the_wait_for_it_is_not_waited_for_again() -> None:
    assert script("""
        supervisor = Supervisor(print)
        supervisor.start_sidecar(start)
        print(supervisor.wait_until(lambda: False, 60))
        supervisor.stop_sidecar()
        print(supervisor.wait_until(lambda: True, 60), len(starts))
    """) == ["died 3", " 1"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_that_came_while_the_sidecar_was_stopped_keeps_the_command_from_running(number: str) -> None:
    lines = script(f"""
        supervisor = Supervisor(print)
        supervisor.start_sidecar(lambda: subprocess.Popen(["sleep", "60"]))
        os.kill(os.getpid(), signal.{number})
        supervisor.stop_sidecar()
        print(supervisor.run(["echo", "the command"], os.environ) - 128 == signal.{number})
    """)
    assert lines == ["True"]


def test_a_signal_interrupts_what_may_be_interrupted_once_and_nothing_else() -> None:
    assert script("""
        supervisor = Supervisor(print)
        def ask():
            os.kill(os.getpid(), signal.SIGTERM)
        try:
            with supervisor.interruptible():
                try:
                    ask()
                    print("not here")
                finally:
                    ask()
                    print("unwound")
        except StoppedError as stopped:
            print("stopped", stopped.number)
        ask()
        try:
            with supervisor.interruptible():
                print("not here")
        except StoppedError as stopped:
            print("stopped before", stopped.number)
        os.kill(os.getpid(), signal.SIGWINCH)
        with supervisor.interruptible():
            print("a window's new size is no reason")
    """) == ["unwound", "stopped 15", "stopped before 15", "a window's new size is no reason"]
