"""Out of transaction ids a server reads on and writes nothing: what the sidecar and the commands say then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.cluster import FAST, cluster
from fixtures.installing import install, rows
from fixtures.server import Server, embedded_bin_dir, run_as
from fixtures.sidecars import wait_until
from http_sidecar import serving
from memory_plugin.installer import cli

# Half of all ids, less those that the server keeps for whoever mends it.
REACH = 2**31 - 1 - 3_000_000
A_SEGMENT = 32 * 8192 * 4
COMMIT = {"content": "a pear", "kind": "fact", "source": "agent"}


@pytest.fixture
def worn_out() -> Iterator[Server]:
    """Return a server with a store and hardly a transaction id left, until the replication slot `held` is dropped."""
    settings = {**FAST, "wal_level": "logical", "autovacuum_naptime": "1s"}
    with cluster("worn-out", embedded_bin_dir(18), settings) as server:
        install(server.url())
        rows(server.url(), "select memory_plugin.commit_memory('team:a', 'an apple')")
        # It keeps the server from freezing by itself what is old.
        rows(server.url(), "select pg_create_logical_replication_slot('held', 'pgoutput')")
        ((oldest,),) = rows(server.url(), "select min(datfrozenxid::text::bigint) from pg_database")
        _set_next_id(server, oldest + REACH)
        yield server


def _set_next_id(server: Server, number: int) -> None:
    """Make a transaction id the server's next one, as if all those before it had been used."""
    assert server.own is not None
    server.stop()
    own = server.own
    run_as(own.account, [own.bin_dir / "pg_resetwal", "-x", str(number), "-D", own.data_dir])
    segment = own.data_dir / "pg_xact" / f"{number // A_SEGMENT:04X}"
    run_as(own.account, ["truncate", f"--size={A_SEGMENT // 4}", segment])
    server.start()


def test_out_of_transaction_ids_searches_are_answered_and_writes_are_503_until_it_is_mended(
    worn_out: Server, tmp_path: Path
) -> None:
    with serving(worn_out.url(), tmp_path / "sidecar.log", MEMORY_PLUGIN_SWEEP_SECONDS="1") as sidecar:
        client = sidecar.client

        def commit() -> httpx.Response:
            return client.post("/v1/namespaces/team:a/memories", json=COMMIT)

        # The last few ids.
        wait_until(lambda: commit().status_code != 201, "the last transaction id")
        refused = [
            commit(),
            client.put("/v1/namespaces/team:b", json={"kind": "team"}),
            client.patch("/v1/namespaces/team:a", json={"metadata": {}}),
            client.delete("/v1/namespaces/team:a"),
        ]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "unavailable")}
        assert all("takes no writes" in answer.json()["message"] for answer in refused)
        assert "reason=54000" in sidecar.log()
        found = client.post("/v1/search", json={"namespaces": ["team:a"], "query": "apple"}).json()["memories"]
        assert [memory["content"] for memory in found] == ["an apple"]

        worn_out.execute("select pg_drop_replication_slot('held')")
        worn_out.execute("vacuum freeze")
        # The server itself sees to its other databases.
        wait_until(lambda: commit().status_code == 201, "writes", timeout=60)


def test_out_of_transaction_ids_a_command_says_whom_to_turn_to(
    worn_out: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "memories.ndjson"
    assert cli.run(["export", str(file), "--database-url", worn_out.url()]) == 0
    for _ in range(3):
        file.write_text(file.read_text().replace('"an apple"', '"another apple"'))
        code = cli.run(["import", str(file), "--on-conflict", "update", "--database-url", worn_out.url()])
    assert code == 1
    printed = capsys.readouterr().err
    assert "avoid wraparound data loss" in printed
    assert "--verbose" not in printed
    assert "mend that at the server" in printed
