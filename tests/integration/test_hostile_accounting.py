"""What is billed is what the engine generated: on every surface, in every way that an answer can come or end."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fuzz.server_process import CALL
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import DEADLINE_S, MODEL, TOKENIZER, ScriptedEngine, ServerWorld, a_server, token_ids

Json = dict[str, Any]
pytestmark = pytest.mark.asyncio(loop_scope="module")

END = "<|user|>"
THOUGHT = "<think>It is a sum of two.</think>"
PLAIN = "The answer is 42."
WEATHER: Json = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path_factory.mktemp("server")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


@dataclass(frozen=True)
class Usage:
    prompt: int
    answer: int
    reasoning: int | None  # None: the surface does not tell


@dataclass(frozen=True)
class Surface:
    """How one API is asked, and where it tells what was used."""

    path: str
    body: Json
    tools: Json
    stop: str = "stop"

    def usage(self, text: str, *, stream: bool) -> Usage:
        return _usage(_last_usage(text) if stream else json.loads(text)["usage"])


def _last_usage(text: str) -> Json:
    """Return the last usage in a stream of events: of a chunk, a message or a response."""
    found: Json = {}
    for line in text.split("\n"):
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            for place in (event, event.get("message") or {}, event.get("response") or {}):
                if place.get("usage"):
                    found |= place["usage"]
    return found


def _usage(said: Json) -> Usage:
    details = said.get("completion_tokens_details") or said.get("output_tokens_details") or {}
    reasoning = details.get("reasoning_tokens", details.get("thinking_tokens"))
    if "prompt_tokens" in said:
        assert said["total_tokens"] == said["prompt_tokens"] + said["completion_tokens"]
        return Usage(said["prompt_tokens"], said["completion_tokens"], reasoning)
    if "total_tokens" in said:
        assert said["total_tokens"] == said["input_tokens"] + said["output_tokens"]
    return Usage(said["input_tokens"], said["output_tokens"], reasoning)


_ASK = {"messages": [{"role": "user", "content": "What is 12 + 30?"}]}
_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
_STREAM = {"stream_options": {"include_usage": True}}
SURFACES = {
    "chat": Surface("/v1/chat/completions", {"model": MODEL, **_ASK}, {"tools": [_TOOL]}),
    "zai": Surface("/api/paas/v4/chat/completions", {"model": MODEL, **_ASK}, {"tools": [_TOOL]}),
    "messages": Surface(
        "/v1/messages",
        {"model": MODEL, "max_tokens": 200, **_ASK},
        {"tools": [{"name": "get_weather", "input_schema": WEATHER}]},
        stop="stop_sequences",
    ),
    "responses": Surface(
        "/v1/responses",
        {"model": MODEL, "input": "What is 12 + 30?"},
        {"tools": [{"type": "function", "name": "get_weather", "parameters": WEATHER}]},
    ),
    "completions": Surface("/v1/completions", {"model": MODEL, "prompt": "12 + 30 is"}, {}),
}
CHATS = [name for name in SURFACES if name != "completions"]
WITH_STOPS = [name for name in SURFACES if name != "responses"]


async def asked(world: ServerWorld, surface: Surface, *, stream: bool, **fields: Any) -> "asyncio.Task[httpx.Response]":
    with_usage = _STREAM if stream and surface.path.endswith("completions") else {}
    body = {**surface.body, "stream": stream, **with_usage, **fields}
    return asyncio.create_task(world.http.post(surface.path, json=body))


async def told(answer: "asyncio.Task[httpx.Response]", surface: Surface, *, stream: bool) -> Usage:
    response = await asyncio.wait_for(answer, DEADLINE_S)
    assert response.status_code == 200, response.text
    return surface.usage(response.text, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SURFACES)
async def test_a_whole_answer(world: ServerWorld, engine: ScriptedEngine, name: str, stream: bool) -> None:
    surface = SURFACES[name]
    answer = await asked(world, surface, stream=stream)
    request = await engine.next_request()
    await engine.say(request, THOUGHT + PLAIN, end=END)
    usage = await told(answer, surface, stream=stream)
    assert (usage.prompt, usage.answer) == (len(request.prompt_token_ids), len(token_ids(THOUGHT + PLAIN)) + 1)
    if name != "completions":  # which has no thoughts
        assert usage.reasoning in (None, len(token_ids(THOUGHT)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", SURFACES)
async def test_an_answer_that_ends_at_its_length(
    world: ServerWorld, engine: ScriptedEngine, name: str, stream: bool
) -> None:
    surface = SURFACES[name]
    answer = await asked(world, surface, stream=stream)
    await engine.say(request := await engine.next_request(), PLAIN, finish="length")
    usage = await told(answer, surface, stream=stream)
    assert (usage.prompt, usage.answer) == (len(request.prompt_token_ids), len(token_ids(PLAIN)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", WITH_STOPS)
async def test_an_answer_that_a_stop_string_ends_inside_of_a_token(
    world: ServerWorld, engine: ScriptedEngine, name: str, stream: bool
) -> None:
    surface = SURFACES[name]
    ids = token_ids(PLAIN)
    at = next(n for n, token_id in enumerate(ids) if n and len(_text(token_id)) > 2)
    stop = _text(ids[at])[:-1]  # ends before its token does
    answer = await asked(world, surface, stream=stream, **{surface.stop: [stop]})
    request = await engine.next_request()
    for token_id in ids[: at + 1]:
        await engine.step(RequestOutput(request.request_id, [token_id]))
    usage = await told(answer, surface, stream=stream)
    assert (usage.prompt, usage.answer) == (len(request.prompt_token_ids), at + 1)
    assert await engine.next_cancelled() == request.request_id


def _text(token_id: int) -> str:
    return TOKENIZER.decode([token_id])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CHATS)
async def test_an_answer_with_a_thought_and_two_calls(
    world: ServerWorld, engine: ScriptedEngine, name: str, stream: bool
) -> None:
    surface = SURFACES[name]
    answer = await asked(world, surface, stream=stream, **surface.tools)
    request = await engine.next_request()
    await engine.say(request, THOUGHT + CALL + CALL, end=END)
    usage = await told(answer, surface, stream=stream)
    assert (usage.prompt, usage.answer) == (len(request.prompt_token_ids), len(token_ids(THOUGHT + CALL + CALL)) + 1)
    assert usage.reasoning in (None, len(token_ids(THOUGHT)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["chat", "zai", "completions"])
async def test_several_answers_of_different_lengths(
    world: ServerWorld, engine: ScriptedEngine, name: str, stream: bool
) -> None:
    surface = SURFACES[name]
    answer = await asked(world, surface, stream=stream, n=3)
    requests = [await engine.next_request() for _ in range(3)]
    texts = [PLAIN, THOUGHT + PLAIN, ""]
    for request, text in zip(requests, texts, strict=True):
        await engine.say(request, text, end=END)
    usage = await told(answer, surface, stream=stream)
    generated = sum(len(token_ids(text)) + 1 for text in texts)
    assert (usage.prompt, usage.answer) == (len(requests[0].prompt_token_ids), generated)


@pytest.mark.parametrize("name", CHATS)
async def test_a_thought_that_is_hidden_is_counted_all_the_same(tmp_path: Path, name: str) -> None:
    surface = SURFACES[name]
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        answer = await asked(world, surface, stream=False)
        request = await engine.next_request()
        await engine.say(request, THOUGHT + PLAIN, end=END)
        usage = await told(answer, surface, stream=False)
        assert "sum of two" not in (await answer).text
        assert (usage.prompt, usage.answer) == (len(request.prompt_token_ids), len(token_ids(THOUGHT + PLAIN)) + 1)
        assert usage.reasoning in (None, len(token_ids(THOUGHT)))


@pytest.mark.parametrize("name", SURFACES)
async def test_what_a_client_that_leaves_has_got_is_in_the_metrics(
    world: ServerWorld, engine: ScriptedEngine, name: str
) -> None:
    before = await _generated(world)
    surface = SURFACES[name]
    async with world.http.stream("POST", surface.path, json={**surface.body, "stream": True}) as response:
        request = await engine.next_request()
        await _say_slowly(engine, request, PLAIN)
        assert response.status_code == 200
        told = response.aiter_bytes()  # kept: an iterator that is dropped closes its connection
        assert await anext(told)
        async with asyncio.timeout(DEADLINE_S):  # the server reads what the engine says at its own pace
            while await _generated(world) - before < len(token_ids(PLAIN)):
                pass
    assert await engine.next_cancelled() == request.request_id
    assert await _generated(world) - before == len(token_ids(PLAIN))
    assert await world.value(f'glm_in_flight_tokens{{model="{MODEL}"}}') == 0


async def _say_slowly(engine: ScriptedEngine, request: EngineRequest, text: str) -> None:
    for token_id in token_ids(text):
        await engine.step(RequestOutput(request.request_id, [token_id]))


async def _generated(world: ServerWorld) -> float:
    labels = [f'{{kind="{kind}",model="{MODEL}"}}' for kind in ("reasoning", "answer")]
    return sum([await world.value(f"glm_generation_tokens_total{each}") for each in labels])
