"""What Prometheus reads of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from unigrf_dist.serve.server.versions import Versions

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """A registry of its own, so that two servers of one process do not share counts.

    Args:
        versions: what is served.
        num_waiting: how many requests wait now.
        num_events: how many appended events are held now.
    """

    def __init__(
        self, versions: Versions, *, num_waiting: Callable[[], int], num_events: Callable[[], int]
    ) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "unigrf_requests", "Answers by path and status.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "unigrf_request_seconds", "From the request to its answer.", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self._batches = Histogram(
            "unigrf_batch_requests", "Lists computed together.", buckets=_REQUESTS, registry=self.registry
        )
        self._swaps = Counter("unigrf_swaps", "Swaps by outcome.", ["outcome"], registry=self.registry)
        for name, what, value in (
            ("unigrf_waiting_requests", "Requests that wait.", num_waiting),
            ("unigrf_appended_events", "Appended events in memory.", num_events),
        ):
            Gauge(name, what, registry=self.registry).set_function(value)
        self.registry.register(_OfVersion(versions))

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def batch(self, size: int) -> None:
        """Count lists that were computed together."""
        self._batches.observe(size)

    def swap(self, outcome: str) -> None:
        """Count a swap: ``changed``, ``unchanged`` or ``failed``."""
        self._swaps.labels(outcome).inc()

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _OfVersion(Collector):
    """What the version that answers now says of itself."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def collect(self) -> list[Metric]:
        version = self._versions.current
        kept = version.recommender.stages.kept
        info = GaugeMetricFamily("unigrf_version", "The version that answers.", labels=["version"])
        info.add_metric([version.name], 1)
        histories = CounterMetricFamily("unigrf_histories", "How histories were read.", labels=["how"])
        for how in ("kept", "extended", "read"):
            histories.add_metric([how], kept.counts[how])
        return [
            info,
            histories,
            GaugeMetricFamily("unigrf_kept_bytes", "Memory of kept histories.", value=kept.num_bytes),
            GaugeMetricFamily("unigrf_kept_users", "Users whose histories are kept.", value=len(kept)),
        ]
