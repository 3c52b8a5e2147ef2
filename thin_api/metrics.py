"""Count what the sidecar does, and show it in Prometheus' text format.

prometheus_client writes the text; the counting is done here. Its own instruments write files if
PROMETHEUS_MULTIPROC_DIR is set, which a platform may have set for itself; and one cell per route and status is cheaper
than a counter and a histogram. No label ever holds a namespace: those are tenants' names, and unbounded in number.
"""

from __future__ import annotations

import platform
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from memory_plugin import __version__
from memory_plugin.thin_api.breaker import Breaker
from memory_plugin.thin_api.embedding import Embedding
from memory_plugin.thin_api.maintenance import Maintenance
from memory_plugin.thin_api.pool import Pool
from memory_plugin.thin_api.routes import Route

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
UNMATCHED = "unmatched"


class _Cell:
    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class Metrics(Collector):
    """The numbers of one sidecar."""

    def __init__(self, pool: Pool, breaker: Breaker, maintenance: Maintenance, embedding: Embedding) -> None:
        self._pool = pool
        self._breaker = breaker
        self._maintenance = maintenance
        self._embedding = embedding
        self._lock = threading.Lock()
        self._cells: dict[tuple[Route | None, str], _Cell] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def count(self, route: Route | None, line: str, seconds: float) -> None:
        """Note a request that was answered with a status line; `route` is None where no route was found."""
        key = (route, line)
        place = bisect_left(BUCKETS, seconds)
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = _Cell()
            cell.counts[place] += 1
            cell.seconds += seconds

    def text(self) -> bytes:
        """Return every number in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Return nothing: the names are known without asking the pool."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics."""
        yield from self._requests()
        yield from self._database()
        yield from self._upkeep()
        yield from self._embeddings()
        build = GaugeMetricFamily("memory_plugin_build_info", "The program.", labels=("version", "python"))
        build.add_metric((__version__, platform.python_version()), 1)
        yield build

    def _requests(self) -> Iterator[Metric]:
        with self._lock:
            cells = [(route, line, list(cell.counts), cell.seconds) for (route, line), cell in self._cells.items()]
        requests = CounterMetricFamily("memory_plugin_requests", "Requests answered.", labels=("route", "status"))
        durations: dict[str, _Cell] = defaultdict(_Cell)
        for route, line, counts, seconds in cells:
            name = f"{route.method} {route.path}" if route else UNMATCHED
            requests.add_metric((name, line[:3]), sum(counts))
            total = durations[name]
            total.counts = [a + b for a, b in zip(total.counts, counts, strict=True)]
            total.seconds += seconds
        yield requests
        histogram = HistogramMetricFamily(
            "memory_plugin_request_duration_seconds", "From a request's arrival to its answer.", labels=("route",)
        )
        for name, total in durations.items():
            running = 0
            buckets = []
            for bound, number in zip((*map(str, BUCKETS), "+Inf"), total.counts, strict=True):
                running += number
                buckets.append((bound, float(running)))
            histogram.add_metric((name,), buckets, total.seconds)
        yield histogram

    def _database(self) -> Iterator[Metric]:
        pool = self._pool.state()
        yield _gauge(
            "memory_plugin_database_up", "1 when the last attempt to reach the database worked.", pool.reachable
        )
        yield _gauge("memory_plugin_breaker_open", "1 while requests are turned away unasked.", self._breaker.open)
        yield _gauge("memory_plugin_pool_size", "Most connections that the pool may open.", pool.size)
        yield _gauge("memory_plugin_pool_in_use", "Connections that serve a request.", pool.open - pool.idle)
        yield _gauge("memory_plugin_pool_idle", "Connections that wait for a request.", pool.idle)
        yield _gauge("memory_plugin_pool_waiting", "Requests that wait for a connection.", pool.waiting)

    def _upkeep(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "memory_plugin_swept_rows", "Expired rows deleted here.", value=self._maintenance.swept
        )
        rounds = CounterMetricFamily(
            "memory_plugin_maintenance_rounds",
            "Rounds of upkeep: done, elsewhere (another sidecar was at it), failed.",
            labels=("outcome",),
        )
        for outcome, number in self._maintenance.rounds.items():
            rounds.add_metric((outcome,), number)
        yield rounds

    def _embeddings(self) -> Iterator[Metric]:
        status = self._embedding.status
        # Only where the database fetches them.
        if status is None:
            return
        yield _gauge("memory_plugin_embedding_pending", "Memories that wait for an embedding.", status["pending"])
        yield _gauge("memory_plugin_embedding_failed", "Memories that the provider refused.", status["failed"])
        yield _gauge("memory_plugin_embedding_oldest_seconds", "Age of the oldest pending.", status["oldest_seconds"])
        yield _gauge("memory_plugin_embedding_per_second", "Memories embedded, by whomever.", status["per_second"])
        works = status["problem"] is None and not self._embedding.cut
        yield _gauge("memory_plugin_embedding_up", "0 while the provider, or what asks it, is failing.", works)
        yield CounterMetricFamily(
            "memory_plugin_embedded_rows", "Memories embedded here.", value=self._embedding.embedded
        )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)
