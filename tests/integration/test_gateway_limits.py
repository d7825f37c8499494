"""Limits hold to the token and to the millisecond, before a real server, by a clock of the test."""

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
import pytest
import pytest_asyncio

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.counters import Counters
from glm_gateway.limits.limit import Measure
from glm_gateway.limits.memory import MemoryStore
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import FRAMES_HEAD, STALL, STREAM_HEADERS, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S, MODEL, a_server
from integration.writing_engine import Writer, writing

MID_MONTH = datetime(2026, 11, 15, 12, tzinfo=UTC).timestamp()
NEXT_MONTH = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
THOUGHT = "\n<think>It is cold.</think>\nYes."
KEYS = {"alice": "research", "bob": "research", "carol": None}


@dataclass
class Clock:
    now: float = MID_MONTH

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    gateway: Gateway
    writer: Writer
    clock: Clock
    http: httpx.AsyncClient

    def limit(self, **quotas: Any) -> None:
        """Say other limits, as a new file does."""
        self.gateway.metering.quotas = QuotasConfig.model_validate(quotas)

    async def ask(self, max_tokens: int | None = None, *, key: str = "alice", **fields: Any) -> httpx.Response:
        body = body_of(max_tokens, **fields)
        return await self.http.post("/v1/completions", content=body, headers={"authorization": f"Bearer glm-{key}"})

    async def held(self, max_tokens: int | None = None, **fields: Any) -> "asyncio.Task[httpx.Response]":
        """Ask, and return once the engine has it: what it may use is reserved, and it does not end yet."""
        self.writer.is_open.clear()
        num_asked = len(self.writer.asked) + self.writer.engine.submitted.qsize()
        asking = asyncio.create_task(self.ask(max_tokens, **fields))
        async with asyncio.timeout(DEADLINE_S):
            while len(self.writer.asked) + self.writer.engine.submitted.qsize() == num_asked:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return asking

    async def ended(self, asking: "asyncio.Task[httpx.Response]") -> httpx.Response:
        self.writer.is_open.set()
        return await asyncio.wait_for(asking, DEADLINE_S)

    async def counters(self, name: str = "key alice") -> Counters:
        scopes = self.gateway.metering.quotas.scopes("alice", "research", MODEL)
        return (await self.gateway.metering.store.counters(scopes))[name]

    async def level(self, measure: str) -> float:
        """Return what alice may use at once. Moments have a quarter of a microsecond: a thousandth of a token."""
        return round((await self.counters()).buckets[Measure(measure)].level, 3)


def body_of(max_tokens: int | None = None, **fields: Any) -> bytes:
    own = {} if max_tokens is None else {"max_tokens": max_tokens}
    return json.dumps({"model": MODEL, "prompt": "1 2 3", **own, **fields}).encode()


def prompt_of(num_tokens: int) -> str:
    """Return a prompt that is expected to have as many tokens before any is counted: one for four bytes of a body.

    It has fewer: a control character is one token, and six bytes of JSON. Its last character is one byte.
    """
    room = num_tokens * 4 - len(body_of(1, prompt=""))
    assert room > 0
    num_controls, num_plain = divmod(room - 1, 6)
    return "\x01" * num_controls + "x" * (num_plain + 1)


def refused(response: httpx.Response, code: str, *, after_ms: int | None) -> str:
    """Check a refusal: its code, and the wait that it tells; None: it is told not to come again by itself."""
    error = response.json()["error"]
    assert error["code"] == code
    assert response.status_code == (400 if code == "context_length_exceeded" else 429)
    if after_ms is None:
        assert response.headers["x-should-retry"] == "false"
        assert "retry-after-ms" not in response.headers
        assert "retry-after" not in response.headers
    else:
        assert int(response.headers["retry-after-ms"]) == after_ms
        assert int(response.headers["retry-after"]) == math.ceil(after_ms / 1000)
        assert ("x-should-retry" in response.headers) == (after_ms > 60_000)
    return str(error["message"])


