"""Chooses whom to ask: Prometheus if there is one, and the workers themselves where it cannot be used."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

from glm_operator.api.slo import Slo
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.reading import Reading, Target
from glm_operator.cluster.metrics.scrape import Scraper


class Sources:
    """Reads the numbers of deployments. One for the whole operator, and one for `glm local`."""

    def __init__(
        self,
        scraper: Scraper,
        prometheus: Prometheus | None = None,
        *,
        latency_period_s: float = 15.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """prometheus: None where none is configured; then the workers are asked, and that is no trouble."""
        raise NotImplementedError

    async def read(
        self,
        namespace: str,
        deployment: str,
        targets: Sequence[Target],
        slo: Slo,
        on_missing: Literal["Fallback", "Hold"] = "Fallback",
    ) -> Reading:
        """Return what this period brings. Never raises for what a source does, and ends within its timeout.

        Call it once a demand period; latencies are renewed when they are due. targets: every group with a leading pod
        that has an address.
        """
        raise NotImplementedError

    def forget(self, namespace: str, deployment: str) -> None:
        """Drop what is kept of a deployment that is gone."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
