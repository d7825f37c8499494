"""The fall-back: asks the workers' management ports for their metrics and keeps what a decision needs of them."""

from collections.abc import Sequence

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Latencies, Series
from glm_operator.cluster.metrics.reading import Target


class Scraper:
    """Scrapes workers, and answers as Prometheus does, about the time that it has seen itself."""

    async def demand(self, namespace: str, deployment: str, targets: Sequence[Target]) -> list[Series]:
        """Scrape every target once; return the samples of DEMAND_METRICS of the last DEMAND_WINDOW_S."""
        raise NotImplementedError

    def latencies(self, namespace: str, deployment: str, slo: Slo) -> Latencies:
        """Return what the scrapes of demand() say of the windows, as far as they reach back."""
        raise NotImplementedError
