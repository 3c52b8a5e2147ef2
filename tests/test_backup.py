"""The commands of docs/operations.md: a dump of the schema restores into a fresh database and serves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.cluster import cluster
from fixtures.installing import connected, install, rows, settings_for
from fixtures.server import Server, embedded_bin_dir
from fixtures.sidecars import Sidecar
from memory_plugin.installer import api, plpython

GUIDE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
DUMP = (
    "pg_dump --format=custom --schema=memory_plugin --extension=vector --extension=plpython3u "
    '--file=memory.dump "$SOURCE"'
)
RESTORE = 'pg_restore --exit-on-error --dbname="$TARGET" memory.dump'
MAKE_ROOM = (
    "psql --command='create schema memory_plugin authorization app' "
    "--command='create extension vector schema memory_plugin' \\\n    \"$TARGET_AS_SUPERUSER\""
)
AS_ANY_ROLE = (
    "pg_restore --list memory.dump | grep --invert-match -e ' SCHEMA - ' -e ' EXTENSION ' > memory.list",
    'pg_restore --no-owner --no-privileges --use-list=memory.list --dbname="$TARGET" memory.dump',
)
PREPARE = (
    "create schema extensions; grant usage on schema extensions to memory_plugin_owner, memory_plugin_api, "
    "memory_plugin_reader"
)


def shell(server: Server, command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as an operator would, with the server's own programs."""
    path = f"{server.tool('pg_dump').parent}:{os.environ['PATH']}"
    env = {**os.environ, **environ, "PATH": path}
    return subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def beside_plpython(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what pg_restore complained of apart from PL/Python and the functions written in it."""
    told = [line for line in done.stderr.splitlines() if line.startswith("pg_restore: error:")]
    return [line for line in told if not any(name in line for name in ("plpython3u", *plpython.names()))]


def fill(url: str, vector: str) -> list[float]:
    """Put an embedded memory into a fresh store whose pgvector lives in a schema; return the embedding."""
    rows(url, f'create schema if not exists "{vector}"')
    rows(url, f'create extension vector schema "{vector}"')
    install(url)
    embedding = [1.0] + [0.0] * 1535
    with connected(url) as connection:
        connection.execute("select memory_plugin.upsert_namespace('team:a', 'team', metadata => '{\"a\": 1}')")
        connection.execute(
            f"select memory_plugin.commit_memory('team:a', 'an apple', embedding => %s::\"{vector}\".vector)".encode(),
            [str(embedding)],
        )
    return embedding


@pytest.mark.parametrize("vector", ["memory_plugin", "public", "extensions"])
def test_a_dump_restores_into_a_fresh_database_and_serves(
    server: Server,
    new_empty_database: Callable[[], str],
    start_sidecar: Callable[..., Sidecar],
    tmp_path: Path,
    vector: str,
) -> None:
    assert DUMP in GUIDE
    assert RESTORE in GUIDE
    assert PREPARE in " ".join(GUIDE.split())
    source, target = new_empty_database(), new_empty_database()
    embedding = fill(source, vector)
    if vector == "extensions":
        rows(target, PREPARE)
    for command in (DUMP, RESTORE):
        done = shell(server, command, tmp_path, SOURCE=source, TARGET=target)
        assert (done.returncode, done.stderr) == (0, "")
    # Nothing is missing before the installer has looked at it.
    client = start_sidecar(target).client
    for question in ({"query": "apple"}, {"embedding": embedding}, {}):
        found = client.post("/v1/search", json={"namespaces": ["team:a"], **question}).json()["memories"]
        assert [memory["content"] for memory in found] == ["an apple"]
    body = {"content": "a pear", "kind": "fact", "source": "agent"}
    assert client.post("/v1/namespaces/team:a/memories", json=body).status_code == 201
    assert not install(target).applied
    query = "select name, metadata from memory_plugin.memory_namespaces"
    assert rows(target, query) == rows(source, query)
    ledger = "select name, sha256, applied_at from memory_plugin.schema_migrations order by 1"
    assert rows(target, ledger) == rows(source, ledger)


@pytest.mark.servers("any")
def test_a_role_under_row_level_security_dumps_everything_or_is_refused_never_a_part(
    server: Server, database: str, new_role: Callable[..., str], tmp_path: Path
) -> None:
    owner, reader = new_role(password="x1"), new_role(password="x1")
    rows(database, f'grant memory_plugin_owner to "{owner}"')
    rows(database, f'grant memory_plugin_reader to "{reader}"')
    rows(database, "select memory_plugin.commit_memory('team:a', 'an apple')")
    name = rows(database, "select current_database()")[0][0]
    command = 'pg_dump --data-only --table="memory_plugin.memory_records" {} "$SOURCE"'
    for role in (owner, reader):
        refused = shell(server, command.format(""), tmp_path, SOURCE=server.url(name, user=role, password="x1"))
        assert refused.returncode != 0
        assert "row-level security" in refused.stderr
    source = server.url(name, user=owner, password="x1")
    done = shell(server, command.format("--enable-row-security"), tmp_path, SOURCE=source)
    assert done.returncode == 0, done.stderr
    assert "an apple" in done.stdout


@pytest.mark.parametrize("member", [True, False], ids=["a member", "a stranger"])
def test_a_role_that_is_no_superuser_restores_into_a_schema_made_for_it(
    server: Server, new_empty_database: Callable[[], str], new_role: Callable[..., str], tmp_path: Path, member: bool
) -> None:
    assert MAKE_ROOM in GUIDE
    assert all(line in GUIDE for line in AS_ANY_ROLE)
    source, room = new_empty_database(), new_empty_database()
    embedding = fill(source, "memory_plugin")
    role = new_role(password="x1")
    name = rows(room, "select current_database()")[0][0]
    rows(room, f'grant create on database "{name}" to "{role}"')
    if member:
        rows(room, f'grant memory_plugin_owner to "{role}"')
    target = server.url(name, user=role, password="x1")
    for command in (DUMP, MAKE_ROOM.replace("app", role), *AS_ANY_ROLE):
        done = shell(server, command, tmp_path, SOURCE=source, TARGET=target, TARGET_AS_SUPERUSER=room)
        assert beside_plpython(done) == []
        assert done.returncode == 0 or server.has_plpython, done.stderr
    install(target)
    assert api.verify_store(settings_for(target)).differences == ()
    with connected(target) as connection:
        for question in ("query => 'apple'", f"embedding => '{embedding}'"):
            query = f"select content from memory_plugin.search(array['team:a'], {question})"
            assert connection.execute(query.encode()).fetchall() == [("an apple",)]


@pytest.mark.servers("full")
def test_a_dump_goes_to_a_newer_server_without_plpython(
    server: Server, new_empty_database: Callable[[], str], tmp_path: Path
) -> None:
    source = new_empty_database()
    fill(source, "memory_plugin")
    rows(source, "select memory_plugin.configure(redact_on_commit => true)")
    with cluster("newer", embedded_bin_dir(18)) as newer:
        for role in ("owner", "api", "reader"):
            newer.execute(f"create role memory_plugin_{role}")
        target = newer.url()
        assert shell(newer, DUMP, tmp_path, SOURCE=source).returncode == 0
        done = shell(newer, RESTORE.replace("--exit-on-error ", ""), tmp_path, TARGET=target)
        assert done.returncode == 1
        assert beside_plpython(done) == []
        (difference,) = api.verify_store(settings_for(target)).differences
        assert "redact_on_commit is on" in difference
        rows(target, "select memory_plugin.configure(redact_on_commit => false)")
        assert not install(target).applied
        assert api.verify_store(settings_for(target)).differences == ()
        found = rows(target, "select content from memory_plugin.search(array['team:a'], query => 'apple')")
        assert found == [("an apple",)]
