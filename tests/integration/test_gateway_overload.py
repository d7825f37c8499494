"""Under load a gateway takes from thoughts, then from patience, then from the least urgent; and says so to all."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest_asyncio

from glm_edge.frames import Fail
from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.app import Gateway
from glm_gateway.ladder.config import SloConfig
from glm_gateway.ladder.ladder import Rung, Steps
from glm_gateway.models.model import Model
from glm_gateway.routing.arms import Split
from glm_gateway.routing.book import Load
from glm_gateway.routing.config import PriorityConfig
from glm_gateway.routing.priorities import classes_of
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import FRAMES_HEAD, STALL, ScriptedGroup, chunk, closed, opened, said, serving

DEADLINE_S = 30.0
REPLY = [FRAMES_HEAD, opened(), said("hello", 1), closed()]
WAITS = [FRAMES_HEAD, opened(), STALL]
STEPS = Steps(short_thoughts=1.0, no_thoughts=2.0, in_turn=3.0, shed=4.0, calm_s=0.5)
SLO = {
    "classes": [
        {"name": "gold", "header": {"name": "x-tier", "value": "gold"}, "thresholds_s": {"ttft": 0.2}},
        {"name": "all", "thresholds_s": {"ttft": 1000.0}},
    ]
}


@dataclass
class World:
    gateway: Gateway
    model: Model
    group: ScriptedGroup
    http: httpx.AsyncClient

    async def chat(self, model: str = "near", key: str = "alice", **headers: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": True}
        told = {
            "authorization": f"Bearer glm-{key}",
            **{name.replace("_", "-"): each for name, each in headers.items()},
        }
        return await self.http.post("/v1/chat/completions", json=body, headers=told)

    def stand_on(self, rung: Rung) -> None:
        """Climb to a rung, and stay there until there was calm for long."""
        self.model.overload.set_steps(Steps(calm_s=600.0), is_enabled=True)
        self.model.overload.ladder.rung = rung


async def until(is_it: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not is_it():  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    now = datetime.now(UTC)
    keyring = Keyring(
        {
            name: new_key(f"glm-{name}", now, group=group, role=None, expires=None)
            for name, group in (("alice", None), ("bob", "batch"))
        }
    )
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring)
    group = ScriptedGroup("g0", [])
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(group))
        url, gateway = await stack.enter_async_context(a_gateway("near", [member("g0", group.port)], gate=gate))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        model = gateway.models["near"]
        model.slo = SloConfig.model_validate(SLO)
        model.overload.set_steps(STEPS, is_enabled=True)
        gateway.priorities = classes_of([PriorityConfig(name="batch", priority=10, key_groups=("batch",))])
        yield World(gateway, model, group, http)
        model.router.book.check()


async def test_workers_hear_which_model_is_meant_by_whatever_name(world: World) -> None:
    world.gateway.names.splits = {"chat": Split(name="chat", weights={"near": 1.0})}
    world.group.scripts = [REPLY, REPLY]
    for name in ("near", "chat"):
        response = await world.chat(name, x_tier="gold")
        assert "x-glm-overload" not in response.headers
        asked = world.group.asked[-1]
        assert asked.headers["x-glm-model"] == "near"
        assert asked.headers["x-tier"] == "gold"  # its worker knows the same classes
        assert json.loads(asked.body)["model"] == name
        assert "x-glm-max-thinking" not in asked.headers
    models = await world.http.get("/v1/models", headers={"authorization": "Bearer glm-alice"})
    assert [each["id"] for each in models.json()["data"]] == ["chat", "near"]


async def test_a_name_that_is_not_there_is_refused_with_those_that_are(world: World) -> None:
    world.gateway.names.splits = {"chat": Split(name="chat", weights={"near": 1.0})}
    response = await world.chat("other")
    assert response.status_code == 404
    assert "there are: chat, near" in response.json()["error"]["message"]


async def test_a_wait_at_a_group_past_its_promise_makes_thoughts_short_until_it_is_calm(world: World) -> None:
    world.group.scripts = [WAITS, REPLY, REPLY]
    first = asyncio.create_task(world.chat(x_tier="gold"))
    await until(lambda: world.group.asked)
    world.model.hear("g0", Load(oldest_wait_s=1000.0), asyncio.get_running_loop().time())
    await until(lambda: world.model.overload.rung >= Rung.SHORT_THOUGHTS)
    eased = await world.chat()
    headers = world.group.asked[-1].headers
    assert headers["x-glm-max-thinking"] == "512"
    assert eased.headers["x-glm-overload"] in {rung.word for rung in Rung if rung}
    first.cancel()
    await asyncio.wait([first])
    await until(lambda: world.model.overload.rung is Rung.NONE)  # nobody comes, and it is left all the same
    assert "x-glm-overload" not in (await world.chat()).headers


async def test_in_turn_requests_wait_here_and_the_more_urgent_go_first(world: World) -> None:
    world.stand_on(Rung.IN_TURN)
    world.model.hear_running("g0", 1)
    world.group.scripts = [WAITS, REPLY, REPLY]
    first = asyncio.create_task(world.chat())
    await until(lambda: world.group.asked)
    batch = asyncio.create_task(world.chat(key="bob"))
    await until(lambda: world.model.demand.num_held == 1)
    urgent = asyncio.create_task(world.chat())
    await until(lambda: world.model.demand.num_held == 2)
    assert len(world.group.asked) == 1
    first.cancel()
    response = await urgent
    assert response.headers["x-glm-overload"] == "in-turn"
    assert dict(world.group.asked[1].headers)["x-glm-auto-thinking"] == "off"
    await batch
    tenants = [asked.headers["x-glm-tenant"] for asked in world.group.asked]
    assert tenants[0] == tenants[1] != tenants[2]


async def test_on_the_last_rung_the_least_urgent_is_told_when_to_come_again(world: World) -> None:
    world.stand_on(Rung.SHED)
    world.model.hear_running("g0", 1)
    world.group.scripts = [WAITS, REPLY]
    first = asyncio.create_task(world.chat())
    await until(lambda: world.group.asked)
    batch = asyncio.create_task(world.chat(key="bob"))
    await until(lambda: world.model.demand.num_held == 1)
    refused = await world.chat(key="bob")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["x-glm-overload"] == "shed"
    assert int(refused.headers["retry-after"]) >= 1
    urgent = asyncio.create_task(world.chat())
    assert (await batch).status_code == 503  # gives way to who is ahead of it
    told = world.gateway.telemetry.exposition()
    assert b'glm_gateway_overload_rung{model="near"} 4.0' in told
    assert b'glm_gateway_shed_total{model="near",priority_class="batch"} 2.0' in told
    first.cancel()
    assert (await urgent).status_code == 200


async def test_each_api_tells_it_in_its_own_words(world: World) -> None:
    world.stand_on(Rung.SHED)
    world.model.hear_running("g0", 1)
    world.group.scripts = [WAITS]
    waiting = [asyncio.create_task(world.chat())]
    await until(lambda: world.group.asked)
    waiting.append(asyncio.create_task(world.chat()))
    await until(lambda: world.model.demand.num_held == 1)
    body = {"model": "near", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    headers = {"authorization": "Bearer glm-bob"}
    of_anthropic = await world.http.post("/v1/messages", json=body, headers=headers)
    assert (of_anthropic.status_code, of_anthropic.json()["error"]["type"]) == (529, "overloaded_error")
    of_zai = await world.http.post("/api/paas/v4/chat/completions", json=body, headers=headers)
    assert (of_zai.status_code, of_zai.json()["error"]["code"]) == (503, "1305")
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)


async def test_a_reply_that_another_group_goes_on_with_is_eased_as_it_began(world: World) -> None:
    world.stand_on(Rung.SHORT_THOUGHTS)
    lost = chunk(Fail(status=503, message="x", type="t", code="generation_lost", can_continue=True))
    world.group.scripts = [
        [FRAMES_HEAD, opened(), said("one", 1), lost],
        [FRAMES_HEAD, opened(), said("two", 2), closed()],
    ]
    asked = asyncio.create_task(world.chat())
    await until(lambda: world.group.asked)
    world.model.overload.ladder.rung = Rung.NONE
    assert "data: two" in (await asked).text
    first, second = world.group.asked
    assert first.headers["x-glm-max-thinking"] == second.headers["x-glm-max-thinking"] == "512"
    assert second.continuation is not None
