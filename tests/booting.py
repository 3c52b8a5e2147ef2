"""`memory-plugin boot` as a process of its own: what the tests of it start and look at."""

from __future__ import annotations

import subprocess
import sys

from fixtures.cluster import free_port
from fixtures.sidecars import PROGRAM, clean_env

SHOW = ("sh", "-c", 'echo "url=[$MEMORY_PLUGIN_URL]"; exit 7')
ASK = (
    sys.executable, "-c",
    "import os, urllib.request as r; print(r.urlopen(os.environ['MEMORY_PLUGIN_URL'] + '/v1/health').status)",
)  # fmt: skip


def boot(*command: str, options: tuple[str, ...] = (), **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a boot to its end."""
    return subprocess.run(
        [PROGRAM, "boot", *options, "--", *command],
        env=clean_env(**environ),
        capture_output=True,
        text=True,
        timeout=90,
    )


def here() -> dict[str, str]:
    """Return an address of this test's own."""
    return {"MEMORY_PLUGIN_LISTEN_ADDR": f"127.0.0.1:{free_port()}"}


def children(pid: int) -> dict[int, str]:
    """Return the children of a process, pid -> command line."""
    out = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True).stdout
    return {int(line.split(None, 1)[0]): line.split(None, 1)[1] for line in out.splitlines()}


def sidecar_of(pid: int) -> int | None:
    """Return the pid of the sidecar below a boot."""
    return next((child for child, line in children(pid).items() if "thin_api" in line), None)
