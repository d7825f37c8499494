"""How long a question may take, and what is asked how often."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from glm_operator.api.reasons import Reason
from glm_operator.api.slo import Slo
from glm_operator.cluster.metrics.access import Access
from glm_operator.cluster.metrics.prometheus import LONG_PERIOD_S, Prometheus
from glm_operator.cluster.metrics.reading import MetricsProblem
from unit.operator.cluster.metrics.canned_prometheus import EMPTY, Canned, canned_prometheus

TIMEOUT_S = 0.3
MONTH = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms", "window": "30d"}]})
BUCKET = {"metric": {"term": "workers ttft samples", "slo_class": "chat", "le": "+Inf"}, "value": [0, "4"]}
ATTAINED = {"metric": {"term": "workers 300", "slo_class": "chat", "met": "true"}, "value": [0, "4"]}


@pytest.fixture
async def canned() -> AsyncIterator[Canned]:
    async with canned_prometheus() as found:
        yield found


def vector(*result: object) -> web.Response:
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}})


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_one_that_hangs_costs_its_timeout_however_many_wait(canned: Canned) -> None:
    until = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await until.wait()
        return web.json_response(EMPTY)

    canned.answer = hang
    prometheus = Prometheus(Access(url=canned.url, timeout_s=TIMEOUT_S))
    begun_s = time.monotonic()
    questions = [prometheus.demand("models", f"chat-{i}") for i in range(20)]
    questions += [prometheus.latencies("models", f"chat-{i}", MONTH) for i in range(20)]  # type: ignore[misc]
    problems = await asyncio.gather(*questions, return_exceptions=True)
    assert time.monotonic() - begun_s < 10 * TIMEOUT_S, "one after the other it would be 40"
    assert {str(problem) for problem in problems} == {f"Prometheus at {canned.url} did not answer within 0.3 s"}
    assert {problem.trouble.reason for problem in problems if isinstance(problem, MetricsProblem)} == {
        "MetricsUnreachable"
    }
    until.set()
    await prometheus.close()


async def test_who_listens_is_told_of_every_query(canned: Canned) -> None:
    told: list[Reason | None] = []
    prometheus = Prometheus(Access(url=canned.url), asked=lambda _, reason: told.append(reason))
    with pytest.raises(MetricsProblem):
        await prometheus.demand("models", "chat")
    canned.says(status=500, text="broken")
    with pytest.raises(MetricsProblem):
        await prometheus.demand("models", "chat")
    canned.says_json({"status": "success", "data": {"resultType": "matrix", "result": ["nonsense"]}})
    with pytest.raises(MetricsProblem):
        await prometheus.demand("models", "chat")
    assert told == [None, None, "MetricsUnreachable", "MetricsUnreachable"]
    await prometheus.close()


async def test_long_windows_are_asked_for_once_a_minute_and_when_they_change(canned: Canned) -> None:
    async def answer(request: web.Request) -> web.Response:
        return vector(ATTAINED if "glm_slo_requests_total" in request.query["query"] else BUCKET)

    canned.answer = answer
    clock = Clock()
    prometheus = Prometheus(Access(url=canned.url), clock=clock)

    async def long_queries(slo: Slo) -> int:
        canned.asked.clear()
        await prometheus.latencies("models", "chat", slo)
        return sum("covered" in request.query["query"] for request in canned.asked)

    assert await long_queries(MONTH) == 1
    clock.now_s += LONG_PERIOD_S - 1
    assert await long_queries(MONTH) == 0
    clock.now_s += 1
    assert await long_queries(MONTH) == 1
    week = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms", "window": "7d"}]})
    assert await long_queries(week) == 1
    hour = Slo.model_validate({"classes": [{"name": "chat", "ttft": "500ms", "window": "1h"}]})
    assert await long_queries(hour) == 0, "an hour is asked for anyway"
    await prometheus.close()


@pytest.mark.parametrize("is_slow", [False, True])
async def test_long_windows_that_are_too_much_take_nothing_away_from_the_others(canned: Canned, is_slow: bool) -> None:
    until = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        query = request.query["query"]
        if "covered" not in query:
            return vector(ATTAINED if "glm_slo_requests_total" in query else BUCKET)
        if is_slow:
            await until.wait()
        return web.json_response({"errorType": "execution", "error": "too many samples"}, status=422)

    canned.answer = answer
    prometheus = Prometheus(Access(url=canned.url, timeout_s=1.0))
    found = await prometheus.latencies("models", "chat", MONTH)
    assert [(each.window_s, each.requests) for each in found.attained] == [(300.0, 4.0)]
    until.set()
    await prometheus.close()
