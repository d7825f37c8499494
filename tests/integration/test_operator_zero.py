"""From no group to one and back: real passes, real streams of gateways, and what people are told of it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from glm_operator import names
from glm_operator.autoscale.constants import DEAF_S
from glm_operator.autoscale.zero.asked import Asked
from glm_operator.cluster.gateways import Gateways
from integration.autoscaler_world import NAME, SCALING, World
from integration.fake_kubernetes import FakeKubernetes, Refused
from integration.gateway_port import GatewayPort, a_model, serving
from integration.metered_fleet import PERIOD_S
from integration.operator_rig import a_deployment_body, a_rig

IDLE_AFTER_S = 60.0
FRONT: dict[str, Any] = {"gateway": {"replicas": 2}, "access": {"auth": "None"}}
MAY_BE_ZERO = {**SCALING, "min": 0, "zero": {"idleAfter": "1m"}}
HOSTS = {"chat-gateway-0x": "127.0.0.1", "chat-gateway-1x": "127.0.0.2", "other-gateway-0x": "127.0.0.3"}


async def until(is_so: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        await asyncio.sleep(0.005)


@dataclass
class ZeroWorld:
    """A deployment behind two gateways that listen where the pods of its gateway have their addresses."""

    world: World
    ports: dict[str, GatewayPort]  # by pod
    heard: Gateways
    up_s: float = 86_400.0  # that gateways said last; it rises faster than time, so that lines can be told apart

    async def run(self, seconds: float) -> None:
        """Let time pass, a look each period. Gateways say what they are asked right before it."""
        for _ in range(round(seconds / PERIOD_S)):
            await self.say()
            await self.world.run(PERIOD_S)

    async def say(self) -> None:
        """Let every gateway that speaks say what it is asked, and be heard."""
        self.up_s += 20.0 * PERIOD_S
        for port in self.ports.values():
            port.up_s = self.up_s
            for model in port.models.values():
                if model["idle_s"] is not None:
                    busy = model["held"] or model["running"]
                    model["idle_s"] = 0.0 if busy else model["idle_s"] + PERIOD_S
            await port.send(port.line())
        self.world.rig.bring()
        self.world.autoscaler.measured()
        self.world.autoscaler.listen()
        speaking = [pod for pod, port in self.ports.items() if not port.is_silent and port.status == 200]
        pods = {name: self.world.fake.get("pods", name)["status"] for name in self.world.fake.names("pods")}
        there = {name for name, status in pods.items() if name in speaking and status.get("podIP")}
        await until(lambda: there <= self.known())

    def known(self) -> set[str]:
        """Return the gateways of which the newest line was taken."""
        found = self.asked().gateways
        return {each.name for each in found if each.said is not None and each.said.up_s >= self.up_s}

    def asked(self) -> Asked:
        return self.world.autoscaler._asked(NAME)

    def ask(self, pod: str = "chat-gateway-0x", **said: Any) -> None:
        next(iter(self.ports[pod].models.values())).update(said)

    @property
    def replicas(self) -> int:
        return self.world.replicas

    @property
    def limited_by(self) -> str | None:
        found: str | None = self.world.status["scaling"].get("limitedBy")
        return found


@contextlib.asynccontextmanager
async def a_zero_world(**spec: Any) -> AsyncIterator[ZeroWorld]:
    """Yield a deployment that may have no group, and has one that serves."""

    def prepare(fake: FakeKubernetes) -> None:
        fake.pod_ip = lambda pod: HOSTS.get(pod, "10.0.0.1")
        fake.put("glmdeployments", a_deployment_body(**{"replicas": 1, "scaling": MAY_BE_ZERO, **FRONT, **spec}))

    async with contextlib.AsyncExitStack() as stack:
        ports = {pod: GatewayPort() for pod in HOSTS}
        first = await stack.enter_async_context(serving(ports["chat-gateway-0x"], HOSTS["chat-gateway-0x"]))
        for pod in (*HOSTS,)[1:]:
            await stack.enter_async_context(serving(ports[pod], HOSTS[pod], first.port))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(names, "MANAGEMENT_PORT", first.port)
            rig = await stack.enter_async_context(a_rig(prepare))
            gateways = Gateways(clock=lambda: rig.now.timestamp())
            stack.push_async_callback(gateways.close)
            world = World(rig, gateways=gateways)
            await world.start()
            yield ZeroWorld(world, ports, gateways)


@pytest.fixture
async def zero() -> AsyncIterator[ZeroWorld]:
    async with a_zero_world() as made:
        yield made


async def to_zero(zero: ZeroWorld) -> None:
    await zero.run(2 * IDLE_AFTER_S)
    assert zero.replicas == 0


async def test_nobody_asks_and_the_last_group_goes_and_a_held_request_brings_one(zero: ZeroWorld) -> None:
    world = zero.world
    await zero.run(IDLE_AFTER_S)
    assert zero.replicas == 1
    await zero.run(30)
    assert zero.replicas == 0
    assert world.serving() == []
    assert world.condition("ScalingActive") == ("True", "ScalingByLoad")
    assert world.status["scaling"]["history"][0]["reason"] == "Idle"

    zero.ask(held=1, idle_s=0.0)
    await zero.run(PERIOD_S)
    assert zero.replicas == 1
    assert world.serving() == ["chat-g0"]
    zero.ask(held=0, running=1)
    await zero.run(10 * IDLE_AFTER_S)
    assert zero.replicas == 1

    zero.ask(running=0)
    await zero.run(IDLE_AFTER_S - PERIOD_S)
    assert zero.replicas == 1
    await zero.run(3 * PERIOD_S)
    assert zero.replicas == 0
    assert world.history() == [(1, 0, "Idle"), (0, 1, "Woken"), (1, 0, "Idle")]
    told = [reason for reason, _ in world.events("Woken", "ScaledUp", "ScaledDown", "ScaledByHand")]
    assert told == ["ScaledDown", "Woken", "ScaledDown"]


async def test_the_status_says_what_gateways_say(zero: ZeroWorld) -> None:
    await to_zero(zero)
    zero.ask(held=3, oldest_s=0.5, idle_s=0.0)
    await zero.run(PERIOD_S)
    signals = {each["name"]: each for each in zero.world.status["scaling"]["signals"]}
    assert signals["held at gateways, requests"]["value"] == "3"
    assert signals["without a request, s"]["state"] == "Value"
    assert zero.world.status["scaling"]["lastScale"].startswith("0 -> 1: 3 requests are held at gateways")


async def test_a_deployment_at_zero_is_written_by_nobody(zero: ZeroWorld) -> None:
    await to_zero(zero)
    await zero.run(120)
    writes, reads, sources = len(zero.world.fake.writes), zero.world.rig.reads, zero.world.fleet.num_reads
    await zero.run(600)
    assert zero.world.fake.writes[writes:] == []
    assert (zero.world.rig.reads, zero.world.fleet.num_reads) == (reads, sources)


async def test_one_gateway_that_is_silent_keeps_the_last_group_and_is_named(zero: ZeroWorld) -> None:
    await zero.run(10)
    zero.ports["chat-gateway-1x"].is_silent = True
    await zero.run(10 * IDLE_AFTER_S)
    assert (zero.replicas, zero.limited_by) == (1, "GatewayUnknown")
    status, reason, message = zero.world.rig.condition("ScalingActive")
    assert (status, reason) == ("True", "DemandUnknown")
    assert "chat-gateway-1x does not say what it is asked" in message
    zero.ports["chat-gateway-1x"].is_silent = False
    await zero.run(2 * IDLE_AFTER_S)
    assert zero.replicas == 0


async def test_what_is_held_at_the_other_gateway_wakes_as_well(zero: ZeroWorld) -> None:
    await to_zero(zero)
    zero.ask("chat-gateway-1x", held=1, idle_s=0.0)
    await zero.run(PERIOD_S)
    assert zero.replicas == 1


async def test_without_a_gateway_min_counts_as_one() -> None:
    async with a_zero_world() as zero:
        for pod in ("chat-gateway-0x", "chat-gateway-1x"):
            zero.world.fake.edit("pods", pod, lambda item: item["status"].pop("podIP"))
        await zero.run(10 * IDLE_AFTER_S)
        assert (zero.replicas, zero.limited_by) == (1, "NoGateway")
        assert zero.world.condition("ScalingActive") == ("True", "DemandUnknown")
        zero.world.edit(replicas=0)
        await zero.run(DEAF_S + 2 * PERIOD_S)
        assert zero.replicas == 1


async def test_a_gateway_pod_that_has_ended_is_none_that_is_silent(zero: ZeroWorld) -> None:
    def evicted(pod: dict[str, Any]) -> None:
        pod["status"] |= {"phase": "Failed", "reason": "Evicted"}

    zero.world.fake.edit("pods", "chat-gateway-1x", evicted)
    zero.ports["chat-gateway-1x"].status = 503
    await to_zero(zero)


async def test_a_start_that_fails_is_not_repeated(zero: ZeroWorld) -> None:
    await to_zero(zero)
    zero.world.edit(engine={"image": "missing:1"})
    await zero.run(10)
    zero.ask(held=1, idle_s=0.0)
    await zero.run(30)
    zero.ask(held=0)
    await zero.run(30 * IDLE_AFTER_S)
    assert zero.replicas == 1
    assert zero.world.history()[-1] == (0, 1, "Woken")


async def test_0_that_a_person_has_set_is_woken(zero: ZeroWorld) -> None:
    zero.ask(running=1, idle_s=0.0)
    await zero.run(30)
    zero.ask(running=0)
    zero.world.edit(replicas=0)
    await zero.run(30)
    assert zero.replicas == 0
    zero.ask(held=1)
    await zero.run(PERIOD_S)
    assert zero.replicas == 1


@pytest.mark.parametrize("mode", ["Disabled", "External"])
async def test_0_stays_where_somebody_else_scales(mode: str) -> None:
    async with a_zero_world(scaling={"mode": mode}, replicas=0) as zero:
        zero.ask(held=1, idle_s=0.0)
        await zero.world.run(120)
        assert zero.replicas == 0


async def test_0_stays_where_min_is_one() -> None:
    async with a_zero_world(scaling=SCALING, replicas=0) as zero:
        zero.ask(held=1, idle_s=0.0)
        await zero.world.run(120)
        assert zero.replicas == 0
        assert zero.world.condition("ScalingActive") == ("False", "ScaledToZero")


async def test_observing_sets_nothing_and_says_what_it_would_do() -> None:
    async with a_zero_world(scaling={**MAY_BE_ZERO, "mode": "Observe"}) as zero:
        await zero.run(3 * IDLE_AFTER_S)
        assert zero.replicas == 1
        assert zero.world.history() == [(1, 0, "Idle")]


async def test_a_gateway_of_another_deployment_that_serves_it_as_well_counts(zero: ZeroWorld) -> None:
    also = {"replicas": 1, "alsoServes": {"selector": {"matchLabels": {"team": "chat"}}}}
    other = a_deployment_body("other", replicas=1, **{**FRONT, "gateway": also})
    other["spec"]["model"] = {**other["spec"]["model"], "servedName": "another"}
    zero.world.fake.put("glmdeployments", other)
    zero.world.fake.edit("glmdeployments", "chat", lambda body: body["metadata"].update(labels={"team": "chat"}))
    await zero.world.rig.settle("other")
    zero.ports["other-gateway-0x"].models = {"glm-nano": a_model(), "another": a_model("other")}
    await zero.run(10)
    assert {each.name for each in zero.asked().gateways} == {"chat-gateway-0x", "chat-gateway-1x", "other-gateway-0x"}
    await to_zero(zero)

    zero.ask("other-gateway-0x", held=1, idle_s=0.0)
    await zero.run(PERIOD_S)
    assert zero.replicas == 1


async def test_only_for_who_is_scaled_gateways_are_listened_to(zero: ZeroWorld) -> None:
    await zero.run(10)
    assert all(zero.ports[pod].streams for pod in ("chat-gateway-0x", "chat-gateway-1x"))
    zero.world.edit(scaling={**SCALING, "mode": "Disabled"})
    zero.world.rig.bring()
    zero.world.autoscaler.measured()
    zero.world.autoscaler.listen()
    await until(lambda: not any(port.streams for port in zero.ports.values()))
    assert zero.asked() == Asked()


async def test_a_new_operator_goes_on_where_the_last_one_ended(zero: ZeroWorld) -> None:
    await zero.run(IDLE_AFTER_S)
    await zero.world.start()
    await zero.run(IDLE_AFTER_S)
    assert zero.replicas == 1, "timers begin anew"
    await zero.run(3 * PERIOD_S)
    assert zero.replicas == 0
    await zero.world.start()
    zero.ask(held=1, idle_s=0.0)
    await zero.run(PERIOD_S)
    assert zero.replicas == 1


async def test_at_zero_a_held_request_brings_a_group_within_a_second_of_real_time(zero: ZeroWorld) -> None:
    """The period is 5 s, and looks at others take all places."""
    world = zero.world
    world.autoscaler._slots = asyncio.Semaphore(0)
    await to_zero(zero)
    task = asyncio.create_task(world.autoscaler.run())
    try:
        await until(lambda: zero.asked().is_known)
        await until(lambda: NAME in world.autoscaler._tasks)
        took_s = []
        for _ in range(3):
            await until(lambda: world.autoscaler._is_at_zero(NAME))
            began_s = time.monotonic()
            await zero.ports["chat-gateway-0x"].say(held=1, idle_s=0.0)
            await until(lambda: world.replicas == 1)
            took_s.append(time.monotonic() - began_s)
            await zero.ports["chat-gateway-0x"].say(held=0)
            await until(lambda: zero.asked().held == 0.0)
            world.edit(replicas=0)
            world.rig.bring()
        assert max(took_s) < 1.0, took_s
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_wake_that_is_refused_is_tried_again_soon(zero: ZeroWorld) -> None:
    world, refused = zero.world, 0

    def refuse(what: str) -> None:
        nonlocal refused
        if what.endswith("/scale") and refused < 2:
            refused += 1
            raise Refused(409, "Conflict", "it has changed")

    await to_zero(zero)
    world.fake.before_write = refuse
    task = asyncio.create_task(world.autoscaler.run())
    try:
        await until(lambda: zero.asked().is_known)
        began_s = time.monotonic()
        await zero.ports["chat-gateway-0x"].say(held=1, idle_s=0.0)
        await until(lambda: world.replicas == 1)
        assert refused == 2
        assert time.monotonic() - began_s < 4.0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
