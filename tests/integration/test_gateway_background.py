"""A response in the background holds what it may use until it has ended, and counts as it was, whoever reads it."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import MAX_CONTEXT, Metering
from glm_gateway.app import Gateway
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.counters import Counters
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, a_server
from integration.writing_engine import Writer, writing

LIMITS = {"keys": {"alice": {"concurrency": 1, "monthlyBudget": {"tokens": 10_000_000}}}}


@dataclass
class World:
    gateway: Gateway
    writer: Writer
    http: httpx.AsyncClient

    async def begin(self, **fields: Any) -> httpx.Response:
        return await self.http.post("/v1/responses", content=body_of(**fields))

    async def counters(self) -> Counters:
        scopes = self.gateway.metering.quotas.scopes("alice", None, MODEL)
        return (await self.gateway.metering.store.counters(scopes))["key alice"]

    async def ended(self) -> Counters:
        """Wait until nothing runs any more."""
        async with asyncio.timeout(DEADLINE_S):
            while (found := await self.counters()).num_running:  # noqa: ASYNC110 - a count tells nobody
                await asyncio.sleep(0.01)
        return found


def body_of(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "input": "hi", "background": True, "store": True, **fields}).encode()


def reserved(max_tokens: int | None = None, **fields: Any) -> int:
    """Return what such a request may use: of a prompt a token for four bytes, and the room of a context beside it."""
    own = {} if max_tokens is None else {"max_output_tokens": max_tokens}
    prompt = math.ceil(len(body_of(**own, **fields)) / 4)
    return MAX_CONTEXT if max_tokens is None else prompt + max_tokens


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    keyring = Keyring({"alice": new_key("glm-alice", datetime.now(UTC), group=None, role=None, expires=None)})
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring)
    metering = Metering(quotas=QuotasConfig.model_validate(LIMITS))
    headers = {"authorization": "Bearer glm-alice"}
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_server(tmp_path, gateway_token=TOKEN, group="chat-g0"))
        writer = await stack.enter_async_context(writing(await server.serve()))
        url, gateway = await stack.enter_async_context(
            a_gateway(MODEL, [member("chat-g0", server.port)], gate=gate, metering=metering)
        )
        http = httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS, headers=headers)
        yield World(gateway, writer, await stack.enter_async_context(http))


async def test_it_holds_its_place_and_the_room_of_a_context_until_it_has_ended(world: World) -> None:
    world.writer.is_open.clear()
    begun = await world.begin()
    assert (begun.status_code, begun.json()["status"]) == (200, "queued")
    counted = await world.counters()
    assert (counted.num_running, counted.spent) == (1, reserved())
    refusal = await world.begin()
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    world.writer.is_open.set()
    counted = await world.ended()
    usage = (await world.http.get(f"/v1/responses/{begun.json()['id']}")).json()["usage"]
    assert counted.spent == usage["total_tokens"] > 1000, "as much as the model has room for"


async def test_what_it_says_that_it_takes_is_what_it_holds(world: World) -> None:
    world.writer.is_open.clear()
    await world.begin(max_output_tokens=50)
    assert (await world.counters()).spent == reserved(50)


async def test_who_has_read_its_end_may_ask_again_at_once(world: World) -> None:
    for _ in range(3):
        begun = await world.begin(max_output_tokens=5)
        assert begun.status_code == 200
        async with asyncio.timeout(DEADLINE_S):
            while not await is_over(world, begun.json()["id"]):  # noqa: ASYNC110 - its client asks again and again
                await asyncio.sleep(0.01)


async def is_over(world: World, response_id: str) -> bool:
    response = await world.http.get(f"/v1/responses/{response_id}")
    return bool(response.json()["status"] == "incomplete")


async def test_one_that_is_cancelled_counts_as_it_came_to_be(world: World) -> None:
    world.writer.is_open.clear()
    begun = (await world.begin()).json()
    cancelled = await world.http.post(f"/v1/responses/{begun['id']}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    counted = await world.counters()
    assert (counted.num_running, counted.spent) == (0, cancelled.json()["usage"]["total_tokens"])


async def test_a_stream_that_its_client_leaves_is_counted_when_it_ends(world: World) -> None:
    world.writer.is_open.clear()
    content = body_of(stream=True, max_output_tokens=50)
    async with world.http.stream("POST", "/v1/responses", content=content) as response:
        await anext(response.aiter_lines())
    async with asyncio.timeout(DEADLINE_S):
        while not len(world.gateway.background):  # noqa: ASYNC110 - a count tells nobody
            await asyncio.sleep(0.01)
    assert (await world.counters()).spent == reserved(50, stream=True)
    world.writer.is_open.set()
    prompt = len(world.writer.asked[0].prompt_token_ids)
    assert (await world.ended()).spent == prompt + 50


async def test_a_stream_that_is_read_to_its_end_is_counted_by_it(world: World) -> None:
    begun = await world.begin(stream=True, max_output_tokens=50)
    assert "response.incomplete" in begun.text
    counted = await world.counters()
    assert (counted.num_running, counted.spent) == (0, len(world.writer.asked[0].prompt_token_ids) + 50)


async def test_one_whose_group_is_gone_counts_as_it_was_reserved(world: World) -> None:
    world.writer.is_open.clear()
    await world.begin(max_output_tokens=50)
    world.gateway.models[MODEL].replace([])
    assert (await world.ended()).spent == reserved(50)


async def test_one_that_has_not_ended_when_the_gateway_does_counts_as_it_was_reserved(world: World) -> None:
    world.writer.is_open.clear()
    await world.begin(max_output_tokens=50)
    await world.gateway.background.close()
    counted = await world.counters()
    assert (counted.num_running, counted.spent) == (0, reserved(50))


async def test_one_that_is_refused_costs_nothing(world: World) -> None:
    assert (await world.begin(store=False)).status_code == 400
    counted = await world.counters()
    assert (counted.num_running, counted.spent) == (0, 0)
