"""On a standby what only reads works, and what would write says that it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fixtures.cluster import cluster
from fixtures.installing import install, rows
from fixtures.pgbouncer import program, running_pooler
from fixtures.server import embedded_bin_dir
from fixtures.sidecars import Sidecar
from memory_plugin.installer import cli


@pytest.fixture(scope="module", params=["direct", "pooled"])
def standby(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a store on a server that was stopped and started again as a standby."""
    if request.param == "pooled" and program() is None:
        pytest.skip("no PgBouncer on this machine")
    with cluster("standby", embedded_bin_dir(18)) as server, ExitStack() as stack:
        url = server.url()
        install(url)
        rows(url, "select memory_plugin.commit_memory('team:a', 'tea')")
        assert server.own is not None
        server.stop()
        (server.own.data_dir / "standby.signal").touch()
        server.start()
        yield url if request.param == "direct" else stack.enter_context(running_pooler(server)).url("postgres")


@pytest.mark.parametrize(
    "command",
    [
        "install",
        "plan",
        "verify",
        "uninstall --yes",
        "adopt-public",
        "backfill",
        "import {file}",
        "reembed --finish",
        "embedding configure --url http://127.0.0.1:9 --model m --no-test",
    ],
)
def test_a_command_that_would_write_asks_for_the_primary(
    standby: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = tmp_path / "memories.ndjson"
    file.write_text("")
    words = [word.format(file=file) for word in command.split()]
    assert cli.run([*words, "--database-url", standby]) == 21
    printed = capsys.readouterr().err
    assert "the server is a standby" in printed
    assert "the primary's address" in printed


@pytest.mark.parametrize(
    ("command", "code"), [("status", 0), ("embedding show", 0), ("export {file}", 0), ("uninstall", 2)]
)
def test_a_command_that_reads_does_so(standby: str, tmp_path: Path, command: str, code: int) -> None:
    words = [word.format(file=tmp_path / "memories.ndjson") for word in command.split()]
    assert cli.run([*words, "--database-url", standby]) == code


def test_a_sidecar_that_installs_nothing_answers_searches_and_refuses_writes(
    standby: str, start_sidecar: Callable[..., Sidecar]
) -> None:
    client = start_sidecar(standby, MEMORY_PLUGIN_SKIP_MIGRATE="1").client
    found = client.post("/v1/search", json={"namespaces": ["team:a"], "query": "tea"}).json()["memories"]
    assert [memory["content"] for memory in found] == ["tea"]
    body = {"content": "milk", "kind": "fact", "source": "agent"}
    refused = client.post("/v1/namespaces/team:a/memories", json=body)
    assert refused.status_code == 503
    assert "takes no writes" in refused.json()["message"]
