"""The management port of a worker that has steady traffic: what it counts is a function of the time that has passed.

The families are those of docs/design/0007-autoscaling.md, served by prometheus_client's own server.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from glm_operator.autoscale.series import DEMAND_METRICS, HISTOGRAMS
from glm_operator.cluster.metrics.reading import Target

NAMESPACE, DEPLOYMENT, REVISION = "models", "chat", "r1"
SLO_CLASS = "interactive"
EDGES = (0.1, 0.5, 1.0)

REQUESTS_PER_S = 100.0
FAST = 0.75
"""Share of the requests that are as fast as 0.5 s. Half of them are as fast as 0.1 s, all as 1 s."""

MET = 0.75
"""Share of the requests that keep their promise."""

RATES: Mapping[str, float] = {
    "glm_requests_received_total": REQUESTS_PER_S,
    "glm_prompt_tokens_received_total": 2000.0,
    "glm_generation_tokens_total": 800.0,
    "glm_requests_total": REQUESTS_PER_S,
    "glm_prefill_tokens_total": 1900.0,
    "glm_prefill_busy_seconds_total": 0.4,
    "glm_decode_tokens_total": 800.0,
    "glm_decode_steps_total": 90.0,
    "glm_decode_busy_seconds_total": 0.5,
}
GAUGES: Mapping[str, float] = {
    "glm_group_draining": 0.0,
    "glm_num_requests_running": 3.0,
    "glm_num_requests_waiting": 2.0,
    "glm_oldest_waiting_seconds": 1.25,
    "glm_prompt_tokens_waiting": 210.0,
    "glm_prompt_tokens_left": 90.0,
    "glm_in_flight_tokens": 512.0,
    "glm_kv_cache_usage_ratio": 0.25,
    "glm_kv_cache_tokens": 4096.0,
    "glm_max_running_requests": 8.0,
    "glm_cold_start_seconds": 61.0,
}
EXTRA_LABELS: Mapping[str, Mapping[str, str]] = {
    "glm_requests_received_total": {"slo_class": SLO_CLASS},
    "glm_prompt_tokens_received_total": {"slo_class": SLO_CLASS},
    "glm_generation_tokens_total": {"kind": "answer"},
    "glm_requests_total": {"outcome": "finished"},
    "glm_cold_start_seconds": {"phase": "total"},
}
assert {*RATES, *GAUGES, "glm_group_serving_timestamp_seconds"} == set(DEMAND_METRICS)


class MeteredWorker(Collector):
    """One group's leading worker. It may restart, change its edges, go away and come back."""

    def __init__(self, group: str, deployment: str = DEPLOYMENT) -> None:
        self.group = group
        self.deployment = deployment
        self.labels = {"namespace": NAMESPACE, "deployment": deployment, "group": group, "revision": REVISION}
        self.edges: Sequence[float] = EDGES
        self.started_s = time.time()
        self.port = 0
        self._counting_since_s = self.started_s
        self._stop = lambda: None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def target(self) -> Target:
        return Target(self.group, f"http://{self.address}/metrics")

    def serve(self) -> None:
        """Serve metrics, at the same port as before if there was one."""
        server, thread = start_http_server(self.port, "127.0.0.1", self._registry)
        self.port = server.server_port

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stop = stop

    def leave(self) -> None:
        """Serve no more."""
        self._stop()
        self._stop = lambda: None

    def restart(self) -> None:
        """Count from 0 again, as a new process does."""
        self.started_s = self._counting_since_s = time.time()

    def change_edges(self, edges: Sequence[float]) -> None:
        """Begin the histograms anew with other edges, as an edit of the class does."""
        self._counting_since_s = time.time()
        self.edges = edges

    def collect(self) -> Iterable[Metric]:
        now_s = time.time()
        elapsed_s, counted = now_s - self.started_s, REQUESTS_PER_S * (now_s - self._counting_since_s)
        for name, rate in RATES.items():
            labels = {**self.labels, **EXTRA_LABELS.get(name, {})}
            counter = CounterMetricFamily(name, "Counted.", labels=list(labels))
            counter.add_metric(list(labels.values()), rate * elapsed_s)
            yield counter
        for name, value in {**GAUGES, "glm_group_serving_timestamp_seconds": self.started_s}.items():
            labels = {**self.labels, **EXTRA_LABELS.get(name, {})}
            gauge = GaugeMetricFamily(name, "Measured.", labels=list(labels))
            gauge.add_metric(list(labels.values()), value)
            yield gauge
        of_class = {**self.labels, "slo_class": SLO_CLASS}
        for name in HISTOGRAMS.values():
            histogram = HistogramMetricFamily(name, "Measured.", labels=list(of_class))
            buckets = [
                (floatToGoString(edge), round(counted * share_until(edge))) for edge in (*self.edges, float("inf"))
            ]
            histogram.add_metric(list(of_class.values()), buckets, sum_value=0.0)
            yield histogram
        attained = CounterMetricFamily("glm_slo_requests_total", "Counted.", labels=[*of_class, "met"])
        for met, share in (("true", MET), ("false", 1 - MET)):
            attained.add_metric([*of_class.values(), met], REQUESTS_PER_S * elapsed_s * share)
        yield attained


def share_until(edge: float) -> float:
    """Return the share of the requests that are this fast."""
    return min(1.0, FAST / 2 + FAST * (edge - 0.1) / 0.8) if edge >= 0.1 else FAST / 2


@contextmanager
def serving(*workers: MeteredWorker) -> Iterator[list[MeteredWorker]]:
    """Let workers serve; at the end they are gone."""
    try:
        for worker in workers:
            worker.serve()
        yield list(workers)
    finally:
        for worker in workers:
            worker.leave()