def left(response: httpx.Response, what: str = "tokens") -> int:
    return int(response.headers[f"x-ratelimit-remaining-{what}"])


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    now = datetime.fromtimestamp(clock.now, UTC)
    keyring = Keyring(
        {name: new_key(f"glm-{name}", now, group=group, role=None, expires=None) for name, group in KEYS.items()}
    )
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring)
    metering = Metering(store=MemoryStore(), clock=clock)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_server(tmp_path, gateway_token=TOKEN, group="chat-g0"))
        writer = await stack.enter_async_context(writing(await server.serve()))
        url, gateway = await stack.enter_async_context(
            a_gateway(MODEL, [member("chat-g0", server.port)], gate=gate, metering=metering)
        )
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        yield World(gateway, writer, clock, http)


async def test_requests_a_minute_are_counted_one_by_one(world: World) -> None:
    world.limit(keys={"alice": {"requestsPerMinute": 3}})
    assert [left(await world.ask(1), "requests") for _ in range(3)] == [2, 1, 0]
    refused(await world.ask(1), "rate_limit_exceeded", after_ms=20_000)
    world.clock.now += 19.999
    refused(await world.ask(1), "rate_limit_exceeded", after_ms=1)
    world.clock.now += 0.001
    response = await world.ask(1)
    assert (response.status_code, left(response, "requests")) == (200, 0)
    assert response.headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_answer_tokens_a_minute_are_kept_to_the_token_and_the_millisecond(world: World) -> None:
    world.limit(keys={"alice": {"answerTokensPerMinute": 1000}})
    first = await world.held(400)
    refused(await world.ask(601), "rate_limit_exceeded", after_ms=60)
    world.clock.now += 0.059
    refused(await world.ask(601), "rate_limit_exceeded", after_ms=1)
    world.clock.now -= 0.059
    second = await world.held(600)
    third = asyncio.create_task(world.ask(1))
    refused(await third, "rate_limit_exceeded", after_ms=60)
    world.clock.now += 0.060
    last = await world.held(1)
    assert [left(await world.ended(each)) for each in (first, second, last)] == [600, 0, 0]
    assert await world.level("answer_tokens") == 0


async def test_what_was_not_used_is_given_back_to_the_token(world: World) -> None:
    world.limit(keys={"alice": {"answerTokensPerMinute": 1000, "promptTokensPerMinute": 1000}})
    world.writer.text = lambda _: "hello"
    response = await world.ask(900)
    usage = response.json()["usage"]
    expected_prompt = math.ceil(len(body_of(900)) / 4)
    assert left(response) == min(1000 - 900, 1000 - expected_prompt)
    assert await world.level("answer_tokens") == 1000 - usage["completion_tokens"]
    assert await world.level("prompt_tokens") == 1000 - usage["prompt_tokens"]
    again = await world.ask(1000 - usage["completion_tokens"])
    assert (again.status_code, left(again)) == (200, 0)


async def test_prompt_tokens_a_minute_are_kept_to_the_token(world: World) -> None:
    world.limit(keys={"alice": {"promptTokensPerMinute": 600}})
    first = await world.held(1, prompt=prompt_of(250))
    refused(await world.ask(1, prompt=prompt_of(351)), "rate_limit_exceeded", after_ms=100)
    refused(await world.ask(1, prompt=prompt_of(601)), "rate_limit_exceeded", after_ms=None)
    second = await world.held(1, prompt=prompt_of(350))
    assert [left(await world.ended(each)) for each in (first, second)] == [350, 0]


