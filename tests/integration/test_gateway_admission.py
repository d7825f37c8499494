"""Who may ask, how much, and what is written down of it, before a real server: to the token."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletion

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Key, Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.memory import MemoryStore
from glm_gateway.usage.config import UsageConfig
from glm_gateway.usage.disk.journal import Journal
from glm_gateway.usage.service import UsageService
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

SECRETS = {"alice": "glm-alice", "bob": "glm-bob"}
ASK: Any = [{"role": "user", "content": "hi"}]
QUOTAS = {
    "keys": {
        "alice": {"requestsPerMinute": 3, "answerTokensPerMinute": 10_000},
        "bob": {"monthlyBudget": {"tokens": 200}},
    },
    "prices": {"prompt": "1", "answer": "2"},
}


@dataclass
class World:
    url: str
    server: ServerWorld
    engine: ScriptedEngine
    usage: UsageService
    folder: Path
    http: httpx.AsyncClient
    clients: dict[str, openai.AsyncOpenAI] = field(default_factory=dict)

    def openai(self, key: str) -> openai.AsyncOpenAI:
        if key not in self.clients:
            self.clients[key] = openai.AsyncOpenAI(
                base_url=f"{self.url}/v1",
                api_key=key,
                max_retries=0,
                timeout=DEADLINE_S,
                http_client=httpx.AsyncClient(verify=NO_TLS),
            )
        return self.clients[key]

    async def answer(self, key: str, text: str = "hello", **fields: Any) -> ChatCompletion:
        """Ask as somebody, and let the engine write a text."""
        asked = asyncio.create_task(self.openai(key).chat.completions.create(model=MODEL, messages=ASK, **fields))
        async with asyncio.timeout(DEADLINE_S):
            request = asyncio.create_task(self.engine.next_request())
            await asyncio.wait({asked, request}, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                await self.engine.say(request.result(), text, end="<|user|>")
            else:
                request.cancel()
            return await asked


def keyring() -> Keyring:
    now = datetime.now(UTC)
    keys: dict[str, Key] = {
        name: new_key(secret, now, group=None, role="developer", expires=None) for name, secret in SECRETS.items()
    }
    return Keyring(keys)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_server(tmp_path, gateway_token=TOKEN, group="chat-g0"))
        engine = await server.serve()
        usage = await UsageService.opened(UsageConfig(folder=tmp_path / "usage"))
        found = keyring()
        gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: found)
        quotas = QuotasConfig.model_validate(QUOTAS)
        metering = Metering(quotas=quotas, store=MemoryStore(usage.spent), usage=usage)
        url, _ = await stack.enter_async_context(
            a_gateway(MODEL, [member("chat-g0", server.port)], gate=gate, metering=metering)
        )
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        found_world = World(url, server, engine, usage, tmp_path / "usage", http)
        yield found_world
        for client in found_world.clients.values():
            await client.close()
        await usage.close()


async def test_who_has_a_key_is_answered_and_told_what_is_left(world: World) -> None:
    asked = asyncio.create_task(
        world.openai("glm-alice").chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=50)
    )
    await world.engine.say(await world.engine.next_request(), "hello", end="<|user|>")
    headers = (await asked).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("3", "2")
    assert headers["x-ratelimit-remaining-tokens"] == "9950"


async def test_who_has_none_is_turned_away_before_the_body_is_read(world: World) -> None:
    with pytest.raises(openai.AuthenticationError):
        await world.openai("glm-nobody").chat.completions.create(model=MODEL, messages=ASK)
    response = await world.http.post("/v1/messages", content=b"no json")
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert world.engine.submitted.empty()


async def test_anthropics_client_brings_its_key_in_its_own_header(world: World) -> None:
    plain: Any = {"api_key": "glm-alice", "max_retries": 0, "timeout": DEADLINE_S}
    async with anthropic.AsyncAnthropic(base_url=world.url, **plain) as client:
        asked = asyncio.create_task(client.messages.create(model=MODEL, messages=ASK, max_tokens=20))
        await world.engine.say(await world.engine.next_request(), "hello", end="<|user|>")
        assert (await asked).stop_reason == "end_turn"


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/ping", 200), ("/version", 200), ("/v1/models", 401)])
async def test_every_path_asks_for_a_key_but_what_tells_nothing(world: World, path: str, status: int) -> None:
    assert (await world.http.get(path)).status_code == status


async def test_a_limit_is_told_with_the_time_to_wait(world: World) -> None:
    for _ in range(3):
        await world.answer("glm-alice")
    with pytest.raises(openai.RateLimitError) as caught:
        await world.answer("glm-alice")
    told = caught.value.response.headers
    assert 0 < int(told["retry-after"]) <= 20
    assert told["x-ratelimit-remaining-requests"] == "0"
    await world.answer("glm-bob", max_tokens=5)  # others are not held up


async def test_a_budget_is_counted_to_the_token_and_never_passed(world: World) -> None:
    answer = await world.answer("glm-bob", max_tokens=60)
    assert answer.usage is not None
    used = answer.usage.total_tokens
    assert answer.usage.completion_tokens == len(token_ids("hello")) + 1
    with pytest.raises(openai.RateLimitError) as caught:
        await world.answer("glm-bob", max_tokens=200)
    assert caught.value.code == "insufficient_quota"
    assert f"{200 - used} tokens are left" in str(caught.value)


async def test_what_was_used_is_told_to_the_owner_of_the_key_and_nobody_else(world: World) -> None:
    answer = await world.answer("glm-alice")
    assert answer.usage is not None
    headers = {"authorization": "Bearer glm-alice"}
    told = (await world.http.get("/v1/usage", headers=headers)).json()
    (row,) = told["data"]
    prompt, written = answer.usage.prompt_tokens, answer.usage.completion_tokens
    assert (row["requests"], row["prompt_tokens"]) == (1, prompt)
    assert row["answer_tokens"] + row["thinking_tokens"] == written
    other = (await world.http.get("/v1/usage", headers={"x-api-key": "glm-bob"})).json()
    assert other["data"] == []


async def test_a_refusal_of_the_worker_leaves_nothing_reserved(world: World) -> None:
    with pytest.raises(openai.BadRequestError):
        await world.answer("glm-alice", temperature=99)
    answer = await world.openai("glm-alice").models.with_raw_response.list()
    assert answer.status_code == 200
    for _ in range(3):
        await world.answer("glm-alice")


async def test_a_client_that_leaves_pays_for_what_was_written(world: World) -> None:
    body = {"model": MODEL, "prompt": "1 2 3", "stream": True}
    headers = {"authorization": "Bearer glm-alice"}
    async with world.http.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        request = await world.engine.next_request()
        await world.engine.say(request, " 4")
        await anext(response.aiter_raw())
    assert await world.engine.next_cancelled() == request.request_id
    await world.usage.close()
    (entry,) = [entry for day in Journal(world.folder).days() for entry in Journal(world.folder).entries(day)]
    assert (entry.outcome, entry.prompt) == ("cancelled", len(request.prompt_token_ids))
    assert entry.answer == len(token_ids(" 4"))


async def test_nobody_reads_or_goes_on_with_what_another_key_has_stored(world: World) -> None:
    alice, bob = world.openai("glm-alice").responses, world.openai("glm-bob").responses
    asked = asyncio.create_task(alice.create(model=MODEL, input="hi", store=True))
    await world.engine.say(await world.engine.next_request(), "secret", end="<|user|>")
    made = await asked
    assert (await alice.retrieve(made.id)).output_text == "secret"
    with pytest.raises(openai.NotFoundError):
        await bob.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await bob.create(model=MODEL, input="more", previous_response_id=made.id, max_output_tokens=20)
    with pytest.raises(openai.NotFoundError):
        await bob.delete(made.id)


async def test_a_response_in_the_background_holds_all_that_it_may_use(world: World) -> None:
    bob = world.openai("glm-bob").responses
    await bob.create(model=MODEL, input="hi", background=True, store=True, max_output_tokens=150)
    with pytest.raises(openai.RateLimitError, match="tokens are left"):
        await bob.create(model=MODEL, input="hi", max_output_tokens=60)
