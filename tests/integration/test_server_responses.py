"""OpenAI's responses over real sockets, asked by the openai package. The engine's words are the test's."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import pytest_asyncio

from glm_worker.messages import RequestOutput, TokenLogprobs
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, TOKENIZER, ScriptedEngine, ServerWorld, a_server, token_ids

THOUGHT = "\n<think>1+1=2</think>\nIt is 2."
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = (
    "\n<think>ask</think>\nI look."
    '\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bad "Ems"</arg_value>\n</tool_call>'
)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


async def answered(
    engine: ScriptedEngine, text: str, *, end: str | None = "<|user|>", finish: Any = None
) -> EngineRequest:
    """Answer the next request."""
    request = await engine.next_request()
    await engine.say(request, text, end=end, finish=finish)
    return request


async def exchanged(
    world: ServerWorld, engine: ScriptedEngine, said: str = THOUGHT, **fields: Any
) -> tuple[Any, EngineRequest]:
    """Return the response to a request that is answered so, and what the engine was given. Fails when it is refused."""
    end = "<|observation|>" if said.endswith("</tool_call>") else "<|user|>"
    fields = {"model": MODEL, "input": "What is 1+1?", **fields}
    answering = asyncio.create_task(answered(engine, said, end=end))
    try:
        response = await world.openai.responses.with_raw_response.create(**fields)
    except openai.OpenAIError:
        answering.cancel()
        raise
    return response, await answering


async def created(world: ServerWorld, engine: ScriptedEngine, said: str = THOUGHT, **fields: Any) -> Any:
    response, _ = await exchanged(world, engine, said, **fields)
    return response.parse()


def prompt_of(request: EngineRequest) -> str:
    return str(TOKENIZER._inner.decode(request.prompt_token_ids, skip_special_tokens=False))


async def test_a_response_is_reasoning_and_a_message(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await created(world, engine)
    reasoning, message = response.output
    assert (reasoning.type, reasoning.content[0].text, reasoning.summary) == ("reasoning", "1+1=2", [])
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (response.output_text, response.status, response.model) == ("It is 2.", "completed", MODEL)
    assert response.usage.output_tokens == len(token_ids(THOUGHT)) + 1
    assert response.usage.output_tokens_details.reasoning_tokens == len(token_ids("<think>1+1=2</think>"))
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.store is False
    assert response.id.startswith("resp_local_")


async def test_the_helper_for_streams_ends_with_the_whole_response(world: ServerWorld, engine: ScriptedEngine) -> None:
    async with world.openai.responses.stream(model=MODEL, input="What is 1+1?", temperature=0) as stream:
        answering = asyncio.create_task(answered(engine, THOUGHT))
        events = [event async for event in stream]
        final = await stream.get_final_response()
        await answering
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert (thought, text) == ("1+1=2", "It is 2.")
    whole = await created(world, engine, temperature=0)
    assert [item.model_dump(exclude={"id"}) for item in final.output] == [
        {**item.model_dump(exclude={"id"}), **extra}
        for item, extra in zip(whole.output, parsed_parts(final), strict=True)
    ]
    assert final.usage == whole.usage


def parsed_parts(response: Any) -> list[dict[str, Any]]:
    """Return what the helper adds to items of its own."""
    return [
        {"content": [part.model_dump() for part in item.content]} if item.type == "message" else {}
        for item in response.output
    ]


async def test_the_stream_on_the_wire_is_named_events(world: ServerWorld, engine: ScriptedEngine) -> None:
    body = {"model": MODEL, "input": "Hi", "stream": True, "tools": [WEATHER]}
    asked = asyncio.create_task(world.http.post("/v1/responses", json=body))
    await answered(engine, CALL, end="<|observation|>")
    response = await asked
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [event.split("\n") for event in response.text.strip().split("\n\n")]
    names = [name.removeprefix("event: ") for name, _ in lines]
    assert [json.loads(data.removeprefix("data: "))["type"] for _, data in lines] == names
    assert list(dict.fromkeys(names)) == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ]


class Sum(pydantic.BaseModel):
    answer: int


async def test_parse_gives_the_model_that_was_asked_for(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(
        world.openai.responses.parse(model=MODEL, input="What is 1+1?", text_format=Sum, reasoning={"effort": "none"})
    )
    await answered(engine, '{"answer": 2}')
    response = await asked
    assert response.output_parsed == Sum(answer=2)
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_schema"


@pytest.mark.parametrize("dump", [True, False])
async def test_a_loop_of_tools_goes_on_with_what_was_said(
    world: ServerWorld, engine: ScriptedEngine, dump: bool
) -> None:
    """As loops are written: the items of the response go back as they are, as objects or dumped with their nulls."""
    first = await created(world, engine, CALL, tools=[WEATHER])
    reasoning, message, call = first.output
    assert (reasoning.type, message.type, call.type) == ("reasoning", "message", "function_call")
    assert (call.name, json.loads(call.arguments), call.status) == ("get_weather", {"city": 'Bad "Ems"'}, "completed")
    said = [item.model_dump() for item in first.output] if dump else first.output
    items = [
        {"role": "user", "content": "What is 1+1?"},
        *said,
        {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"},
    ]
    response, request = await exchanged(world, engine, "It is 12 degrees.", input=items, tools=[WEATHER])
    assert response.parse().output_text == "It is 12 degrees."
    prompt = prompt_of(request)
    assert (
        '<think>ask</think>\nI look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bad "Ems"' in prompt
    )
    assert prompt.endswith("<|observation|>\n<tool_response>\n12 degrees\n</tool_response><|assistant|>")


async def test_a_client_that_stores_nothing_keeps_the_reasoning(world: ServerWorld, engine: ScriptedEngine) -> None:
    first = await created(world, engine, CALL, tools=[WEATHER], include=["reasoning.encrypted_content"])
    reasoning, _, call = first.output
    assert "ask" not in reasoning.encrypted_content
    items = [
        {"role": "user", "content": "?"},
        {"type": "reasoning", "id": reasoning.id, "summary": [], "encrypted_content": reasoning.encrypted_content},
        call,
        {"type": "function_call_output", "call_id": call.call_id, "output": [{"type": "input_text", "text": "12"}]},
    ]
    _, request = await exchanged(world, engine, "12", input=items)
    assert "<think>ask</think>" in prompt_of(request)
    items[1]["encrypted_content"] = reasoning.encrypted_content[:-2]
    with pytest.raises(openai.BadRequestError, match="was cut") as caught:
        await world.openai.responses.create(model=MODEL, input=items)
    assert caught.value.param == "input[1]"


async def test_instructions_come_first_and_words_of_all_roles_are_read(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    items: Any = [
        {
            "role": "developer",
            "content": [{"type": "input_text", "text": "Be "}, {"type": "input_text", "text": "short"}],
        },
        {"type": "message", "role": "user", "content": "One?"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "1", "annotations": []}]},
        {"role": "user", "content": "Two?"},
    ]
    _, request = await exchanged(world, engine, "2", instructions="You count.", input=items)
    assert prompt_of(request) == (
        "[gMASK]<sop><|system|>\nYou count.<|system|>\nBe short<|user|>\nOne?"
        "<|assistant|>\n<think></think>\n1<|user|>\nTwo?<|assistant|>"
    )


async def test_what_the_length_cuts_is_incomplete(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.openai.responses.create(model=MODEL, input="?", max_output_tokens=3))
    request = await engine.next_request()
    assert request.max_tokens == 3
    await engine.step(RequestOutput(request.request_id, token_ids("1 2"), "length"))
    response = await asked
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert (response.output_text, response.output[-1].status) == ("1 2", "incomplete")  # type: ignore[union-attr]


async def test_reasoning_that_is_hidden_is_in_no_item(tmp_path: Path) -> None:
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        response = await created(world, engine, include=["reasoning.encrypted_content"])
        assert [item.type for item in response.output] == ["message"]
        assert response.usage.output_tokens_details.reasoning_tokens == len(token_ids("<think>1+1=2</think>"))


async def test_a_request_can_leave_reasoning_out(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await created(world, engine, reasoning={"exclude": True})
    assert [item.type for item in response.output] == ["message"]


async def test_effort_none_is_no_thinking(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await exchanged(world, engine, "Hi", reasoning={"effort": "none"})
    assert prompt_of(request).endswith("<think></think>")
    assert response.headers["x-glm-thinking"].startswith("disabled; by=request")


async def test_logprobs_come_with_their_tokens(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream_task = asyncio.create_task(
        world.openai.responses.create(
            model=MODEL, input="Hi", top_logprobs=2, include=["message.output_text.logprobs"], stream=True
        )
    )
    request = await engine.next_request()
    assert request.num_logprobs == 2
    one, two = token_ids("1")[0], token_ids("2")[0]
    logprobs = [TokenLogprobs(logprob=-0.5, rank=1, top=[(one, -0.5), (two, -1.5)])]
    await engine.step(RequestOutput(request.request_id, [one], "length", logprobs))
    events = [event async for event in await stream_task]
    (delta,) = [event for event in events if event.type == "response.output_text.delta"]
    (part,) = events[-1].response.output[0].content  # type: ignore[union-attr]
    for (told,) in (delta.logprobs, part.logprobs):
        assert (told.token, told.logprob) == ("1", -0.5)
        assert [(each.token, each.logprob) for each in told.top_logprobs] == [("1", -0.5), ("2", -1.5)]


async def test_what_has_no_effect_is_told(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, _ = await exchanged(
        world,
        engine,
        "Hi",
        reasoning={"summary": "auto"},
        text={"verbosity": "low"},
        prompt_cache_key="k",
        safety_identifier="s",
        service_tier="flex",
        include=["file_search_call.results"],
        metadata={"a": "b"},
        user="u",
    )
    assert set(response.headers["x-glm-ignored"].split(", ")) == {
        "reasoning.summary",
        "text.verbosity",
        "prompt_cache_key",
        "safety_identifier",
        "service_tier",
        "include",
    }
    parsed = response.parse()
    assert (parsed.metadata, parsed.user, parsed.service_tier) == ({"a": "b"}, "u", "default")
    assert parsed.text is not None
    assert parsed.text.verbosity == "low"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"stop": ["a"]}, "stop"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"max_output_tokens": 5000}, "max_output_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_done_is_refused_by_name(
    world: ServerWorld, engine: ScriptedEngine, fields: dict[str, Any], param: str
) -> None:
    response = await world.http.post("/v1/responses", json={"model": MODEL, "input": "Hi", **fields})
    assert response.status_code in (400, 404)
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert param in error["message"] or error["code"] == "context_length_exceeded"
    for kind in ("web_search", "mcp", "file_search", "input_image"):
        assert kind not in json.dumps(fields) or kind in error["message"], "what is refused is named"


async def test_only_allowed_tools_are_on_offer(world: ServerWorld, engine: ScriptedEngine) -> None:
    now = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}}
    choice: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "now"}]}
    response, request = await exchanged(world, engine, "Hi", tools=[WEATHER, now], tool_choice=choice)
    assert '"now"' in prompt_of(request)
    assert "get_weather" not in prompt_of(request)
    assert [tool.name for tool in response.parse().tools] == ["get_weather", "now"]


async def test_a_stream_that_fails_says_so_twice(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream_task = asyncio.create_task(world.openai.responses.create(model=MODEL, input="Hi", stream=True))
    request = await engine.next_request()
    await engine.say(request, "1")
    stream = await stream_task
    events = [await anext(stream) for _ in range(5)]
    assert events[-1].type == "response.output_text.delta"
    await world.kill(engine)
    again = await world.serve("g-2")
    await world.kill_computing(again)
    events += [event async for event in stream]
    error, failed = events[-2:]
    assert (error.type, error.code) == ("error", "generation_lost")  # type: ignore[union-attr]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert failed.response.error.code == "server_error"
    assert failed.response.error.message == "the group that wrote this answer failed; try again"
    assert failed.response.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_client_that_goes_away_frees_the_engine(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream_task = asyncio.create_task(world.openai.responses.create(model=MODEL, input="Hi", stream=True, store=True))
    request = await engine.next_request()
    await engine.say(request, "1 2")
    await (await stream_task).close()
    cancelled = asyncio.create_task(engine.next_cancelled())
    while not cancelled.done():
        await engine.say(request, "3")
        await world.metrics()
    assert await cancelled == request.request_id
    with pytest.raises(openai.NotFoundError):
        await world.openai.responses.retrieve(request.request_id)