async def test_thinking_tokens_a_minute_are_counted_as_thoughts_were(world: World) -> None:
    """Where thoughts cost more than answers, all that may be written is reserved as thought."""
    world.limit(keys={"alice": {"thinkingTokensPerMinute": 600}}, prices={"answer": "1", "thinking": "2"})
    first = await world.held(200)
    refused(await world.ask(401), "rate_limit_exceeded", after_ms=100)
    second = await world.held(400)
    await asyncio.gather(world.ended(first), world.ended(second))
    assert await world.level("thinking_tokens") == 600
    world.writer.text = lambda _: THOUGHT
    chat = {"messages": [{"role": "user", "content": "hi"}], "model": MODEL, "max_tokens": 50}
    headers = {"authorization": "Bearer glm-alice"}
    response = await world.http.post("/v1/chat/completions", json=chat, headers=headers)
    thought = response.json()["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert thought > 2
    assert await world.level("thinking_tokens") == 600 - thought


async def test_no_more_requests_run_at_once_than_a_key_may_have(world: World) -> None:
    world.limit(keys={"alice": {"concurrency": 2}})
    running = [await world.held(1), await world.held(1)]
    refused(await world.ask(1), "rate_limit_exceeded", after_ms=1000)
    refused(await world.ask(1), "rate_limit_exceeded", after_ms=1000)
    assert [(await world.ended(each)).status_code for each in running] == [200, 200]
    assert (await world.ask(1)).status_code == 200
    assert (await world.counters()).num_running == 0


@pytest.mark.parametrize("streams", [True, False])
async def test_who_has_read_the_end_of_a_reply_may_ask_again_at_once(streams: bool) -> None:
    """Also where the group leaves its connection open behind the end: nothing runs any more."""
    headers = STREAM_HEADERS if streams else [("content-type", "application/json")]
    reply = [FRAMES_HEAD, opened(headers=headers), said("one", 1), closed(b"{}").removesuffix(b"0\r\n\r\n"), STALL]
    metering = Metering(quotas=QuotasConfig.model_validate({"default": {"concurrency": 1}}))
    group = ScriptedGroup("g0", [reply] * 5)
    async with (
        serving(group),
        a_gateway(MODEL, [member("g0", group.port)], metering=metering) as (url, _),
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as http,
    ):
        body = {"model": MODEL, "prompt": "1", "stream": streams}
        assert [(await http.post("/v1/completions", json=body)).status_code for _ in range(5)] == [200] * 5


async def test_a_context_is_kept_to_the_token(world: World) -> None:
    world.limit(keys={"alice": {"contextTokens": 300}})
    assert (await world.ask(50, prompt=prompt_of(250)[:-1])).status_code == 200
    message = refused(await world.ask(51, prompt=prompt_of(250)[:-1]), "context_length_exceeded", after_ms=None)
    assert "300 tokens" in message
    assert "asks for 301" in message


async def test_a_budget_of_tokens_is_spent_to_the_last_one_and_comes_back_with_the_month(world: World) -> None:
    world.limit(keys={"alice": {"monthlyBudget": {"tokens": 1000}}})
    first = await world.ask(200)
    spent = first.json()["usage"]["total_tokens"]
    assert (await world.counters()).spent == spent
    expected_prompt = math.ceil(len(body_of(200)) / 4)
    most = 1000 - spent - expected_prompt
    wait_ms = round((NEXT_MONTH - MID_MONTH) * 1000)
    message = refused(await world.ask(most + 1), "insufficient_quota", after_ms=wait_ms)
    assert f"{1000 - spent} tokens are left" in message
    assert (await world.ask(most)).status_code == 200
    world.clock.now = NEXT_MONTH - 0.001
    refused(await world.ask(900), "insufficient_quota", after_ms=1)
    world.clock.now = NEXT_MONTH
    assert (await world.ask(900)).status_code == 200


@pytest.mark.parametrize("prompt", [["a"] * 8, [[5, 6]] * 8])
async def test_a_list_of_prompts_is_reserved_for_as_many_answers(world: World, prompt: Any) -> None:
    expected_prompt = math.ceil(len(body_of(500, prompt=prompt)) / 4)
    world.limit(keys={"alice": {"monthlyBudget": {"tokens": expected_prompt + 8 * 500}}})
    message = refused(await world.ask(501, prompt=prompt), "insufficient_quota", after_ms=None)
    assert f"may take {expected_prompt + 8 * 501} tokens" in message
    assert (await world.ask(500, prompt=prompt)).status_code == 200


async def test_a_budget_of_money_is_spent_to_the_last_token_that_it_pays(world: World) -> None:
    """A prompt token is 0.000001, one of an answer 0.000003."""
    price = {"prompt": "1", "answer": "3"}
    expected_prompt = math.ceil(len(body_of(100)) / 4)
    most = f"{(expected_prompt + 3 * 100) / 10**6:.6f}"
    world.limit(keys={"alice": {"monthlyBudget": {"money": most}}}, prices=price)
    refused(await world.ask(101), "insufficient_quota", after_ms=None)
    response = await world.ask(100)
    usage = response.json()["usage"]
    assert (await world.counters()).spent == (usage["prompt_tokens"] + 3 * usage["completion_tokens"]) * 10**6


@pytest.mark.parametrize("budget", [{"tokens": 1000}, {"money": "0.001"}])
async def test_twenty_requests_at_once_do_not_pass_a_budget(world: World, budget: dict[str, Any]) -> None:
    world.limit(keys={"alice": {"monthlyBudget": budget}}, prices={"prompt": "1", "answer": "1"})
    each = 100 + math.ceil(len(body_of(100)) / 4)
    replies = await asyncio.gather(*(world.ask(100) for _ in range(20)))
    used = [reply.json()["usage"] for reply in replies if reply.status_code == 200]
    assert len(used) == 1000 // each
    assert {reply.status_code for reply in replies} == {200, 429}
    total = sum(usage["total_tokens"] for usage in used)
    assert total <= 1000
    assert (await world.counters()).spent == total * (1 if "tokens" in budget else 10**6)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "n": 3}),
        ("/v1/completions", {"prompt": ["1 2", "3"], "n": 2}),
        ("/v1/responses", {"input": "hi"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 90}),
    ],
)
async def test_what_is_settled_is_what_the_reply_says_it_used(world: World, path: str, fields: dict[str, Any]) -> None:
    world.limit(keys={"alice": {"monthlyBudget": {"tokens": 100_000}}})
    world.writer.text = lambda _: THOUGHT
    headers = {"x-api-key": "glm-alice"}
    response = await world.http.post(path, json={"model": MODEL, **fields}, headers=headers)
    usage = response.json()["usage"]
    told = usage.get("total_tokens") or usage["input_tokens"] + usage["output_tokens"]
    assert (await world.counters()).spent == told


