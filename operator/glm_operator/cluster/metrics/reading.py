"""What is read of a deployment in a period, and what keeps it from being read. Pure."""

from dataclasses import dataclass
from typing import Literal

from glm_operator.api.reasons import Reason
from glm_operator.api.trouble import Trouble
from glm_operator.autoscale.series import Latencies, Series

SourceName = Literal["Prometheus", "Workers"]


class MetricsProblem(Exception):
    """Numbers that cannot be had, and why, as it is reported.

    Reasons: NoSeries, MetricsStale, MetricsUnreachable, MetricsRefused, MetricsMissing.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.trouble = Trouble("metrics", reason, message)


@dataclass(frozen=True)
class Target:
    """One group, and where the metrics of its leading pod are: http://10.0.0.7:9090/metrics."""

    group: str
    url: str
    serves: bool = True  # as the cluster says; of one that does not, no series are missed


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What one period brought. source: whose numbers these are, or would have been.

    latencies: of the last time they were due; None before the first. trouble beside numbers: Prometheus cannot be used,
    and the workers were asked. trouble without numbers: there are none, and nothing may be decided.
    """

    at_s: float  # unix time
    source: SourceName
    series: tuple[Series, ...] = ()
    latencies: Latencies | None = None
    trouble: Trouble | None = None
