"""Anthropic's messages over real sockets, asked by the anthropic package and by hand. The test is the engine."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
import pytest_asyncio
from pydantic import BaseModel

from glm_worker.request import EngineRequest
from glm_worker.server.flights import exchange
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

USER: list[Any] = [{"role": "user", "content": "What is 1+1?"}]
THOUGHT = "\n<think>1+1=2</think>\nIt is 2."
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = (
    "\n<think>ask</think>\nLet me see.\n"
    '<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bad "Ems"</arg_value>\n</tool_call>'
)


class Sum(BaseModel):
    sum: int


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


@pytest_asyncio.fixture(params=["", "/api/anthropic"])
async def client(world: ServerWorld, request: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The vendor's client, at the root and at Z.ai's path."""
    async with a_client(world, request.param) as client:
        yield client


def a_client(world: ServerWorld, path: str = "") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=f"{world.url}{path}",
        api_key="none",
        max_retries=0,
        timeout=DEADLINE_S,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=NO_TLS),
        _strict_response_validation=True,
    )


async def answered(
    engine: ScriptedEngine, text: str, *, end: str | None = "<|user|>", finish: Any = None
) -> EngineRequest:
    """Answer the next request."""
    request = await engine.next_request()
    await engine.say(request, text, end=end, finish=finish)
    return request


async def asked(
    client: anthropic.AsyncAnthropic,
    engine: ScriptedEngine,
    text: str,
    *,
    stream: bool,
    end: Any = "<|user|>",
    **of: Any,
) -> anthropic.types.Message:
    """Return the message that is answered with this text, whole or put together by the package."""
    fields: Any = {"model": MODEL, "max_tokens": 100, "messages": USER, **of}
    asking = asyncio.create_task(streamed(client, fields) if stream else client.messages.create(**fields))
    await answered(engine, text, end=end, finish=None if end else "length")
    return await asking