async def test_the_keys_of_a_group_share_its_limit_beside_their_own(world: World) -> None:
    world.limit(
        groups={"research": {"answerTokensPerMinute": 1000}},
        keys={"alice": {"answerTokensPerMinute": 700}},
    )
    assert (await world.ask(1001, key="carol")).status_code == 200
    first = await world.held(600)
    message = refused(await world.ask(101), "rate_limit_exceeded", after_ms=86)  # 1 of 700 a minute, rounded up
    assert message.startswith("key alice may use 700")
    message = refused(await world.ask(401, key="bob"), "rate_limit_exceeded", after_ms=60)
    assert message.startswith("group research may use 1000")
    second = await world.held(400, key="bob")
    assert [left(await world.ended(each)) for each in (first, second)] == [100, 0]


async def test_a_limit_in_the_shadow_holds_nobody_up_and_is_counted(world: World) -> None:
    world.limit(keys={"alice": {"requestsPerMinute": 1, "contextTokens": 10, "shadow": True}})
    replies = [await world.ask(5) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert not any(name.startswith("x-ratelimit") for name in replies[-1].headers)
    counted = world.gateway.telemetry.exposition().decode()
    assert 'glm_gateway_limit_refusals_total{key="alice",limit="requests",shadow="true"} 2.0' in counted
    assert 'glm_gateway_limit_refusals_total{key="alice",limit="context",shadow="true"} 3.0' in counted


async def test_a_refusal_by_a_limit_is_counted(world: World) -> None:
    world.limit(keys={"alice": {"requestsPerMinute": 0}})
    refused(await world.ask(5), "rate_limit_exceeded", after_ms=None)
    counted = world.gateway.telemetry.exposition().decode()
    assert 'glm_gateway_limit_refusals_total{key="alice",limit="requests",shadow="false"} 1.0' in counted
