"""Through PgBouncer in transaction mode: the whole contract over HTTP, and the installation itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

import test_contract_memories
import test_contract_namespaces
import test_contract_search
from doors import Contract, HttpDoor
from fixtures.pgbouncer import Pooler, set_in_sessions
from fixtures.sidecars import PROGRAM, Sidecar, clean_env, running_sidecar
from memory_plugin.thin_api.maintenance import Maintenance

pytestmark = pytest.mark.servers("any")
MODULES = (test_contract_memories, test_contract_namespaces, test_contract_search)
# As deployments write it; libpq does not know the parameter, and PgBouncer refuses what it becomes.
SEARCH_PATH = "?search_path=memory_plugin,public"


def _take(*modules: ModuleType) -> None:
    """Make every test of these modules one of this module's, where `contract` goes through the pooler."""
    for module in modules:
        for name, value in vars(module).items():
            if name.startswith("test_"):
                assert name not in globals(), f"two tests are called {name}"
                globals()[name] = value


_take(*MODULES)


def dbname(url: str) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])


@pytest.fixture(scope="module")
def pooled_sidecar(pooler: Pooler, module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """Return a sidecar whose every connection is PgBouncer's."""
    log_file = tmp_path_factory.mktemp("pooled") / "sidecar.log"
    with running_sidecar(pooler.url(dbname(module_database), SEARCH_PATH), log_file) as running:
        yield running


@pytest.fixture
def contract(pooled_sidecar: Sidecar) -> Contract:
    """Return the contract's operations over HTTP, through the pooler."""
    return Contract(HttpDoor(pooled_sidecar.client))


def test_the_pooler_is_one_and_refuses_what_it_does_not_track(pooler: Pooler, module_database: str) -> None:
    name = dbname(module_database)
    with psycopg.connect(pooler.url("pgbouncer"), autocommit=True) as admin:
        config = {str(row[0]): row[1] for row in admin.execute("show config").fetchall()}
    assert config["pool_mode"] == "transaction"
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(pooler.url(name, "?options=-csearch_path%3Dmemory_plugin"))


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], env=clean_env(**environ), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("variable", ["DATABASE_URL", "MEMORY_PLUGIN_DATABASE_URL"])
def test_install_runs_through_it_and_again_and_verify_finds_no_difference(
    pooler: Pooler, empty_database: str, variable: str
) -> None:
    url = {variable: pooler.url(dbname(empty_database), SEARCH_PATH)}
    for _ in range(2):
        done = run("install", **url)
        assert done.returncode == 0, done.stderr
    assert run("verify", **url).returncode == 0
    assert run("status", "--json", **url).returncode == 0


@pytest.mark.parametrize("end", ["well", "failed"])
def test_a_migration_outside_a_transaction_leaves_no_setting_behind_however_it_ends(
    pooler: Pooler, empty_database: str, tmp_path: Path, end: str
) -> None:
    statement = "analyze memory_plugin.memory_records;" if end == "well" else "select 1 / 0;"
    (tmp_path / "100_own.up.sql").write_text(f"-- memory-plugin: no-transaction\n{statement}\n")
    name = dbname(empty_database)
    done = run("install", DATABASE_URL=pooler.url(name), MEMORY_PLUGIN_MIGRATIONS_DIR=str(tmp_path))
    assert done.returncode == (0 if end == "well" else 19), done.stderr
    assert set_in_sessions(pooler, name) == []


def test_many_installations_at_once_through_it_all_end_well(pooler: Pooler, empty_database: str) -> None:
    environ = clean_env(DATABASE_URL=pooler.url(dbname(empty_database)))
    processes = [
        subprocess.Popen([PROGRAM, "install"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    outcomes = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [status for _, status in outcomes] == [0] * 4, outcomes


def test_upkeep_runs_through_it_and_strands_no_lock(
    pooler: Pooler, database: str, conn: psycopg.Connection[tuple[object, ...]]
) -> None:
    url = pooler.url(dbname(database))
    for _ in range(8):
        clock = Maintenance(url, 0)
        assert clock.round() == ""
        assert clock.rounds["done"] == 1
    query = (
        "select from pg_locks where locktype = 'advisory' "
        "and database = (select oid from pg_database where datname = current_database())"
    )
    assert conn.execute(query).fetchall() == []
