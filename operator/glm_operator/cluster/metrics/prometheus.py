"""The only client of Prometheus: its HTTP API, read only."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from glm_operator.api.reasons import Reason
from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Latencies, Series


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where Prometheus is, and what lets us in. Files are read again when they change: a Secret is mounted there."""

    url: str  # of the server, with the prefix of its path where it has one
    ca_file: Path | None = None  # None: the system's
    certificate_file: Path | None = None  # of the client, with key_file
    key_file: Path | None = None
    bearer_token_file: Path | None = None
    username_file: Path | None = None
    password_file: Path | None = None
    timeout_s: float = 4.0  # of a query, waiting for its turn included
    has_recording_rules: bool = False
    max_window_s: float = 30 * 86400.0  # no query looks further back


Asked = Callable[[float, Reason | None], None]
"""Told of each query: how long it took in seconds, and why it failed, if it did."""


class Prometheus:
    """Asks Prometheus about one deployment at a time. Raises MetricsProblem for all that can go wrong."""

    def __init__(self, access: Access, *, asked: Asked | None = None) -> None:
        raise NotImplementedError

    async def demand(self, namespace: str, deployment: str) -> list[Series]:
        """Return the samples of DEMAND_METRICS of the last DEMAND_WINDOW_S."""
        raise NotImplementedError

    async def latencies(self, namespace: str, deployment: str, slo: Slo) -> Latencies:
        """Return what the histograms and the counters of kept promises say of their windows."""
        raise NotImplementedError
