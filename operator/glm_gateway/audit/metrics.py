"""Whether the audit log is whole, as a metric."""

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_gateway.audit.log import AuditLog


class AuditMetrics(Collector):
    """Asked when somebody scrapes. Only where there is an audit log."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(
            "glm_gateway_audit_lines_lost", "Lines of the audit log that its file did not take.", self._audit.num_lost
        )
