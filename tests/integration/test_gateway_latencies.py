"""What a real Prometheus tells the operator of a deployment: as its gateway measures, or as its workers do."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from glm_edge.frames import Close, Open, Tokens
from glm_gateway.groups.directory import Directory
from glm_gateway.ladder.config import SloClassConfig, SloConfig
from glm_gateway.metrics.telemetry import Owner, Telemetry
from glm_gateway.models.model import Model
from glm_gateway.proxy.relay.outcome import Outcome
from glm_operator.autoscale.series import HISTOGRAMS, Latencies
from glm_operator.cluster.metrics.recording import recording_rules
from glm_operator.cluster.metrics.scrape import Scraper
from integration.metered_worker import DEPLOYMENT, NAMESPACE, SLO_CLASS, MeteredWorker, serving
from integration.prometheus_process import prometheus_process, scrape_config
from integration.source_world import Open as Opening
from integration.source_world import Source, clients, the_attained, the_buckets, wait_for

HELD_S = 3.0
"""What each request waited at the gateway; its worker knows nothing of it, and was in time for 3 of 4."""


class Gateway(Collector):
    """A gateway's own metrics on a port, while requests come."""

    def __init__(self) -> None:
        promise = SloClassConfig(name=SLO_CLASS, thresholds_s={"ttft": 0.5})
        self.telemetry = Telemetry([Model("air", Directory(), slo=SloConfig(classes=(promise,)))])
        self.telemetry.owners.take({"air": Owner(NAMESPACE, DEPLOYMENT)})
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterable[Metric]:
        return [self.telemetry.owners.labelled(family) for family in self.telemetry.families()]

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        server, thread = start_http_server(0, "127.0.0.1", self._registry)
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()
        thread.join()

    async def answer(self) -> None:
        """Answer a request after another that was held."""
        opened: Any = {"id": "a", "created": 1, "seeds": [1], "status": 200, "headers": [], "num_prompt_tokens": 1}
        used: Any = {"num_prompt_tokens": 1, "num_cached_tokens": 0, "num_reasoning_tokens": 0, "num_answer_tokens": 2}
        while True:
            arrived_s = time.monotonic() - HELD_S
            times = self.telemetry.watch("air", [], mode=None, streams=True, arrived_s=arrived_s)
            times.opened(Open(fingerprint="f", **opened))
            for _ in range(2):
                times.tokens(Tokens(ids=[(0, [1])]))
            times.closed(Close(reasons=[], **used))
            times.ended(Outcome.FINISHED, is_plain=False, first_byte_s=None)
            await asyncio.sleep(0.02)


@pytest.fixture
async def opened() -> AsyncIterator[Opening]:
    async with clients() as make:
        yield make


@pytest.mark.parametrize("is_recorded", [False, True])
async def test_latencies_are_those_of_the_gateway_where_it_is_scraped_and_else_the_workers(
    tmp_path: Path, opened: Opening, is_recorded: bool
) -> None:
    gateway = Gateway()
    with serving(MeteredWorker("chat-g0")) as workers, gateway.serving() as at_gateway:
        asking = asyncio.create_task(gateway.answer())
        for folder, others in (("without", []), ("with", [at_gateway])):
            (tmp_path / folder).mkdir()
            config = scrape_config([workers[0].address, *others])
            with prometheus_process(tmp_path / folder, [config], rules=recording_rules()) as process:
                source = Source("Prometheus", workers, Scraper(), opened(process.url, has_recording_rules=is_recorded))
                found = await wait_for("latencies", partial(enough, source, of_gateway=bool(others)))
                await source.scraper.close()
            ttft, attained = the_buckets(of_class(found), "ttft", 60.0), the_attained(found, 300.0)
            assert ttft is not None
            assert attained is not None
            in_time = dict(ttft.counts)[0.5] / ttft.counts[-1][1]
            if others:
                assert (in_time, attained.met) == (0.0, 0.0)
                assert dict(ttft.counts)[5.0] == ttft.counts[-1][1]
            else:
                assert (in_time, attained.met / attained.requests) == pytest.approx((0.75, 0.75), abs=0.03)
        asking.cancel()


def of_class(found: Latencies) -> Latencies:
    """Return what is of the class that is promised something."""
    return replace(found, buckets=tuple(each for each in found.buckets if each.slo_class == SLO_CLASS))


async def enough(source: Source, *, of_gateway: bool) -> Latencies | None:
    """Return latencies of all signals in both windows, once there are some: each of one side only.

    of_gateway: once its own are among them. Until it was scraped for the first time, those of the workers are told.
    """
    found = await source.latencies()
    attained = the_attained(found, 300.0)
    told = [each for each in of_class(found).buckets if each.counts[-1][1] > 20]
    assert len(told) <= 2 * len(HISTOGRAMS)
    if attained is None or attained.requests <= 50 or len(told) < 2 * len(HISTOGRAMS):
        return None
    ttft = the_buckets(of_class(found), "ttft", 60.0)
    is_of_gateway = attained.met == 0 and ttft is not None and dict(ttft.counts)[0.5] == 0
    return found if is_of_gateway or not of_gateway else None
