"""A prompt that has more tokens than its bytes told is reserved whole before a word is answered; a context is kept."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_edge.frames import Open
from glm_gateway.admission.metering import Metering
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.limits.reserve import Granted, Refusal, Scope
from glm_gateway.limits.store import Store
from glm_gateway.limits.tokens import Usage
from glm_gateway.limits.valkey.store import ValkeyStore
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import (
    DIE,
    FRAMES_HEAD,
    STREAM_HEADERS,
    ScriptedGroup,
    chunk,
    said,
    serving,
)
from integration.server_world import DEADLINE_S, MODEL
from integration.test_gateway_limits import World, refused, world
from integration.valkey_world import Valkey

__all__ = ["world"]  # the fixture

DENSE = "1 2 3 4 5 " * 190
"""1,900 tokens in 1,900 bytes: four times what is reserved for it at first."""


@pytest_asyncio.fixture(params=["memory", "valkey"])
async def store(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Store]:
    """Have the gateway count in one of the stores."""
    if request.param == "memory":
        yield world.gateway.metering.store
        return
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        server = Valkey(Path(folder))
        server.begin()
        await server.until_ready()
        found = ValkeyStore(server.client(), prefix="p", timeout_s=5.0, clock=world.clock)
        world.gateway.metering.store = found
        yield found
        await found.close()
        server.end()


@pytest.mark.parametrize("budget", [{"tokens": 20_000}, {"money": "0.02"}])
async def test_dense_prompts_at_once_do_not_pass_a_budget(
    world: World,
    store: Store,
    budget: dict[str, Any],
) -> None:
    world.limit(keys={"alice": {"monthlyBudget": budget}}, prices={"prompt": "1", "answer": "1"})
    replies = await asyncio.gather(*(world.ask(5, prompt=DENSE) for _ in range(20)))
    used = [reply.json()["usage"]["total_tokens"] for reply in replies if reply.status_code == 200]
    assert {reply.status_code for reply in replies} == {200, 429}
    assert 0 < sum(used) <= 20_000
    counters = await world.counters()
    assert (counters.spent, counters.num_running) == (sum(used) * (1 if "tokens" in budget else 10**6), 0)


async def test_dense_prompts_at_once_keep_to_prompts_a_minute(world: World, store: Store) -> None:
    world.limit(keys={"alice": {"promptTokensPerMinute": 6000, "concurrency": 20, "requestsPerMinute": 30}})
    replies = await asyncio.gather(*(world.ask(5, prompt=DENSE) for _ in range(9)))
    used = [reply.json()["usage"]["prompt_tokens"] for reply in replies if reply.status_code == 200]
    assert {reply.status_code for reply in replies} == {200, 429}
    assert sum(used) <= 6000
    assert await world.level("prompt_tokens") == 6000 - sum(used)
    assert await world.level("requests") == 30 - len(used)
    assert (await world.counters()).num_running == 0


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions"])
async def test_who_is_refused_at_the_opening_is_told_as_at_the_door(
    world: World,
    path: str,
    streams: bool,
) -> None:
    """And holds nothing any more; its answer is not written."""
    world.limit(keys={"alice": {"promptTokensPerMinute": 1000, "monthlyBudget": {"tokens": 100_000}}})
    body = {"model": MODEL, "max_tokens": 50, "stream": streams, "messages": [{"role": "user", "content": DENSE}]}
    world.writer.is_open.clear()
    response = await world.http.post(path, json=body, headers={"x-api-key": "glm-alice"})
    assert response.status_code == 429
    error = response.json()["error"]
    assert error["type"] == ("rate_limit_error" if path == "/v1/messages" else "tokens")
    assert "may use 1000 prompt tokens a minute" in error["message"]
    assert "1000 are left; it never fits" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    remaining = (
        "anthropic-ratelimit-input-tokens-remaining" if path == "/v1/messages" else "x-ratelimit-remaining-tokens"
    )
    assert response.headers[remaining] == "1000"
    assert len(response.headers.get_list(remaining)) == 1
    counters = await world.counters()
    assert (counters.spent, counters.num_running, await world.level("prompt_tokens")) == (0, 0, 1000)
    counted = world.gateway.telemetry.exposition().decode()
    assert 'glm_gateway_limit_refusals_total{key="alice",limit="prompt_tokens",shadow="false"} 1.0' in counted


async def test_a_dense_prompt_in_the_shadow_is_let_in_and_counted_once(world: World) -> None:
    world.limit(keys={"alice": {"promptTokensPerMinute": 1000, "monthlyBudget": {"tokens": 400}, "shadow": True}})
    reply = await world.ask(5, prompt=DENSE)
    assert reply.status_code == 200
    assert (await world.counters()).spent == reply.json()["usage"]["total_tokens"]
    counted = world.gateway.telemetry.exposition().decode()
    for limit in ("prompt_tokens", "budget"):
        assert f'glm_gateway_limit_refusals_total{{key="alice",limit="{limit}",shadow="true"}} 1.0' in counted


def opened(num_prompt_tokens: int) -> bytes:
    return chunk(
        Open(
            id="c1",
            created=7,
            seeds=[0],
            status=200,
            headers=list(STREAM_HEADERS),
            num_prompt_tokens=num_prompt_tokens,
            fingerprint="f",
        )
    )


class Noted(MemoryStore):
    """Notes what is reserved."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved: list[Usage] = []

    async def reserve(self, scopes: Sequence[Scope], usage: Usage, now: float) -> Granted | Refusal:
        self.reserved.append(usage)
        self.scopes = scopes
        return await super().reserve(scopes, usage, now)