async def streamed(client: anthropic.AsyncAnthropic, fields: Any) -> anthropic.types.Message:
    async with client.messages.stream(**fields) as stream:
        return await stream.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_message_has_its_thought_apart_and_exact_usage(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    message = await asked(client, engine, THOUGHT, stream=stream)
    thought, text = message.content
    assert isinstance(thought, anthropic.types.ThinkingBlock)
    assert (thought.thinking, bool(thought.signature)) == ("1+1=2", True)
    assert text.to_dict() == {"type": "text", "text": "It is 2."}
    assert (message.stop_reason, message.stop_sequence, message.model) == ("end_turn", None, MODEL)
    assert message.id.startswith("msg_")
    assert message.usage.output_tokens == len(token_ids(THOUGHT)) + 1
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == len(token_ids("<think>1+1=2</think>"))
    counted = await client.messages.count_tokens(model=MODEL, messages=USER)
    assert message.usage.input_tokens == counted.input_tokens
    assert message.usage.cache_read_input_tokens == 0


async def test_the_stream_is_the_whole_message(client: anthropic.AsyncAnthropic, engine: ScriptedEngine) -> None:
    whole = await asked(client, engine, CALL, stream=False, tools=[WEATHER], end="<|observation|>")
    stream = await asked(client, engine, CALL, stream=True, tools=[WEATHER], end="<|observation|>")
    assert comparable(stream) == comparable(whole)


def comparable(message: anthropic.types.Message) -> dict[str, Any]:
    """Return a message without its own id, and what a package adds where nothing was sent."""
    told = message.to_dict(exclude_none=True)
    return json.loads(json.dumps(told).replace(message.id.removeprefix("msg_"), "ID"))  # type: ignore[no-any-return]


async def test_a_stream_tells_its_beginning_while_the_engine_is_still_at_it(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    opened = asyncio.create_task(client.messages.create(model=MODEL, max_tokens=50, messages=USER, stream=True))
    request = await engine.next_request()
    await engine.say(request, "\n<think>1")
    stream = await opened
    start, block, delta = [await anext(stream) for _ in range(3)]
    assert start.type == "message_start"
    assert start.message.usage.input_tokens == len(request.prompt_token_ids)
    assert (block.type, delta.type) == ("content_block_start", "content_block_delta")
    await engine.say(request, "</think>2", end="<|user|>")
    rest = [event.type async for event in stream]
    assert rest[-2:] == ["message_delta", "message_stop"]


async def test_the_stream_on_the_wire_is_named_events(world: ServerWorld, engine: ScriptedEngine) -> None:
    body = {"model": MODEL, "messages": USER, "max_tokens": 50, "stream": True}
    asking = asyncio.create_task(world.http.post("/v1/messages?beta=true", json=body))
    await answered(engine, "Hi")
    response = await asking
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    for event in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = event.split("\n")
        assert json.loads(data.removeprefix("data: "))["type"] == name.removeprefix("event: ")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_loop_of_tools_ends_with_an_answer(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    first = await asked(client, engine, CALL, stream=stream, tools=[WEATHER], end="<|observation|>")
    assert first.stop_reason == "tool_use"
    assert [block.type for block in first.content] == ["thinking", "text", "tool_use"]
    call = first.content[-1]
    assert isinstance(call, anthropic.types.ToolUseBlock)
    assert (call.name, call.input) == ("get_weather", {"city": 'Bad "Ems"'})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    messages = [*USER, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    fields: Any = {"model": MODEL, "max_tokens": 100, "messages": messages, "tools": [WEATHER]}
    asking = asyncio.create_task(streamed(client, fields) if stream else client.messages.create(**fields))
    request = await answered(engine, "\n<think></think>\nSunny.")
    prompt = token_ids(f"<|assistant|>{CALL}<|observation|>\n<tool_response>\nsunny\n</tool_response><|assistant|>")
    assert request.prompt_token_ids[-len(prompt) :] == prompt
    second = await asking
    assert [block.type for block in second.content] == ["text"]
    assert second.stop_reason == "end_turn"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_packages_own_loop_of_tools_ends_with_an_answer(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    @anthropic.beta_async_tool
    async def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    runner: Any = client.beta.messages.tool_runner(
        model=MODEL, max_tokens=100, messages=USER, tools=[get_weather], stream=stream
    )
    running = asyncio.create_task(runner.until_done())
    await answered(engine, CALL, end="<|observation|>")
    request = await answered(engine, "\n<think></think>\nSunny.")
    result = token_ids('<tool_response>\nsunny in Bad "Ems"\n</tool_response><|assistant|>')
    assert request.prompt_token_ids[-len(result) :] == result
    message = await running
    assert [block.type for block in message.content] == ["text"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_a_type_is_parsed_by_the_package_and_can_be_sent_back(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    fields: Any = {"model": MODEL, "max_tokens": 100, "messages": USER, "output_format": Sum}
    asking = asyncio.create_task(streamed(client, fields) if stream else client.messages.parse(**fields))
    await answered(engine, '\n<think>1+1=2</think>\n{"sum": 2}')
    message: Any = await asking
    assert message.parsed_output == Sum(sum=2)
    messages: Any = [*USER, {"role": "assistant", "content": message.content}, *USER]
    assert (await client.messages.count_tokens(model=MODEL, messages=messages)).input_tokens > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_is_cut_keeps_its_whole_arguments(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    cut = (
        "<tool_call>get_weather\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
        "<arg_key>city</arg_key>\n<arg_value>Bad E"
    )
    message = await asked(client, engine, cut, stream=stream, tools=[WEATHER], end=None)
    (call,) = message.content
    assert isinstance(call, anthropic.types.ToolUseBlock)
    assert (call.input, message.stop_reason) == ({"days": 3}, "max_tokens")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_sequence_is_told(client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool) -> None:
    message = await asked(client, engine, "1, 2, 3, 4", stream=stream, stop_sequences=[", 3", "x"])
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "1, 2"}]
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", ", 3")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_fills_the_context_says_so(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    message = await asked(client, engine, "1", stream=stream, max_tokens=32_000, end=None)
    assert message.stop_reason == "model_context_window_exceeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hidden_thought_leaves_no_block_and_is_counted(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine, stream: bool
) -> None:
    thinking = {"type": "enabled", "budget_tokens": 50, "display": "omitted"}
    message = await asked(client, engine, THOUGHT, stream=stream, thinking=thinking)
    assert [block.type for block in message.content] == ["text"]
    assert message.usage.output_tokens == len(token_ids(THOUGHT)) + 1
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == len(token_ids("<think>1+1=2</think>"))


async def test_thinking_is_told_in_a_header_and_so_is_what_has_no_effect(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    asking = asyncio.create_task(
        client.messages.with_raw_response.create(
            model=MODEL,
            max_tokens=100,
            messages=USER,
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            metadata={"user_id": "u"},
            thinking={"type": "disabled"},
            extra_headers={"anthropic-beta": "prompt-caching-2024-07-31", "x-request-id": "mine"},
        )
    )
    request = await answered(engine, "2")
    assert request.prompt_token_ids[-2:] == token_ids("<think></think>")
    response = await asking
    assert response.headers["x-glm-thinking"] == "disabled; by=request"
    assert response.headers["x-glm-ignored"] == "metadata, cache_control"
    assert response.headers["request-id"] == response.headers["x-request-id"] == "mine"


async def test_the_beginning_of_an_answer_is_continued(
    client: anthropic.AsyncAnthropic, engine: ScriptedEngine
) -> None:
    asking = asyncio.create_task(
        client.messages.create(
            model=MODEL, max_tokens=50, messages=[*USER, {"role": "assistant", "content": "The answer is ("}]
        )
    )
    request = await answered(engine, "2)")
    assert request.prompt_token_ids[-len(token_ids("The answer is (")) :] == token_ids("The answer is (")
    (block,) = (await asking).content
    assert block.to_dict() == {"type": "text", "text": "2)"}


async def test_a_count_admits_nothing(client: anthropic.AsyncAnthropic, world: ServerWorld) -> None:
    """No generation serves: what is counted waits for none."""
    counted = await client.messages.count_tokens(model=MODEL, messages=USER, tools=[WEATHER], system="Be brief.")
    fewer = await client.messages.count_tokens(model=MODEL, messages=USER, thinking={"type": "disabled"})
    assert 0 < fewer.input_tokens < counted.input_tokens
    assert await world.value("vllm:num_requests_waiting") == 0


async def test_mistakes_are_errors_of_the_package(client: anthropic.AsyncAnthropic, engine: ScriptedEngine) -> None:
    with pytest.raises(anthropic.BadRequestError) as bad:
        await client.messages.create(model=MODEL, max_tokens=0, messages=USER)
    assert bad.value.type == "invalid_request_error"
    assert bad.value.api_message is not None
    assert "max_tokens" in bad.value.api_message
    assert isinstance(bad.value.body, dict)
    assert bad.value.body["request_id"] == bad.value.request_id
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="glm-5", max_tokens=5, messages=USER)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]\.type"):
        await client.messages.create(
            model=MODEL,
            max_tokens=5,
            messages=USER,
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
        )
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        await client.messages.create(model=MODEL, max_tokens=5, messages=[{"role": "user", "content": "a b " * 2000}])


async def test_overload_is_529_and_says_when_to_come_back(client: anthropic.AsyncAnthropic, world: ServerWorld) -> None:
    await world.unavailable("two starts in a row failed", 7)
    with pytest.raises(anthropic.OverloadedError) as caught:
        await client.messages.create(model=MODEL, max_tokens=5, messages=USER)
    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.request_id


async def test_a_stream_that_is_lost_twice_ends_with_an_error_event(
    client: anthropic.AsyncAnthropic, world: ServerWorld, engine: ScriptedEngine
) -> None:
    opened = asyncio.create_task(client.messages.create(model=MODEL, max_tokens=50, messages=USER, stream=True))
    request = await engine.next_request()
    await engine.say(request, "1")
    stream = await opened
    assert (await anext(stream)).type == "message_start"
    await world.kill(engine)
    again = await world.serve("g-2")
    await world.kill_computing(again)
    with pytest.raises(anthropic.APIStatusError) as caught:
        async for _ in stream:
            pass
    assert caught.value.type == "api_error"


async def test_a_stream_that_waits_begins_and_pings(
    world: ServerWorld, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "HEADERS_AFTER_S", 0.01)
    monkeypatch.setattr(exchange, "KEEP_ALIVE_S", 0.01)
    body = {"model": MODEL, "messages": USER, "max_tokens": 50, "stream": True}
    async with world.http.stream("POST", "/v1/messages", json=body) as response:
        lines = response.aiter_lines()
        names = [line async for line in _until(lines, "event: ping") if line.startswith("event")]
        assert names == ["event: message_start", "event: ping"]
        await answered(engine, "2")
        assert [line async for line in lines if line.startswith("event")][-1] == "event: message_stop"


async def _until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == last:
            return


async def test_models_are_listed_in_the_shape_that_a_client_asks_for(
    client: anthropic.AsyncAnthropic, world: ServerWorld, engine: ScriptedEngine
) -> None:
    (model,) = [model async for model in client.models.list()]
    assert (model.id, model.type, model.display_name) == (MODEL, "model", MODEL)
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.models.retrieve("glm-5")
    assert caught.value.type == "not_found_error"
    assert [model.object async for model in world.openai.models.list()] == ["model"]


async def test_the_names_of_the_vendors_models_mean_the_one_served_at_zais_path(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    async with a_client(world, "/api/anthropic") as client:
        message = await asked(client, engine, "Hi", stream=False, model="claude-any")
    assert message.model == MODEL
    async with a_client(world) as client:
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.create(model="claude-any", max_tokens=5, messages=USER)


async def test_a_request_as_coding_agents_send_it_is_answered(world: ServerWorld, engine: ScriptedEngine) -> None:
    """All that they always send, in one request; the texts are ours."""
    cached = {"cache_control": {"type": "ephemeral"}}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"path": {"type": "string", "description": "Where to look."}},
        "required": ["path"],
        "additionalProperties": False,
    }
    call = {"type": "tool_use", "id": "toolu_01", "name": "List", "input": {"path": "."}}
    thought = {"type": "thinking", "thinking": "look", "signature": "EqQBCg=="}
    result = {"type": "tool_result", "tool_use_id": "toolu_01", "content": "a.py", "is_error": False, **cached}
    body = {
        "model": "claude-any",
        "max_tokens": 32_000,
        "thinking": {"type": "enabled", "budget_tokens": 31_999},
        "temperature": 1,
        "stream": True,
        "metadata": {"user_id": "user_1_account__session_2"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "system": [
            {"type": "text", "text": "Agent 1."},
            {"type": "text", "text": "You change files for people.", **cached},
        ],
        "tools": [{"name": "List", "description": "Lists a folder.", "input_schema": schema}],
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "today"}, {"type": "text", "text": "Look.", **cached}],
            },
            {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "Be quick."}]},
        ],
    }
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27",
        "x-api-key": "none",
    }
    asking = asyncio.create_task(world.http.post("/api/anthropic/v1/messages?beta=true", json=body, headers=headers))
    await answered(engine, "\n<think>done</think>\nThere is a.py.")
    response = await asking
    assert response.status_code == 200
    assert '"stop_reason":"end_turn"' in response.text
    assert response.headers["x-glm-thinking"] == "enabled; by=request; budget=31999"
    ignored = set(response.headers["x-glm-ignored"].split(", "))
    assert ignored == {"cache_control", "metadata", "context_management.edits"}


async def test_paths_that_are_not_there_are_errors_of_this_api(world: ServerWorld) -> None:
    for method, path, status in (("POST", "/api/anthropic/v1/complete", 404), ("GET", "/v1/messages", 405)):
        response = await world.http.request(method, path)
        assert response.status_code == status
        assert response.json()["type"] == "error"
        assert response.json()["request_id"] == response.headers["x-request-id"]
