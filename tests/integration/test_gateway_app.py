"""Clients of a gateway before real servers: every API passes through, and the death of a group is a pause."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import pytest_asyncio

from glm_gateway.app import Gateway
from glm_gateway.ladder.config import SloClassConfig, SloConfig
from glm_gateway.ladder.ladder import Rung, Steps
from glm_gateway.models.model import Model
from glm_gateway.routing.arms import Split
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

ASK: Any = [{"role": "user", "content": "hi"}]


@dataclass
class World:
    """Two groups behind a gateway. Which one a request went to is found by waiting for either engine."""

    url: str
    gateway: Gateway
    model: Model
    servers: list[ServerWorld]
    engines: list[ScriptedEngine]
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    async def next_request(self, asking: "asyncio.Task[Any] | None" = None) -> tuple[ScriptedEngine, Any]:
        """Return the engine that is asked next, and for what. asking: fails when its reply ends before."""
        asked = [asyncio.create_task(engine.submitted.get()) for engine in self.engines]
        ends = [] if asking is None else [asking]
        async with asyncio.timeout(DEADLINE_S):
            done, _ = await asyncio.wait([*asked, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in asked:
            if task not in done:
                task.cancel()
        if asking in done:
            raise AssertionError(f"the reply ended before an engine was asked: {asking}")
        (task,) = done
        return self.engines[asked.index(task)], task.result()

    async def lose(self, engine: ScriptedEngine) -> None:
        """Let the group of an engine be gone: its ranks die twice, which it cannot mend itself."""
        server = self.servers[self.engines.index(engine)]
        await server.kill(engine)
        again = await server.serve("g-again")
        await server.kill_computing(again)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        servers, engines = [], []
        for name in ("chat-g0", "chat-g1"):
            folder = tmp_path / name
            folder.mkdir()
            servers.append(await stack.enter_async_context(a_server(folder, gateway_token=TOKEN, group=name)))
            engines.append(await servers[-1].serve())
        members = [member(f"chat-g{number}", server.port) for number, server in enumerate(servers)]
        url, gateway = await stack.enter_async_context(a_gateway(MODEL, members))
        model = gateway.models[MODEL]
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        plain: Any = {"api_key": "k", "max_retries": 0, "timeout": DEADLINE_S}
        client = httpx.AsyncClient(verify=NO_TLS)
        of_openai = openai.AsyncOpenAI(base_url=f"{url}/v1", http_client=client, **plain)
        of_anthropic = anthropic.AsyncAnthropic(base_url=url, **plain)
        yield World(url, gateway, model, servers, engines, http, of_openai, of_anthropic)
        await of_openai.close()
        await of_anthropic.close()
        model.router.book.check()
        assert model.router.book.num_charges == 0


async def waiting(model: Model) -> None:
    """Wait until a request waits for a group."""
    async with asyncio.timeout(DEADLINE_S):
        while not model.demand.num_held:  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)


async def test_a_chat_passes_through_whole(world: World) -> None:
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=ASK))
    engine, request = await world.next_request()
    await engine.say(request, "hello", end="<|user|>")
    answer = await asked
    assert answer.choices[0].message.content == "hello"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(request.prompt_token_ids)


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_stream_survives_the_death_of_its_group(world: World, is_lost: bool) -> None:
    stream = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=ASK, stream=True))
    engine, request = await world.next_request()
    await engine.say(request, "one ")
    chunks = await stream
    seen = ""
    async for chunk in chunks:
        seen += chunk.choices[0].delta.content or ""
        if "one" in seen:
            break
    counts = world.gateway.telemetry.exposition()
    assert b'glm_gateway_continuations_total{model="glm-nano",outcome="taken_up"} 0.0' in counts
    if is_lost:
        await world.lose(engine)
        engine, again = await world.next_request()
        assert again.prompt_token_ids == request.prompt_token_ids
        assert again.sampling == request.sampling
        request = again
    await engine.say(request, "two", end="<|user|>")
    seen += "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
    assert seen.split() == ["one", "two"]
    counts = world.gateway.telemetry.exposition()
    assert b'glm_gateway_requests_total{api="openai",model="glm-nano",outcome="finished"} 1.0' in counts
    assert b'glm_gateway_continuations_total{model="glm-nano",outcome="taken_up"} %d.0' % is_lost in counts
    assert b'glm_gateway_continuations_total{model="glm-nano",outcome="given_up"} 0.0' in counts
    assert b'glm_gateway_time_to_first_token_seconds_count{model="glm-nano",slo_class="default"} 1.0' in counts


async def test_a_message_survives_it_as_well(world: World) -> None:
    async with world.anthropic.messages.stream(model=MODEL, messages=ASK, max_tokens=50) as stream:
        engine, request = await world.next_request()
        await engine.say(request, "one ")
        words = stream.text_stream
        seen = await anext(words)
        await world.lose(engine)
        engine, again = await world.next_request()
        await engine.say(again, "two", end="<|user|>")
        seen += "".join([word async for word in words])
        message = await stream.get_final_message()
    assert seen.split() == ["one", "two"]
    assert message.stop_reason == "end_turn"


async def test_a_stored_response_that_another_group_went_on_with_is_found_there(world: World) -> None:
    stream = asyncio.create_task(world.openai.responses.create(model=MODEL, input="hi", store=True, stream=True))
    engine, request = await world.next_request()
    await engine.say(request, "one ")
    events = await stream
    async for event in events:
        if event.type == "response.output_text.delta":
            break
    await world.lose(engine)
    engine, again = await world.next_request()
    await engine.say(again, "two", end="<|user|>")
    (made,) = [event.response async for event in events if event.type == "response.completed"]
    found = await world.openai.responses.retrieve(made.id)
    assert (found.status, found.output_text.split()) == ("completed", ["one", "two"])
    going_on = asyncio.create_task(
        world.openai.responses.create(model=MODEL, input="more", previous_response_id=made.id, store=False)
    )
    third, request = await world.next_request()
    assert third is engine
    await third.say(request, "three", end="<|user|>")
    assert (await going_on).output_text == "three"
    await world.openai.responses.delete(made.id)


async def test_a_stored_response_is_found_at_the_group_that_keeps_it(world: World) -> None:
    asked = asyncio.create_task(world.openai.responses.create(model=MODEL, input="hi", store=True))
    engine, request = await world.next_request()
    await engine.say(request, "hello", end="<|user|>")
    made = await asked
    assert (await world.openai.responses.retrieve(made.id)).output_text == "hello"
    going_on = asyncio.create_task(
        world.openai.responses.create(model=MODEL, input="more", previous_response_id=made.id)
    )
    other, request = await world.next_request()
    assert other is engine
    await other.say(request, "again", end="<|user|>")
    assert (await going_on).output_text == "again"
    await world.openai.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await world.openai.responses.retrieve(made.id)


async def test_an_alias_is_answered_by_the_model_behind_it(world: World) -> None:
    world.gateway.names.splits = {"chat": Split(name="chat", weights={MODEL: 1.0})}
    asked = asyncio.create_task(world.openai.chat.completions.create(model="chat", messages=ASK))
    engine, request = await world.next_request()
    await engine.say(request, "hello", end="<|user|>")
    answer = await asked
    assert (answer.model, answer.choices[0].message.content) == (MODEL, "hello")
    assert (await world.anthropic.messages.count_tokens(model="chat", messages=ASK)).input_tokens > 0
    assert {model.id async for model in world.openai.models.list()} == {"chat", MODEL}
    asked_again = asyncio.create_task(world.openai.responses.create(model="chat", input="hi", store=True))
    engine, request = await world.next_request()
    await engine.say(request, "kept", end="<|user|>")
    made = await asked_again
    going_on = asyncio.create_task(
        world.openai.responses.create(model="chat", input="more", previous_response_id=made.id)
    )
    keeper, request = await world.next_request()
    assert keeper is engine
    await keeper.say(request, "again", end="<|user|>")
    assert (await going_on).output_text == "again"


async def test_workers_heed_the_ladder(world: World) -> None:
    world.model.overload.set_steps(Steps(calm_s=600.0), is_enabled=True)
    world.model.overload.ladder.rung = Rung.NO_THOUGHTS
    for fields, said in (
        ({"thinking": {"type": "enabled"}}, "budget=512"),
        ({"thinking": {"type": "auto", "threshold": 0.0}}, "disabled"),
    ):
        raw = world.openai.chat.completions.with_raw_response
        asked = asyncio.create_task(raw.create(model=MODEL, messages=ASK, extra_body=fields))
        engine, request = await world.next_request()
        await engine.say(request, "hello", end="<|user|>")
        headers = (await asked).headers
        assert said in headers["x-glm-thinking"]
        assert headers["x-glm-overload"] == "no-thoughts"


async def test_a_response_of_a_group_that_is_gone_is_said_to_be_lost(world: World) -> None:
    lost = f"resp_chat-g7_{'0' * 32}"
    with pytest.raises(openai.NotFoundError, match="is no more"):
        await world.openai.responses.retrieve(lost)
    with pytest.raises(openai.NotFoundError, match="is no more"):
        await world.openai.responses.create(model=MODEL, input="x", previous_response_id=lost)


async def test_models_are_listed_in_the_words_of_each_api(world: World) -> None:
    assert [model.id async for model in world.openai.models.list()] == [MODEL]
    assert [model.id async for model in world.anthropic.models.list()] == [MODEL]
    assert (await world.openai.models.retrieve(MODEL)).id == MODEL


async def test_tokens_are_counted_by_a_group(world: World) -> None:
    counted = await world.anthropic.messages.count_tokens(model=MODEL, messages=ASK)
    assert counted.input_tokens > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", "/metrics", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "//v1/chat/completions", 404, "not_found"),
        ("POST", "/v1/%2e%2e/drain", 404, "not_found"),
    ],
)
async def test_what_is_nobodys_reaches_no_group(world: World, method: str, path: str, status: int, code: str) -> None:
    response = await world.http.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert all(engine.submitted.empty() for engine in world.engines)


async def test_a_model_that_is_not_here_is_refused_by_name(world: World) -> None:
    with pytest.raises(openai.NotFoundError, match="there are: glm-nano"):
        await world.openai.chat.completions.create(model="other", messages=ASK)
    with pytest.raises(anthropic.NotFoundError):
        await world.anthropic.messages.create(model="other", messages=ASK, max_tokens=5)


async def test_a_refusal_of_the_worker_comes_in_its_own_words(world: World) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        await world.openai.chat.completions.create(model=MODEL, messages=ASK, temperature=99)


async def test_no_client_is_believed_to_be_a_gateway_or_a_tenant(world: World) -> None:
    headers = {"x-glm-gateway": "forged", "x-glm-frames": "1", "x-glm-tenant": "other", "x-request-id": "mine"}
    body = {"model": MODEL, "prompt": "1", "stream": True}
    asked = asyncio.create_task(world.http.post("/v1/completions", json=body, headers=headers))
    engine, request = await world.next_request()
    await engine.say(request, " 2", end="<|user|>")
    response = await asked
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-request-id"] == "mine"
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_client_that_goes_away_ends_the_work_of_its_group(world: World) -> None:
    body = {"model": MODEL, "prompt": "1", "stream": True}
    async with world.http.stream("POST", "/v1/completions", json=body) as response:
        engine, request = await world.next_request()
        await engine.say(request, " 2")
        await anext(response.aiter_raw())
    assert await engine.next_cancelled() == request.request_id


async def test_requests_wait_for_a_group_and_are_answered_when_one_comes(world: World) -> None:
    members = [member(f"chat-g{number}", server.port) for number, server in enumerate(world.servers)]
    world.model.replace([])
    asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1"))
    await waiting(world.model)
    world.model.replace(members)
    engine, request = await world.next_request()
    await engine.say(request, " 2", end="<|user|>")
    assert (await asked).choices[0].text == " 2"


async def test_what_a_request_was_held_counts_against_its_promise_while_it_is_held(world: World) -> None:
    thresholds: Any = {"ttft": 0.05}
    world.model.slo = SloConfig(
        classes=(
            SloClassConfig(name="deep", thinking="enabled", thresholds_s={"ttfa": 3600}),
            SloClassConfig(name="fast", thinking="disabled", thresholds_s=thresholds),
        )
    )
    members = [member(f"chat-g{number}", server.port) for number, server in enumerate(world.servers)]
    world.model.replace([])
    off: Any = {"thinking": {"type": "disabled"}}
    asked = asyncio.create_task(
        world.openai.chat.completions.create(model=MODEL, messages=ASK, max_tokens=9, extra_body=off)
    )
    await waiting(world.model)
    missed = b'glm_gateway_slo_requests_total{met="false",model="glm-nano",slo_class="fast"} 1.0'
    async with asyncio.timeout(DEADLINE_S):
        while missed not in world.gateway.telemetry.exposition():  # noqa: ASYNC110 - a scrape is what looks
            await asyncio.sleep(0.01)
    world.model.replace(members)
    engine, request = await world.next_request()
    await engine.say(request, "two", end="<|user|>")
    await asked
    told = world.gateway.telemetry.exposition()
    assert missed in told
    assert b'glm_gateway_time_to_first_token_seconds_bucket{le="0.05",model="glm-nano",slo_class="fast"} 0.0' in told
    for time in (b"time_to_first_token", b"time_to_first_answer_token", b"e2e_request_latency"):
        assert b'glm_gateway_%s_seconds_count{model="glm-nano",slo_class="fast"} 1.0' % time in told


async def test_thoughts_and_answer_are_told_apart_at_the_gateway_as_at_the_worker(world: World) -> None:
    deep = SloClassConfig(name="deep", thinking="enabled", thresholds_s={"ttfa": 3600})
    world.model.slo = SloConfig(classes=(deep,))
    on: Any = {"thinking": {"type": "auto", "threshold": 0.0}}
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=ASK, extra_body=on))
    engine, request = await world.next_request()
    await engine.say(request, "\n<think>so be it</think>\nyes", end="<|user|>")
    assert (await asked).choices[0].message.content == "yes"
    told = world.gateway.telemetry.exposition()
    assert b'glm_gateway_time_to_first_answer_token_seconds_count{model="glm-nano",slo_class="deep"} 1.0' in told
    assert b'glm_gateway_slo_requests_total{met="true",model="glm-nano",slo_class="deep"} 1.0' in told