async def test_a_reply_that_another_group_goes_on_with_is_reserved_once() -> None:
    store = Noted()
    metering = Metering(
        quotas=QuotasConfig.model_validate({"default": {"monthlyBudget": {"tokens": 1000}}}), store=store
    )
    groups = [ScriptedGroup(name, [[FRAMES_HEAD, opened(500), said("one", 1), DIE]]) for name in ("g0", "g1")]
    body = {"model": MODEL, "prompt": "1", "stream": True, "max_tokens": 100}
    async with (
        serving(*groups),
        a_gateway(MODEL, [member(each.name, each.port) for each in groups], metering=metering) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as http,
    ):
        assert (await http.post("/v1/completions", json=body)).status_code == 200
        assert [len(group.asked) for group in groups] == [1, 1]
        first, more = store.reserved
        assert first.prompt + more.prompt == 500
        assert more.total == more.prompt
        (counters,) = (await store.counters(store.scopes)).values()
        assert (counters.spent, counters.num_running) == (502, 0)


async def test_an_answer_without_max_tokens_ends_at_the_context_of_its_key(world: World) -> None:
    world.limit(keys={"alice": {"contextTokens": 300}})
    asked: list[tuple[int | None, dict[str, Any]]] = [
        (None, {}),
        (None, {"n": 3}),
        (None, {"prompt": ["1 2 3", "4"]}),
        (260, {"prompt": "1 2 3 4 5 " * 8}),
    ]
    for max_tokens, fields in asked:
        response = await world.ask(max_tokens, **fields)
        assert response.status_code == 200, response.text
        assert 290 < response.json()["usage"]["total_tokens"] <= 300
        assert {each["finish_reason"] for each in response.json()["choices"]} == {"length"}
    assert (await world.ask(None, key="bob")).json()["usage"]["total_tokens"] > 300


async def test_a_prompt_that_alone_is_beyond_the_context_is_refused(world: World) -> None:
    world.limit(keys={"alice": {"contextTokens": 300}})
    response = await world.ask(5, prompt="1 2 3 4 5 " * 90)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "300 tokens" in response.json()["error"]["message"]
    message = refused(await world.ask(None, prompt="1 2 3 4 5 " * 200), "context_length_exceeded", after_ms=None)
    assert "300 tokens" in message


async def test_a_context_in_the_shadow_cuts_nothing(world: World) -> None:
    world.limit(keys={"alice": {"contextTokens": 300, "shadow": True}})
    assert (await world.ask(None)).json()["usage"]["total_tokens"] > 300
