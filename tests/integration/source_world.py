"""The two sources of autoscaling's numbers, asked the same questions: a real Prometheus, and the workers themselves."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import httpx
import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Attained, Buckets, Latencies, Series
from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.reading import MetricsProblem
from glm_operator.cluster.metrics.scrape import Scraper
from integration.metered_worker import DEPLOYMENT, NAMESPACE, SLO_CLASS, MeteredWorker
from integration.prometheus_process import PrometheusProcess

DEADLINE_S = 40.0
PERIOD_S = 0.5

SLO = Slo.model_validate({"classes": [{"name": SLO_CLASS, "ttft": "500ms", "window": "1h"}]})
Found = TypeVar("Found")
Open = Callable[..., Prometheus]
"""Makes a client of the Prometheus at a URL, with fields of Access."""


async def wait_for(what: str, look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Look again and again until something is found."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        why: MetricsProblem | None = None
        try:
            if (found := await look()) is not None:
                return found
        except MetricsProblem as problem:  # before the first scrape there is nothing, or what another test has left
            why = problem
        assert time.monotonic() < deadline_s, f"no {what} after {DEADLINE_S:g} s: {why}"
        await asyncio.sleep(PERIOD_S)


@dataclass
class Source:
    """One of the two, asked the same questions."""

    name: str
    workers: list[MeteredWorker]
    scraper: Scraper
    prometheus: Prometheus | None

    async def demand(self) -> list[Series]:
        """Return the series there are; none where Prometheus has none yet."""
        if self.prometheus is None:
            return await self.scraper.demand(NAMESPACE, DEPLOYMENT, [worker.target for worker in self.workers])
        try:
            return await self.prometheus.demand(NAMESPACE, DEPLOYMENT)
        except MetricsProblem as problem:
            if problem.trouble.reason != "NoSeries":
                raise
            return []

    async def latencies(self, slo: Slo = SLO) -> Latencies:
        if self.prometheus is None:
            await self.demand()
            return self.scraper.latencies(NAMESPACE, DEPLOYMENT, slo)
        try:
            return await self.prometheus.latencies(NAMESPACE, DEPLOYMENT, slo)
        except MetricsProblem as problem:
            if problem.trouble.reason != "NoSeries":
                raise
            return Latencies(time.time())


def slope(series: Series) -> float:
    (begin_s, first), (end_s, last) = series.samples[0], series.samples[-1]
    return (last - first) / (end_s - begin_s)


def the_buckets(latencies: Latencies, signal: str, window_s: float) -> Buckets | None:
    return next((each for each in latencies.buckets if (each.signal, each.window_s) == (signal, window_s)), None)


def the_attained(latencies: Latencies, window_s: float) -> Attained | None:
    return next((each for each in latencies.attained if each.window_s == window_s), None)


async def the_problem(prometheus: Prometheus, what: str = "demand", deployment: str = DEPLOYMENT) -> MetricsProblem:
    asked: Mapping[str, Callable[[], Awaitable[object]]] = {
        "demand": partial(prometheus.demand, NAMESPACE, deployment),
        "latencies": partial(prometheus.latencies, NAMESPACE, deployment, SLO),
    }
    with pytest.raises(MetricsProblem) as caught:
        await asked[what]()
    return caught.value


async def scraped(process: PrometheusProcess, query: str) -> None:
    """Wait until Prometheus has something for a query of ours."""

    async def look() -> object:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"{process.url}/api/v1/query", params={"query": query})
            return answer.json()["data"]["result"] or None

    await wait_for(query, look)


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[Open]:
    """Yield what makes clients; at the end they are closed."""
    made: list[Prometheus] = []

    def make(url: str, **access: object) -> Prometheus:
        made.append(Prometheus(Access(url=url, **access)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        await client.close()
