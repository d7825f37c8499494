"""Clients whose group dies in the middle of an answer read the answer of an unbroken run, on every surface.

The bytes that groups say are compared in test_server_frames.py; here it is what a client makes of them, with a gateway
in between, and that each stream stays well-formed: indices, order of events, sequence numbers.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import anthropic
import openai
import pytest

from glm_gateway.continuation.progress import Bounds
from glm_gateway.hold import room as hold
from glm_gateway.models.placement import FIRST_TOLD_S
from glm_worker.messages import RequestOutput
from integration.event_streams import Call, Told, told
from integration.metrics_text import series_values
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, token_ids
from integration.test_gateway_app import ASK, World, world  # noqa: F401 - a fixture

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
THOUGHT, TEXT = "It is cold — °C.", "Let me see 😀."
ANSWER = f"\n<think>{THOUGHT}</think>\n{TEXT}"
CALL = (
    f"{ANSWER}\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>São Paulo</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
CALLED = [Call("get_weather", {"city": "São Paulo", "days": 3})]
FORMED = f'\n<think>{THOUGHT}</think>\n{{"name": "Ada"}}'
FUNCTION = {"name": "get_weather", "parameters": WEATHER}
END = token_ids("<|user|>")

CASES: dict[str, tuple[str, dict[str, Any], str, Told]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK}, ANSWER, Told("stop", THOUGHT, TEXT)),
    "chat with a call": (
        "/v1/chat/completions",
        {"messages": ASK, "tools": [{"type": "function", "function": FUNCTION}]},
        CALL,
        Told("tool_calls", THOUGHT, TEXT, CALLED),
    ),
    "chat in a form": (
        "/v1/chat/completions",
        {
            "messages": ASK,
            "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}},
        },
        FORMED,
        Told("stop", THOUGHT, '{"name": "Ada"}'),
    ),
    "message": (
        "/v1/messages",
        {"messages": ASK, "max_tokens": 300, "tools": [{"name": "get_weather", "input_schema": WEATHER}]},
        CALL,
        Told("tool_use", THOUGHT, TEXT, CALLED),
    ),
    "response": (
        "/v1/responses",
        {"input": "hi", "tools": [{"type": "function", **FUNCTION}]},
        CALL,
        Told("completed", THOUGHT, TEXT, CALLED),
    ),
    "Z.ai": (
        "/api/paas/v4/chat/completions",
        {"messages": ASK, "tools": [{"type": "function", "function": FUNCTION}], "tool_stream": True},
        CALL,
        Told("tool_calls", THOUGHT, TEXT, CALLED),
    ),
}


async def write(engine: ScriptedEngine, request_id: str, ids: Sequence[int], finish: Any = None) -> None:
    """Sample tokens, one a step; the last one ends the answer where a reason is given."""
    for number, token_id in enumerate(ids, 1):
        await engine.step(RequestOutput(request_id, [token_id], finish if number == len(ids) else None))


def server_of(world: World, engine: ScriptedEngine) -> ServerWorld:  # noqa: F811
    return world.servers[world.engines.index(engine)]


async def num_told(server: ServerWorld) -> float:
    return sum(series_values(await server.metrics(), "glm_generation_tokens_total"))


async def write_and_see(server: ServerWorld, *texts: tuple[ScriptedEngine, str, Sequence[int], Any]) -> None:
    """Let an engine write to some requests, and wait until its server has all of it."""
    expected = await num_told(server) + sum(len(ids) for _, _, ids, _ in texts)
    for engine, request_id, ids, finish in texts:
        await write(engine, request_id, ids, finish)
    async with asyncio.timeout(DEADLINE_S):
        while await num_told(server) < expected:
            pass


async def answered(
    world: World,  # noqa: F811
    asking: "asyncio.Task[Any]",
    text: str,
    parts: Sequence[float],
) -> None:
    """Let groups write an answer; after each of these parts of it, 0 to 1, the one that writes is lost."""
    ids = [*token_ids(text), *END]
    places = [round(part * (len(ids) - 1)) for part in parts]
    begun = 0
    for place in places:
        engine, request = await world.next_request(asking)
        assert request.answer_token_ids == ids[:begun]
        await write_and_see(server_of(world, engine), (engine, request.request_id, ids[begun:place], None))
        await world.lose(engine)
        again = await server_of(world, engine).serve("g-back")
        world.engines[world.engines.index(engine)] = again
        begun = place
    engine, request = await world.next_request(asking)
    assert request.answer_token_ids == ids[:begun]
    await write(engine, request.request_id, ids[begun:], "stop")


@pytest.mark.parametrize("name", CASES)
async def test_a_stream_is_whole_and_well_formed_whenever_its_group_dies(world: World, name: str) -> None:  # noqa: F811
    path, fields, text, expected = CASES[name]
    body = {"model": MODEL, "stream": True, **fields}
    for part in (0.1, 0.35, 0.6, 0.8, 0.95):
        asking = asyncio.create_task(world.http.post(path, json=body))
        await answered(world, asking, text, [part])
        found = told(path, (await asking).content)
        found.num_tokens = None
        assert found == expected, f"lost after {part} of it"


async def test_a_stream_goes_on_twice_where_it_may(world: World) -> None:  # noqa: F811
    world.gateway.bounds = Bounds(max_times=2)
    path, fields, text, expected = CASES["message"]
    asking = asyncio.create_task(world.http.post(path, json={"model": MODEL, "stream": True, **fields}))
    await answered(world, asking, text, [0.3, 0.7])
    found = told(path, (await asking).content)
    found.num_tokens = None
    assert found == expected


@pytest.mark.parametrize("part", [0.2, 0.8])
async def test_an_answer_that_comes_whole_goes_on_as_well(world: World, part: float) -> None:  # noqa: F811
    _, fields, text, _ = CASES["chat with a call"]
    asking = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, **fields))
    await answered(world, asking, text, [part])
    answer = await asking
    message = answer.choices[0].message
    (call,) = message.tool_calls or []
    assert (message.content, json.loads(call.function.arguments)) == (TEXT, CALLED[0].arguments)  # type: ignore[union-attr]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(token_ids(text)) + 1
    asking = asyncio.create_task(world.anthropic.messages.create(model=MODEL, **CASES["message"][1]))
    await answered(world, asking, text, [part])
    kinds = [block.type for block in (await asking).content]
    assert kinds == ["thinking", "text", "tool_use"]
    asking = asyncio.create_task(world.openai.responses.create(model=MODEL, **CASES["response"][1]))
    await answered(world, asking, text, [part])
    assert [item.type for item in (await asking).output] == ["reasoning", "message", "function_call"]


async def test_each_of_two_answers_goes_on_where_it_was(world: World) -> None:  # noqa: F811
    """The first is whole when the group dies, the second is not; then both are not."""
    for is_first_whole in (True, False):
        asking = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1", n=2, seed=5, stream=True))
        engine, first = await world.next_request()
        second = await engine.next_request()
        ids = [[*token_ids(text), *END] for text in (" one two", " three four")]
        written, finish = (ids[0], "stop") if is_first_whole else (ids[0][:1], None)
        await write_and_see(
            server_of(world, engine),
            (engine, second.request_id, ids[1][:2], None),
            (engine, first.request_id, written, finish),
        )
        chunks = await asking
        texts, ended = ["", ""], [0, 0]
        reading = asyncio.create_task(_read(chunks, texts, ended))
        server = server_of(world, engine)
        await server.kill(engine)
        again = await server.serve("g-again")
        # Alone, even where both were in the step that died: suspects are tried one by one
        await server.kill_computing(again)
        other, request = await world.next_request()
        going_on = {request.request_id[-1]: request}
        if not is_first_whole:
            request = await other.next_request()
            going_on[request.request_id[-1]] = request
        assert sorted(going_on) == (["1"] if is_first_whole else ["0", "1"])
        for index, request in going_on.items():
            seen = len(request.answer_token_ids)
            assert request.answer_token_ids == ids[int(index)][: 2 if index == "1" else 1]
            await write(other, request.request_id, ids[int(index)][seen:], "stop")
        await reading
        assert texts == [" one two", " three four"]
        assert ended == [1, 1]
        world.engines[world.engines.index(engine)] = await server.serve("g-back")


async def _read(chunks: Any, texts: list[str], ended: list[int]) -> None:
    async for chunk in chunks:
        for choice in chunk.choices:
            assert not ended[choice.index]
            texts[choice.index] += choice.text
            ended[choice.index] += choice.finish_reason is not None


async def given_up(world: World, asking: asyncio.Task[Any]) -> list[Any]:  # noqa: F811
    """Let a stream end in the middle, as no other group may go on with it; return what its client was told."""
    world.gateway.bounds = Bounds(max_times=0)
    engine, request = await world.next_request()
    await write(engine, request.request_id, token_ids("one "))
    events = await asking
    found = [await anext(events)]
    await world.lose(engine)
    return [*found, *[event async for event in events]]


async def test_a_chat_that_may_not_go_on_is_an_error_to_its_client(world: World) -> None:  # noqa: F811
    asking = world.openai.chat.completions.create(model=MODEL, messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="lost") as failed:
        await given_up(world, asyncio.create_task(asking))
    assert failed.value.code == "group_lost"


async def test_a_response_that_may_not_go_on_has_failed_by_its_last_event(world: World) -> None:  # noqa: F811
    asking = world.openai.responses.create(model=MODEL, input="hi", stream=True)
    events = await given_up(world, asyncio.create_task(asking))
    created, error, failed = events[0], *events[-2:]
    assert (error.type, error.code) == ("error", "group_lost")
    assert failed.type == "response.failed"
    assert (failed.response.id, failed.response.status) == (created.response.id, "failed")
    assert failed.response.error.code == "server_error"
    assert "lost" in failed.response.error.message
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_a_message_that_may_not_go_on_is_an_error_to_its_client(world: World) -> None:  # noqa: F811
    asking = world.anthropic.messages.create(model=MODEL, messages=ASK, max_tokens=9, stream=True)
    with pytest.raises(anthropic.APIStatusError, match="lost") as failed:
        await given_up(world, asyncio.create_task(asking))
    assert failed.value.body["error"]["details"] == {"error_code": "group_lost"}  # type: ignore[index]


async def test_a_stream_for_which_no_group_came_back_ends_with_an_error_of_its_api(world: World) -> None:  # noqa: F811
    world.model.replace([])
    world.model.bound(hold.Bounds(timeout_s=FIRST_TOLD_S + 0.2))  # so its head is out by then
    chat, message, response = await asyncio.gather(
        world.openai.chat.completions.create(model=MODEL, messages=ASK, stream=True),
        world.anthropic.messages.create(model=MODEL, messages=ASK, max_tokens=9, stream=True),
        world.openai.responses.create(model=MODEL, input="hi", stream=True),
    )
    with pytest.raises(openai.APIError) as of_chat:
        await anext(chat)
    assert of_chat.value.code == "no_group_ready"
    with pytest.raises(anthropic.APIStatusError) as of_message:
        await anext(message)
    assert of_message.value.body["error"]["type"] == "overloaded_error"  # type: ignore[index]
    with pytest.raises(openai.APIError) as of_response:
        await anext(response)
    assert of_response.value.code == "no_group_ready"
