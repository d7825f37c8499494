"""The operator's own Prometheus metrics. Every series exists from the start: nothing missing is to be read as zero."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

OUTCOMES = ("unchanged", "changed", "gone", "unavailable", "error")
"""unavailable: the API server did not do it this time; error: a fault of the operator itself, with a traceback."""


class Watched(Protocol):
    """A watch, as far as its metrics go."""

    kind: str
    restarts: int

    def age_s(self) -> float: ...


class _Watches(Collector):
    """How long ago each kind's watches last heard anything, and how often one was given up as silent."""

    def __init__(self, watches: Sequence[Watched]) -> None:
        self._watches = watches

    def collect(self) -> Iterable[Metric]:
        age = GaugeMetricFamily(
            "glm_operator_watch_age_seconds",
            "Time since the watch of a kind last heard an event, a bookmark or a list; of several the oldest.",
            labels=["kind"],
        )
        restarts = CounterMetricFamily(
            "glm_operator_watch_restarts", "Watches that said nothing and were begun anew.", labels=["kind"]
        )
        for kind in sorted({watch.kind for watch in self._watches}):
            of_kind = [watch for watch in self._watches if watch.kind == kind]
            age.add_metric([kind], max(watch.age_s() for watch in of_kind))
            restarts.add_metric([kind], sum(watch.restarts for watch in of_kind))
        return [age, restarts]


class Telemetry:
    """Metrics of one operator process, in a registry of their own."""

    def __init__(
        self, *, age_s: Callable[[], float], queue_length: Callable[[], int], watches: Sequence[Watched] = ()
    ) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Watches(watches))
        self._duration = Histogram(
            "glm_operator_reconcile_duration_seconds",
            "Time of one pass over one GLMDeployment.",
            ["outcome"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._errors = Counter(
            "glm_operator_reconcile_errors_total",
            "Passes that failed and are tried again.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:
            self._duration.labels(outcome)
        for outcome in ("unavailable", "error"):
            self._errors.labels(outcome)
        age = Gauge(
            "glm_operator_last_pass_age_seconds",
            "Time since a pass ended well, or none was due while watches spoke; rises while the API server is away.",
            registry=self.registry,
        )
        age.set_function(age_s)
        length = Gauge("glm_operator_queue_length", "Deployments that wait for a pass.", registry=self.registry)
        length.set_function(queue_length)

    def passed(self, outcome: str, duration_s: float) -> None:
        """Count one pass."""
        self._duration.labels(outcome).observe(duration_s)
        if outcome in ("unavailable", "error"):
            self._errors.labels(outcome).inc()
