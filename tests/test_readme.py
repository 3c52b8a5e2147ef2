"""The README's commands and code blocks, run as a newcomer would run them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import psycopg
import pytest
from fixtures.cluster import free_port
from fixtures.sidecars import PROGRAM, Sidecar, clean_env

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def run_bash(script: str, **environment: str) -> str:
    """Run a block as one script that stops at the first failure; return what it printed."""
    path = f"{PROGRAM.parent}:/usr/local/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**clean_env(**environment), "PATH": path}, capture_output=True, text=True, timeout=60,
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
    import httpx
    from fixtures.embedded import embedded_folder
    from fixtures.sidecars import wait_until

    address = f"127.0.0.1:{free_port()}"
    with embedded_folder() as folder, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "serve", f"DATA_DIR={folder / 'data'}"], cwd=ROOT, stdout=log, stderr=log,
            env=clean_env(MEMORY_PLUGIN_LISTEN_ADDR=address),
        )
        try:
            def healthy() -> bool:
                assert process.poll() is None, (tmp_path / "log").read_text()
                try:
                    return httpx.get(f"http://{address}/v1/health", trust_env=False).status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(healthy, "make serve", timeout=120)
            printed = (tmp_path / "log").read_text()
            lines = [line.strip() for line in printed.splitlines()]
            curl = next(line[line.index("curl ") :] for line in lines if "curl " in line)
            psql = next(line[line.index("psql") :] if line.startswith("psql") else line for line in lines if "psql" in line)
            assert "capabilities" in run_bash(curl) or "memories" in run_bash(curl)
            assert "1.0.0" in run_bash(psql[psql.index("/") if "/" in psql.split("psql")[0] else psql.index("psql") :]
                                       + " -Atc 'select version from memory_plugin.health()'")
        finally:
            process.terminate()
            assert process.wait(30) in (0, -15)
