"""Scraping of workers: what is kept, what is forgotten, who is silent."""

from collections.abc import Mapping
from math import inf

import httpx
import pytest

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Attained, Latencies, Series
from glm_operator.cluster.metrics.reading import Target
from glm_operator.cluster.metrics.scrape import Scraper

SLO = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms", "window": "30d"}]})
OWN = 'namespace="elsewhere",deployment="other",group="nobody",revision="r1"'


class World:
    """Workers by the host of their address, and a clock."""

    def __init__(self, *, latency_step_s: float = 0.0) -> None:
        self.now_s = 1000.0
        self.texts: dict[str, str] = {}
        self.asked: list[str] = []
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.scraper = Scraper(http, latency_step_s=latency_step_s, now=lambda: self.now_s)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.host)
        if (text := self.texts.get(request.url.host)) is None:
            raise httpx.ConnectError("no route to host")
        return httpx.Response(200, text=text) if text else httpx.Response(503)

    async def demand(self, *groups: str, later_s: float = 5.0) -> list[Series]:
        self.now_s += later_s
        return await self.scraper.demand("models", "chat", [Target(each, f"http://{each}/metrics") for each in groups])

    def latencies(self) -> Latencies:
        return self.scraper.latencies("models", "chat", SLO)

    @property
    def silent(self) -> Mapping[str, str]:
        return self.scraper.silent("models", "chat")


def demand_text(running: float) -> str:
    return f"glm_num_requests_running{{{OWN}}} {running}\n"


def latency_text(kept: float, broken: float, **edges: float) -> str:
    lines = [
        f'glm_slo_requests_total{{{OWN},slo_class="chat",met="{met}"}} {value}'
        for met, value in (("true", kept), ("false", broken))
    ]
    lines += [
        f'glm_time_to_first_token_seconds_bucket{{{OWN},slo_class="chat",le="{name}"}} {value}'
        for name, value in edges.items()
    ]
    return "\n".join([*lines, demand_text(1)])


async def test_a_series_has_the_samples_of_the_demand_window_and_belongs_to_the_group_that_was_asked() -> None:
    world = World()
    for running in range(12):
        world.texts["g0"] = demand_text(running)
        found = await world.demand("g0")
    assert found == [
        Series(
            "glm_num_requests_running",
            {"namespace": "models", "deployment": "chat", "group": "g0", "revision": "r1"},
            tuple((1005.0 + 5 * running, float(running)) for running in range(2, 12)),
        )
    ]


async def test_a_group_that_is_gone_is_forgotten_and_what_it_answered_stays_counted() -> None:
    world = World()
    for kept in (0, 10):
        world.texts = {"g0": latency_text(kept, 0), "g1": latency_text(2 * kept, 0)}
        await world.demand("g0", "g1")
    assert {each.labels["group"] for each in await world.demand("g0")} == {"g0"}
    assert world.latencies().attained[0].requests == 30.0
    world.texts["g1"] = latency_text(1000, 0)
    await world.demand("g0", "g1")
    assert world.latencies().attained[0].requests == 30.0, "who comes back begins anew"


async def test_a_silent_group_is_named_and_keeps_its_old_samples_until_they_are_too_old() -> None:
    world = World()
    world.texts = {"g0": demand_text(1), "g1": demand_text(2)}
    await world.demand("g0", "g1")
    assert world.silent == {}
    del world.texts["g1"]
    found = await world.demand("g0", "g1")
    assert [len(each.samples) for each in found] == [2, 1]
    assert world.silent == {"g1": "http://g1/metrics: no route to host"}
    found = await world.demand("g0", "g1", later_s=42)
    assert [each.labels["group"] for each in found] == ["g0"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "503 Service Unavailable"),
        ("glm_num_requests_running{ 1", "sent no metrics: line 'glm_num_requests_running{ 1' is no sample"),
        (f'glm_time_to_first_token_seconds_bucket{{{OWN},slo_class="chat"}} 1', "a bucket without an edge"),
        (demand_text(1) * 200_000, "more than 8 MiB"),
        ("".join(demand_text(1).replace("r1", f"r{i}") for i in range(20_001)), "more than 20000 series"),
    ],
    ids=["status", "line", "edge", "bytes", "series"],
)
async def test_an_answer_that_is_no_exposition_is_told_and_nothing_of_it_counts(text: str, told: str) -> None:
    world = World()
    world.texts = {"g0": text}
    assert await world.demand("g0") == []
    assert told in world.silent["g0"]


async def test_who_was_silent_is_asked_first_the_next_time() -> None:
    world = World()
    world.texts = {"g0": demand_text(1), "g2": demand_text(1)}
    await world.demand("g0", "g1", "g2")
    world.asked.clear()
    await world.demand("g0", "g1", "g2")
    assert world.asked[0] == "g1"


