"""GET /metrics: what a Prometheus server makes of it, and what counting costs a request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fixtures.sidecars import Sidecar, wait_until
from http_sidecar import ask, serving
from memory_plugin import __version__
from memory_plugin.thin_api.breaker import Breaker
from memory_plugin.thin_api.embedding import Embedding
from memory_plugin.thin_api.maintenance import Maintenance
from memory_plugin.thin_api.metrics import Metrics
from memory_plugin.thin_api.pool import Pool
from memory_plugin.thin_api.routes import HEALTH

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def sidecar(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    with serving(module_database, tmp_path_factory.mktemp("sidecar") / "log") as running:
        yield running


def scrape(sidecar: Sidecar) -> Samples:
    answer = ask(sidecar, "GET", "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"memory_plugin_{name}", frozenset(labels.items())), 0.0)


def test_requests_are_counted_by_route_and_status_and_timed_by_route(sidecar: Sidecar, namespace: str) -> None:
    before = scrape(sidecar)
    body = {"content": "a fact", "kind": "fact", "source": "agent"}
    for _ in range(3):
        assert ask(sidecar, "POST", f"/v1/namespaces/{namespace}/memories", body).status == 201
    assert ask(sidecar, "POST", f"/v1/namespaces/{namespace}/memories", {}).status == 400
    assert ask(sidecar, "DELETE", f"/v1/namespaces/{namespace}").status == 204
    assert ask(sidecar, "GET", "/nowhere").status == 404
    after = scrape(sidecar)

    def more(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    commit = "POST /v1/namespaces/{name}/memories"
    assert more("requests_total", route=commit, status="201") == 3
    assert more("requests_total", route=commit, status="400") == 1
    assert more("requests_total", route="DELETE /v1/namespaces/{name}", status="204") == 1
    assert more("requests_total", route="unmatched", status="404") == 1
    assert more("requests_total", route="GET /metrics", status="200") == 1
    assert more("request_duration_seconds_count", route=commit) == 4
    assert more("request_duration_seconds_bucket", route=commit, le="+Inf") == 4
    assert 0 < more("request_duration_seconds_sum", route=commit) < 40


def test_buckets_never_fall(sidecar: Sidecar) -> None:
    found = {dict(labels)["le"]: number for (name, labels), number in scrape(sidecar).items()
             if name.endswith("_bucket") and ("route", "GET /v1/health") in labels}  # fmt: skip
    numbers = [found[bound] for bound in sorted(found, key=float)]
    assert numbers == sorted(numbers)
    assert numbers[-1] >= 1


def test_no_label_holds_a_namespace_or_an_id(sidecar: Sidecar, namespace: str) -> None:
    body = {"content": "a fact", "kind": "fact", "source": "agent"}
    memory_id = ask(sidecar, "POST", f"/v1/namespaces/{namespace}/memories", body).json["id"]
    ask(sidecar, "DELETE", f"/v1/memories/{memory_id}", {"requested_by_namespace": namespace})
    ask(sidecar, "GET", f"/v1/{namespace}")
    text = ask(sidecar, "GET", "/metrics").body.decode()
    assert namespace not in text
    assert memory_id not in text


def test_the_pool_the_build_and_the_process_are_shown(sidecar: Sidecar) -> None:
    samples = scrape(sidecar)
    assert value(samples, "pool_size") == 8
    assert value(samples, "pool_in_use") + value(samples, "pool_idle") >= 1
    assert value(samples, "pool_waiting") == 0
    assert value(samples, "breaker_open") == 0
    assert [
        labels for name, labels in samples if name == "memory_plugin_build_info" and ("version", __version__) in labels
    ]
    assert samples["process_resident_memory_bytes", frozenset()] > 1e6


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_another_method_is_405(sidecar: Sidecar, method: str) -> None:
    answer = ask(sidecar, method, "/metrics")
    assert (answer.status, answer.headers["allow"], answer.json["code"]) == (405, "GET", "bad_request")
    assert ask(sidecar, "GET", "/v1/metrics").status == 404


@pytest.mark.servers("any")
def test_a_database_that_is_away_shows_and_the_metrics_stay(database: str, tmp_path: Path) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    with serving(database, tmp_path / "log") as sidecar:
        assert value(scrape(sidecar), "database_up") == 1
        maintenance = psycopg.conninfo.make_conninfo(database, dbname="postgres")
        with psycopg.connect(maintenance, autocommit=True) as admin:
            admin.execute(f'alter database "{name}" allow_connections false'.encode())
            admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
            wait_until(lambda: value(scrape(sidecar), "database_up") == 0, "the database to show as away")
            assert ask(sidecar, "GET", "/v1/health").status == 503
            assert value(scrape(sidecar), "requests_total", route="GET /v1/health", status="503") >= 1
            admin.execute(f'alter database "{name}" allow_connections true'.encode())
        wait_until(lambda: value(scrape(sidecar), "database_up") == 1, "the database to show as there")


@pytest.mark.servers("any")
def test_a_variable_of_the_platforms_own_metrics_leaves_no_file(database: str, tmp_path: Path) -> None:
    folder = tmp_path / "platform"
    folder.mkdir()
    with serving(database, tmp_path / "log", PROMETHEUS_MULTIPROC_DIR=str(folder)) as sidecar:
        assert value(scrape(sidecar), "database_up") == 1
    assert list(folder.iterdir()) == []


def test_counting_costs_less_than_ten_microseconds() -> None:
    metrics = Metrics(Pool("", 1, lambda reachable, why: None), Breaker(), Maintenance("", 0), Embedding("", 0))
    rounds = 2000

    def once() -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            metrics.count(HEALTH, "200 OK", 0.004)
        return (time.perf_counter() - began) / rounds

    # The best of several: others work on this machine too.
    assert min(once() for _ in range(20)) < 10e-6
