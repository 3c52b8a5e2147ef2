"""The README's commands and code blocks, run as a newcomer would run them."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import httpx
import psycopg
import pytest

from fixtures.cluster import free_port
from fixtures.sidecars import Sidecar, clean_env, wait_until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run_bash(script: str, **environment: str) -> str:
    """Run a block as one script that stops at the first failure; return what it printed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        # Where our program is not: the README says how it gets there.
        env={**clean_env(**environment), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_has_a_block_of_each_kind() -> None:
    assert [len(blocks(language)) for language in ("sh", "sql", "bash")] == [2, 1, 2]


def test_the_sql_calls_run_as_printed(conn: psycopg.Connection) -> None:
    statements = [statement for statement in blocks("sql")[0].split(";\n") if statement.strip()]
    assert len(statements) == 5
    results = [conn.execute(statement).fetchall() for statement in statements]  # type: ignore[arg-type]
    assert results[2][0][1] == "Ada prefers tabs over spaces"
    assert conn.execute("select count(*) from memory_plugin.memory_namespaces").fetchone() == (0,)


@pytest.mark.servers("any")
def test_the_curl_calls_run_as_printed(sidecar: Sidecar) -> None:
    calls, _ = blocks("bash")
    printed = run_bash(calls.replace("127.0.0.1:9100", sidecar.base_url.removeprefix("http://")))
    assert "Ada prefers tabs over spaces" in printed


@pytest.mark.servers("any")
def test_the_installer_commands_run_as_printed(empty_database: str) -> None:
    _, commands = blocks("bash")
    run_bash(commands, DATABASE_URL=empty_database)


def test_the_make_commands_are_targets_of_the_makefile() -> None:
    for command in blocks("sh"):
        done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_make_serve_serves_and_what_it_prints_works(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    log_file = tmp_path / "log"
    # Not below tmp_path, which is closed to the account that an embedded server of root runs as.
    with tempfile.TemporaryDirectory(prefix="mp-readme-", dir="/tmp") as folder, log_file.open("wb") as log:
        Path(folder).chmod(0o755)
        process = subprocess.Popen(
            ["make", "serve", f"DATA_DIR={folder}/Ada's data"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env=clean_env(MEMORY_PLUGIN_LISTEN_ADDR=address),
        )
        try:
            wait_until(lambda: _healthy(process, address, log_file), "make serve", timeout=120)
            printed = dict(re.findall(r"^(base URL|psql|curl) +(.+)$", log_file.read_text(), re.MULTILINE))
            assert printed["base URL"] == f"http://{address}"
            assert "capabilities" in run_bash(printed["curl"])
            assert run_bash(f"{printed['psql']} -Atc 'select version from memory_plugin.health()'") == "1.0.0\n"
        finally:
            process.terminate()
            process.wait(30)


def _healthy(process: subprocess.Popen[bytes], address: str, log_file: Path) -> bool:
    assert process.poll() is None, log_file.read_text()
    try:
        return httpx.get(f"http://{address}/v1/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
