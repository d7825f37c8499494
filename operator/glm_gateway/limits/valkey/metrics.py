"""Whether the store of limits is there, as metrics."""

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_gateway.limits.valkey.shared import SharedStore


class StoreMetrics(Collector):
    """Asked when somebody scrapes. Only where a store is configured."""

    def __init__(self, store: SharedStore) -> None:
        self._store = store

    def collect(self) -> Iterable[Metric]:
        store = self._store
        yield GaugeMetricFamily(
            "glm_gateway_store_is_up",
            "1: limits are counted in the store for all replicas. 0: it is gone.",
            store.is_up,
        )
        yield CounterMetricFamily("glm_gateway_store_failures", "How often the store went.", store.num_failures)
        yield CounterMetricFamily(
            "glm_gateway_requests_counted_here",
            "Requests whose limits this replica alone has counted, as the store was gone.",
            store.num_counted_here,
        )