async def test_windows_are_as_long_as_what_was_seen_and_say_so() -> None:
    world = World()
    for kept in (100, 130, 160):
        world.texts["g0"] = latency_text(kept, kept / 10, **{"0.5": kept, "+Inf": kept * 1.1})
        await world.demand("g0", later_s=15)
    found = world.latencies()
    assert found.attained == tuple(
        Attained("chat", window_s, 66.0, 60.0, covered_s=30.0) for window_s in (300.0, 3600.0, 30 * 86400.0)
    )
    assert [(each.signal, each.window_s, each.counts) for each in found.buckets] == [
        ("ttft", window_s, ((0.5, 60.0), (float("inf"), pytest.approx(66.0)))) for window_s in (60.0, 300.0)
    ]


async def test_one_scrape_tells_no_increase() -> None:
    world = World()
    world.texts["g0"] = latency_text(100, 0, **{"+Inf": 100})
    await world.demand("g0")
    assert (world.latencies().buckets, world.latencies().attained) == ((), ())


async def test_a_restart_of_a_worker_counts_from_zero() -> None:
    world = World()
    for kept in (100, 7):
        world.texts["g0"] = latency_text(kept, 0)
        await world.demand("g0")
    assert world.latencies().attained[0].requests == 7.0


@pytest.mark.parametrize(("serving_s", "requests"), [(1006.0, [(7.0, 3.0)]), (900.0, []), (0.0, [])])
async def test_what_a_group_shows_that_began_to_serve_since_the_last_scrape_rose_from_zero(
    serving_s: float, requests: list[tuple[float, float]]
) -> None:
    world = World()
    world.texts["g0"] = demand_text(0)  # it starts, and has no class yet
    await world.demand("g0")
    assert world.now_s == 1005.0
    world.texts["g0"] = latency_text(3, 4) + f"glm_group_serving_timestamp_seconds{{{OWN}}} {serving_s}\n"
    await world.demand("g0")
    assert [(each.requests, each.met) for each in world.latencies().attained[:1]] == requests


async def test_a_server_that_was_silent_while_its_ranks_began_anew_is_not_counted_from_zero() -> None:
    """The server goes on beside the ranks: what it counted before they began anew was counted already."""
    world = World()
    world.texts["g0"] = latency_text(1000, 0) + f"glm_group_serving_timestamp_seconds{{{OWN}}} 900\n"
    await world.demand("g0")
    world.texts["g0"] = demand_text(0) + f"glm_group_serving_timestamp_seconds{{{OWN}}} 0\n"
    await world.demand("g0")
    for kept in (1002, 1004):
        world.texts["g0"] = latency_text(kept, 0) + f"glm_group_serving_timestamp_seconds{{{OWN}}} 1012\n"
        await world.demand("g0")
    assert [(each.requests, each.met) for each in world.latencies().attained[:1]] == [(2.0, 2.0)]


async def test_latency_is_read_in_some_scrapes_and_demand_in_all() -> None:
    world = World(latency_step_s=10.0)
    for kept in range(7):
        world.texts["g0"] = latency_text(kept, 0)
        found = await world.demand("g0")
    assert len(found[0].samples) == 7
    assert len(world.scraper._kept["models", "chat"].outcomes._levels[0].readings) == 4


async def test_what_rose_while_nobody_scraped_is_not_of_the_last_minutes() -> None:
    """Prometheus was away twice, two hours apart: what ended between was told as the attainment of five minutes."""
    world = World()
    for kept in (0, 10):
        world.texts["g0"] = latency_text(kept, 0, **{"0.5": kept, "+Inf": kept})
        await world.demand("g0")
    for kept, later_s in ((10, 7200.0), (15, 5.0)):
        world.texts["g0"] = latency_text(kept, 9000, **{"0.5": kept, "+Inf": kept + 9000})
        await world.demand("g0", later_s=later_s)
        if later_s > 5.0:
            assert world.latencies().buckets == ()
            assert [each.window_s for each in world.latencies().attained] == [30 * 86_400.0]
    found = world.latencies()
    assert {each.window_s: (each.requests, each.met) for each in found.attained} == {
        300.0: (5.0, 5.0),
        3600.0: (5.0, 5.0),
        30 * 86_400.0: (9015.0, 15.0),
    }
    assert {each.counts for each in found.buckets} == {((0.5, 5.0), (inf, 5.0))}


async def test_a_clock_that_goes_back_begins_anew() -> None:
    world = World()
    world.texts["g0"] = demand_text(1)
    await world.demand("g0")
    found = await world.demand("g0", later_s=-3600)
    assert [each.samples for each in found] == [((world.now_s, 1.0),)]


async def test_a_deployment_that_is_gone_is_forgotten() -> None:
    world = World()
    world.texts["g0"] = demand_text(1)
    await world.demand("g0")
    world.scraper.forget("models", "chat")
    assert world.scraper._kept == {}
    assert world.latencies() == Latencies(world.now_s)
