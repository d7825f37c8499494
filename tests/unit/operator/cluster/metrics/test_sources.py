"""Whom Sources asks, and what it reports."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import httpx
import pytest

from glm_operator.api.reasons import Reason
from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Buckets, Latencies, Series
from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import Prometheus
from glm_operator.cluster.metrics.reading import MetricsProblem, Reading, Target
from glm_operator.cluster.metrics.scrape import Scraper
from glm_operator.cluster.metrics.sources import GRACE_S, MAX_BACKOFF_S, OnMissing, Sources

TEXT = 'glm_num_requests_running{revision="r1"} 1\n'
SERIES = [Series("glm_num_requests_running", {"group": "g0"}, ((1.0, 1.0),))]


class FakePrometheus(Prometheus):
    """Answers as it is told, and counts."""

    def __init__(self) -> None:
        super().__init__(Access(url="http://prometheus"))
        self.demand_problem: dict[str, Reason] = {}  # by deployment
        self.latency_problem: Reason | None = None
        self.asked: list[str] = []
        self.hangs: asyncio.Event | None = None

    async def demand(self, namespace: str, deployment: str) -> list[Series]:
        self.asked.append(f"demand of {deployment}")
        if self.hangs is not None:
            await self.hangs.wait()
        if reason := self.demand_problem.get(deployment):
            raise MetricsProblem(reason, "it is as it is")
        return SERIES

    async def latencies(self, namespace: str, deployment: str, slo: Slo) -> Latencies:
        self.asked.append(f"latencies of {deployment}")
        if self.latency_problem is not None:
            raise MetricsProblem(self.latency_problem, "no buckets")
        return Latencies(float(len(self.asked)), (Buckets("chat", "ttft", 60.0, ()),))


class World:
    def __init__(self, *, has_prometheus: bool = True) -> None:
        self.now_s = 1000.0
        self.workers_answer = True
        self.num_scrapes = 0
        self.scraped = asyncio.Event()
        self.prometheus = FakePrometheus() if has_prometheus else None
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        scraper = Scraper(http, now=self._now)
        self.sources = Sources(scraper, self.prometheus, now=self._now, clock=self._now)

    def _now(self) -> float:
        return self.now_s

    def _answer(self, _: httpx.Request) -> httpx.Response:
        self.num_scrapes += 1
        self.scraped.set()
        if not self.workers_answer:
            raise httpx.ConnectTimeout("")
        return httpx.Response(200, text=TEXT)

    async def read(
        self,
        on_missing: OnMissing = "Fallback",
        *,
        deployment: str = "chat",
        targets: Sequence[Target] = (Target("g0", "http://g0/metrics"),),
        later_s: float = 5.0,
    ) -> Reading:
        self.now_s += later_s
        return await self.sources.read("models", deployment, targets, Slo(), on_missing)

    @property
    def fake(self) -> FakePrometheus:
        assert self.prometheus is not None
        return self.prometheus


def seen(reading: Reading) -> tuple[str, bool, Reason | None]:
    """Return the source, whether there are numbers, and what is wrong."""
    return reading.source, bool(reading.series), None if reading.trouble is None else reading.trouble.reason


async def test_prometheus_is_asked_and_workers_are_left_alone() -> None:
    world = World()
    assert seen(await world.read()) == ("Prometheus", True, None)
    assert world.num_scrapes == 0


async def test_without_prometheus_workers_are_asked_and_that_is_no_trouble() -> None:
    world = World(has_prometheus=False)
    reading = await world.read("Hold")
    assert seen(reading) == ("Workers", True, None)
    assert reading.latencies is not None


async def test_latencies_are_read_when_they_are_due_and_kept_in_between() -> None:
    world = World()
    latencies = [(await world.read()).latencies for _ in range(5)]
    assert world.fake.asked.count("latencies of chat") == 2
    assert latencies[0] is not None
    assert latencies[0] == latencies[1] == latencies[2]
    assert latencies[3] == latencies[4] != latencies[0]


@pytest.mark.parametrize("reason", ["MetricsUnreachable", "MetricsRefused", "MetricsStale"])
async def test_where_prometheus_cannot_be_used_workers_are_asked_and_it_is_told(reason: Reason) -> None:
    world = World()
    world.fake.demand_problem["chat"] = reason
    assert seen(await world.read()) == ("Workers", True, reason)


@pytest.mark.parametrize("reason", ["MetricsUnreachable", "MetricsRefused", "MetricsStale"])
async def test_on_hold_the_trouble_is_all_there_is(reason: Reason) -> None:
    world = World()
    world.fake.demand_problem["chat"] = reason
    reading = await world.read("Hold")
    assert seen(reading) == ("Prometheus", False, reason)
    assert reading.latencies is None
    assert world.num_scrapes == 0


async def test_no_series_of_a_group_that_just_began_to_serve_is_waited_for() -> None:
    world = World()
    world.fake.demand_problem["chat"] = "NoSeries"
    assert seen(await world.read()) == ("Workers", True, "MetricsMissing")
    assert seen(await world.read(later_s=GRACE_S - 1)) == ("Workers", True, "MetricsMissing")
    assert seen(await world.read(later_s=1)) == ("Workers", True, "NoSeries")


async def test_no_series_of_groups_that_do_not_serve_is_no_fault() -> None:
    world = World()
    world.fake.demand_problem["chat"] = "NoSeries"
    starting = [Target("g0", "http://g0/metrics", serves=False)]
    for _ in range(3):
        reading = await world.read(targets=starting, later_s=GRACE_S)
        assert seen(reading) == ("Workers", True, "MetricsMissing")


async def test_without_a_group_nobody_is_asked() -> None:
    world = World()
    assert seen(await world.read(targets=[])) == ("Prometheus", False, "MetricsMissing")
    assert (world.fake.asked, world.num_scrapes) == ([], 0)


async def test_histograms_that_are_missing_are_told_and_workers_have_them() -> None:
    world = World()
    world.fake.latency_problem = "NoSeries"
    await world.read()
    assert seen(await world.read(later_s=GRACE_S)) == ("Workers", True, "NoSeries")
    assert seen(await world.read()) == ("Workers", True, "NoSeries"), "also where they are not due"
    assert seen(await world.read("Hold")) == ("Prometheus", True, "NoSeries"), "demand is known"
    world.fake.latency_problem = None
    assert seen(await world.read(later_s=15)) == ("Prometheus", True, None)


async def test_one_that_does_not_answer_is_asked_more_and_more_seldom_and_then_as_before() -> None:
    world = World()
    world.fake.demand_problem["chat"] = "MetricsUnreachable"
    times = []
    for _ in range(200):
        before = len(world.fake.asked)
        reading = await world.read(later_s=1)
        assert seen(reading) == ("Workers", True, "MetricsUnreachable")
        if len(world.fake.asked) > before:
            times.append(world.now_s)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:4] == [5, 10, 20, 30]
    assert max(pauses) == MAX_BACKOFF_S
    world.fake.demand_problem.clear()
    assert seen(await world.read(later_s=MAX_BACKOFF_S)) == ("Prometheus", True, None)
    assert seen(await world.read()) == ("Prometheus", True, None)


async def test_no_series_is_asked_for_in_every_period() -> None:
    world = World()
    world.fake.demand_problem["chat"] = "NoSeries"
    for _ in range(5):
        await world.read()
    assert world.fake.asked.count("demand of chat") == 5


async def test_what_goes_wrong_with_one_deployment_slows_down_no_other() -> None:
    world = World()
    world.fake.demand_problem["other"] = "MetricsUnreachable"
    assert seen(await world.read(deployment="other")) == ("Workers", True, "MetricsUnreachable")
    assert seen(await world.read(later_s=0)) == ("Prometheus", True, None)


async def test_after_a_failure_workers_are_asked_while_prometheus_is_waited_for() -> None:
    world = World()
    world.fake.demand_problem["chat"] = "MetricsUnreachable"
    await world.read()
    world.fake.hangs = asyncio.Event()
    reading = asyncio.create_task(world.read())
    world.scraped.clear()
    async with asyncio.timeout(5):
        await world.scraped.wait()
    assert not reading.done()
    world.fake.hangs.set()
    assert seen(await reading) == ("Workers", True, "MetricsUnreachable")


@pytest.mark.parametrize("has_prometheus", [False, True])
async def test_workers_that_are_silent_are_named(has_prometheus: bool) -> None:
    world = World(has_prometheus=has_prometheus)
    world.workers_answer = False
    if has_prometheus:
        world.fake.demand_problem["chat"] = "MetricsUnreachable"
    reading = await world.read()
    assert seen(reading) == ("Workers", False, "MetricsUnreachable" if has_prometheus else "MetricsMissing")
    assert reading.trouble is not None
    assert reading.trouble.message.endswith("1 of 1 workers do not answer: g0: http://g0/metrics: ConnectTimeout")
    assert reading.trouble.message.startswith("it is as it is; and ") == has_prometheus


async def test_a_deployment_that_is_gone_is_forgotten() -> None:
    world = World()
    await world.read()
    world.sources.forget("models", "chat")
    await world.read(later_s=0)
    assert world.fake.asked.count("latencies of chat") == 2
    await world.sources.close()
