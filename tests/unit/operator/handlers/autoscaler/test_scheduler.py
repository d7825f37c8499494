"""Who is looked at, when, and how many at once. Time is real here, and short."""

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from glm_operator.api.slo import Slo
from glm_operator.api.trouble import Trouble
from glm_operator.cluster.cache import KINDS, Cache
from glm_operator.cluster.metrics.reading import Reading, Target
from glm_operator.handlers.autoscaler import scheduler
from glm_operator.handlers.autoscaler.board import Board
from glm_operator.handlers.autoscaler.scheduler import Autoscaler
from glm_operator.observe.observed import ObservedGroup
from glm_operator.observe.report import GroupReport
from unit.operator.live_builders import a_live_pod, a_stateful_set
from unit.operator.operator_builders import a_body

PERIOD_S = 0.05


class Nobody:
    """An API server and workers that are not needed."""

    async def scale(self, body: Any, groups: int) -> str:
        raise AssertionError("nothing is to be scaled")

    async def post_events(self, body: Any, events: Iterable[Trouble], now: datetime) -> None:
        raise AssertionError("nothing is to be told")

    async def reports(self, groups: Iterable[ObservedGroup], ask: Collection[str]) -> dict[str, GroupReport]:
        return {}


class Asked:
    """A source that notes who asks it, and when. Some deployments hang, some fail."""

    def __init__(self, *, hangs: Collection[str] = (), fails: Collection[str] = (), takes_s: float = 0.0) -> None:
        self.times: dict[str, list[float]] = {}
        self.at_once = self.most_at_once = 0
        self.forgotten: list[str] = []
        self._hangs, self._fails, self._takes_s = hangs, fails, takes_s

    async def read(
        self, namespace: str, deployment: str, targets: Sequence[Target], slo: Slo, on_missing: str = "Fallback"
    ) -> Reading:
        self.times.setdefault(deployment, []).append(time.monotonic())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if deployment in self._hangs:
                await asyncio.Event().wait()
            if deployment in self._fails:
                raise RuntimeError("a fault")
            await asyncio.sleep(self._takes_s)
        finally:
            self.at_once -= 1
        return Reading(at_s=time.time(), source="Workers")

    def forget(self, namespace: str, deployment: str) -> None:
        self.forgotten.append(deployment)


def a_cache(*names: str, **spec: Any) -> Cache:
    """Return a cache that knows these deployments, each with a group that serves."""
    cache = Cache()
    for kind in KINDS:
        cache.replace(kind, None, [])
    for name in names:
        cache.put(a_body(name, uid=f"uid-{name}", **spec))
        labels = {"glm-operator.io/deployment": name}
        group = f"{name}-g0"
        owners = [{"controller": True, "kind": "GLMDeployment", "name": name, "uid": f"uid-{name}"}]
        stateful_set, pod = a_stateful_set(group, owners=owners), a_live_pod(group)
        for item, kind in ((stateful_set, "StatefulSet"), (pod, "Pod")):
            item["kind"] = kind
            item["metadata"] |= {"namespace": "models", "uid": f"uid-{group}-{kind}"}
            item["metadata"]["labels"] |= labels
            cache.put(item)
    return cache


def an_autoscaler(cache: Cache, asked: Asked, **changes: Any) -> Autoscaler:
    nobody = Nobody()
    fields: dict[str, Any] = {"board": Board(lambda _: None, has_prometheus=True), "period_s": PERIOD_S, **changes}
    return Autoscaler(
        fields.pop("board"),
        kube=nobody,
        cache=cache,
        sources=asked,
        workers=nobody,
        now=lambda: datetime.now(UTC),
        **fields,
    )


@contextlib.asynccontextmanager
async def running(autoscaler: Autoscaler) -> Any:
    task = asyncio.create_task(autoscaler.run())
    try:
        async with asyncio.timeout(30):
            yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(is_so: Any) -> None:
    while not is_so():  # noqa: ASYNC110 - what is waited for is no event
        await asyncio.sleep(0.005)


async def test_each_is_looked_at_once_a_period() -> None:
    asked = Asked()
    began = time.monotonic()
    async with running(an_autoscaler(a_cache("chat"), asked)):
        await until(lambda: len(asked.times.get("chat", [])) >= 11)
    took_s = asked.times["chat"][10] - asked.times["chat"][0]
    assert took_s >= 9.5 * PERIOD_S
    assert asked.times["chat"][0] - began >= 0


async def test_many_begin_at_moments_of_their_own() -> None:
    asked, names = Asked(), [f"d{number}" for number in range(60)]
    began = time.monotonic()
    async with running(an_autoscaler(a_cache(*names), asked, period_s=1.0)):
        await until(lambda: len(asked.times) == len(names))
    firsts = sorted(times[0] - began for times in asked.times.values())
    in_each_quarter = [sum(quarter / 4 <= first < (quarter + 1) / 4 for first in firsts) for quarter in range(4)]
    assert max(in_each_quarter) < 35, "of 60, chance puts 15 into each quarter"


async def test_no_more_than_so_many_are_asked_at_once() -> None:
    asked, names = Asked(takes_s=0.02), [f"d{number}" for number in range(20)]
    async with running(an_autoscaler(a_cache(*names), asked, at_once=3)):
        await until(lambda: len(asked.times) == len(names))
    assert asked.most_at_once == 3


async def test_one_that_hangs_or_fails_holds_up_none_of_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduler, "LOOK_LIMIT_S", 0.3)
    asked = Asked(hangs=["hung"], fails=["bad"])
    async with running(an_autoscaler(a_cache("hung", "bad", "chat"), asked, at_once=2)):
        await until(lambda: len(asked.times.get("chat", [])) > 5 and len(asked.times.get("hung", [])) > 1)
        await until(lambda: len(asked.times.get("bad", [])) > 1)
    assert "a look took more than" in caplog.text
    assert "deployment=models/bad: the look failed" in caplog.text


async def test_who_comes_is_followed_and_who_goes_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FIND_S", 0.01)
    cache, asked = a_cache("chat"), Asked()
    board = Board(lambda _: None, has_prometheus=True)
    async with running(an_autoscaler(cache, asked, board=board)):
        await until(lambda: ("models", "chat") in board.latest)
        cache.forget(("models", "chat"))
        await until(lambda: "chat" in asked.forgotten)
        assert board.latest == {}
        cache.put({**a_body("other", uid="uid-other"), "kind": "GLMDeployment"})
        await until(lambda: ("models", "other") in board.latest)


async def test_an_edit_that_asks_for_measurements_begins_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FIND_S", 0.01)
    cache, asked = a_cache("chat"), Asked()
    autoscaler = an_autoscaler(cache, asked, board=Board(lambda _: None, has_prometheus=False))
    assert autoscaler.measured() == set()
    edited = a_body("chat", uid="uid-chat", slo={"classes": [{"name": "fast", "ttft": "1s"}]})
    edited["metadata"] |= {"generation": 2, "resourceVersion": "2"}
    cache.put(edited)
    async with running(autoscaler):
        await until(lambda: "chat" in asked.times)


async def test_before_the_watches_have_listed_nobody_is_asked() -> None:
    cache = Cache()
    cache.put(a_body("chat"))
    asked = Asked()
    autoscaler = an_autoscaler(cache, asked)
    await autoscaler.look(("models", "chat"))
    assert asked.times == {}
