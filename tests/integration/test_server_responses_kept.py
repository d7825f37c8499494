"""Responses that are kept: read, gone on from, made in the background, cancelled, forgotten; and by whom."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from glm_worker.request import EngineRequest
from glm_worker.server.responses import routes
from glm_worker.server.responses.store import Kept, StoreLimits
from integration.server_world import DEADLINE_S, MODEL, TOKENIZER, ScriptedEngine, ServerWorld, a_server, token_ids

WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
CALL = "\n<think>ask</think>\n<tool_call>get_weather\n</tool_call>"


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path, group="nano-g0", trust_proxy_headers=True) as world:
        yield world


@pytest_asyncio.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


def a_tenant(name: str) -> dict[str, str]:
    return {"x-glm-tenant": name}


async def exchanged(
    world: ServerWorld, engine: ScriptedEngine, said: str = "It is 2.", **fields: Any
) -> tuple[Any, EngineRequest]:
    """Return the response to a request that is answered so, and what the engine was given. Fails when it is refused."""
    fields = {"model": MODEL, "input": "What is 1+1?", "store": True, **fields}

    async def answer() -> EngineRequest:
        request = await engine.next_request()
        await engine.say(request, said, end="<|observation|>" if said.endswith("</tool_call>") else "<|user|>")
        return request

    answering = asyncio.create_task(answer())
    try:
        response = await world.openai.responses.create(**fields)
    except openai.OpenAIError:
        answering.cancel()
        raise
    return response, await answering


async def kept(world: ServerWorld, engine: ScriptedEngine, said: str = "It is 2.", **fields: Any) -> Any:
    return (await exchanged(world, engine, said, **fields))[0]


async def begun(world: ServerWorld, engine: ScriptedEngine, **fields: Any) -> tuple[Any, EngineRequest]:
    """Return a response in the background, and what the engine has of it."""
    fields = {"model": MODEL, "input": "What is 1+1?", "background": True, "store": True, **fields}
    return await world.openai.responses.create(**fields), await engine.next_request()


async def standing(world: ServerWorld, response: Any, status: str) -> Any:
    """Wait until a response has this status, as clients poll for it."""
    async with asyncio.timeout(DEADLINE_S):
        while (found := await world.openai.responses.retrieve(response.id)).status != status:
            pass
    return found


def prompt_of(request: EngineRequest) -> str:
    return str(TOKENIZER._inner.decode(request.prompt_token_ids, skip_special_tokens=False))


async def test_nothing_is_kept_unless_asked(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await kept(world, engine, store=None)
    assert response.store is False
    with pytest.raises(openai.NotFoundError, match="made without store: true") as caught:
        await world.openai.responses.retrieve(response.id)
    assert caught.value.code == "response_not_found"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_kept_is_what_was_answered(world: ServerWorld, engine: ScriptedEngine, stream: bool) -> None:
    response = await kept(world, engine, "\n<think>1+1</think>\nIt is 2.", stream=stream, metadata={"a": "b"})
    if stream:
        response = [event async for event in response][-1].response
    found = await world.openai.responses.retrieve(response.id)
    assert found == response
    assert found.id.startswith("resp_nano-g0_")
    assert [item.type for item in found.output] == ["reasoning", "message"]


async def test_a_conversation_goes_on_from_what_is_kept(world: ServerWorld, engine: ScriptedEngine) -> None:
    first = await kept(world, engine, CALL, tools=[WEATHER], instructions="Be kind.")
    (call,) = (item for item in first.output if item.type == "function_call")
    result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}]
    second, request = await exchanged(world, engine, "Warm.", previous_response_id=first.id, input=result)
    assert second.previous_response_id == first.id
    prompt = prompt_of(request)
    assert "Be kind." not in prompt, "instructions are of one response"
    assert prompt == (
        "[gMASK]<sop><|user|>\nWhat is 1+1?<|assistant|>\n<think>ask</think>\n<tool_call>get_weather\n</tool_call>"
        "<|observation|>\n<tool_response>\n12 degrees\n</tool_response><|assistant|>"
    )
    _, request = await exchanged(world, engine, "Yes.", previous_response_id=second.id, input="Really?")
    assert prompt_of(request).endswith("Warm.<|user|>\nReally?<|assistant|>")


async def test_an_item_that_is_kept_is_found_by_its_id(world: ServerWorld, engine: ScriptedEngine) -> None:
    first = await kept(world, engine)
    items: Any = [
        {"role": "user", "content": "?"},
        {"type": "item_reference", "id": first.output[-1].id},
        {"role": "user", "content": "Sure?"},
    ]
    _, request = await exchanged(world, engine, input=items)
    assert "It is 2.<|user|>\nSure?" in prompt_of(request)


async def test_input_items_come_page_by_page(world: ServerWorld, engine: ScriptedEngine) -> None:
    first = await kept(world, engine, "1", input=[{"role": "user", "content": str(number)} for number in range(3)])
    second = await kept(world, engine, "2", previous_response_id=first.id, input="last")
    pages = await world.openai.responses.input_items.list(second.id, limit=2, order="asc")
    items = [item async for item in pages]
    assert [item.content[0].text for item in items] == ["0", "1", "2", "1", "last"]  # type: ignore[union-attr,index]
    newest = await world.openai.responses.input_items.list(second.id, limit=1)
    assert newest.data[0].content[0].text == "last"  # type: ignore[union-attr,index]
    assert newest.has_more
    assert len({item.id for item in items}) == 5


async def test_what_is_kept_of_a_long_conversation_is_taken_apart_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be megabytes, and all streams would stand still meanwhile."""
    threads: list[int] = []
    items, decode = Kept.items, routes._decode
    monkeypatch.setattr(Kept, "items", lambda kept: threads.append(threading.get_ident()) or items(kept))
    monkeypatch.setattr(routes, "_decode", lambda body: threads.append(threading.get_ident()) or decode(body))
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        response = await kept(world, engine, "\n<think>hm</think>\n" + "so " * 1000, input="a " * 1500)
        (item,) = (await world.http.get(f"/v1/responses/{response.id}/input_items")).json()["data"]
        assert item["content"][0]["text"] == "a " * 1500
        told = (await world.http.get(f"/v1/responses/{response.id}")).json()
        assert [each["type"] for each in told["output"]] == ["message"]
        assert (await world.http.post(f"/v1/responses/{response.id}/cancel")).status_code == 400
    assert len(threads) == 3
    assert threading.get_ident() not in threads


async def test_what_is_deleted_is_gone(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await kept(world, engine)
    await world.openai.responses.delete(response.id)
    for ask in (world.openai.responses.retrieve, world.openai.responses.delete, world.openai.responses.cancel):
        with pytest.raises(openai.NotFoundError):
            await ask(response.id)
    with pytest.raises(openai.NotFoundError) as caught:
        await exchanged(world, engine, previous_response_id=response.id)
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


async def test_tenants_do_not_see_each_other(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await kept(world, engine, extra_headers=a_tenant("a"))
    assert (await world.openai.responses.retrieve(response.id, extra_headers=a_tenant("a"))).id == response.id
    reference: Any = [{"type": "item_reference", "id": response.output[-1].id}]
    for other in (a_tenant("b"), {}):
        for ask in (world.openai.responses.retrieve, world.openai.responses.delete, world.openai.responses.cancel):
            with pytest.raises(openai.NotFoundError, match="is not stored"):
                await ask(response.id, extra_headers=other)
        with pytest.raises(openai.NotFoundError):
            await world.openai.responses.input_items.list(response.id, extra_headers=other)
        with pytest.raises(openai.NotFoundError, match="is not stored"):
            await exchanged(world, engine, previous_response_id=response.id, extra_headers=other)
        with pytest.raises(openai.NotFoundError, match="no item"):
            await exchanged(world, engine, input=reference, extra_headers=other)
    assert (await world.openai.responses.retrieve(response.id, extra_headers=a_tenant("a"))).id == response.id


async def test_a_response_of_another_group_is_said_to_be_there_or_lost(world: ServerWorld) -> None:
    elsewhere = f"resp_nano-g3_{'0' * 32}"
    with pytest.raises(openai.NotFoundError, match=r"made by the group nano-g3, and this is nano-g0.*lost"):
        await world.openai.responses.retrieve(elsewhere)
    with pytest.raises(openai.NotFoundError, match="nano-g3") as caught:
        await world.openai.responses.create(model=MODEL, input="?", previous_response_id=elsewhere)
    assert caught.value.param == "previous_response_id"


async def test_the_oldest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "LIMITS", StoreLimits(num_responses=2))
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        responses = [await kept(world, engine) for _ in range(3)]
        with pytest.raises(openai.NotFoundError, match="made room for others"):
            await world.openai.responses.retrieve(responses[0].id)
        assert [(await world.openai.responses.retrieve(each.id)).id for each in responses[1:]] == [
            each.id for each in responses[1:]
        ]


async def test_a_response_in_the_background_is_polled_for(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine)
    assert (response.status, response.output) == ("queued", [])
    await engine.say(request, "It is")
    await standing(world, response, "in_progress")
    await engine.say(request, " 2.", end="<|user|>")
    found = await standing(world, response, "completed")
    assert (found.output_text, found.background) == ("It is 2.", True)
    assert found.usage is not None
    assert found.usage.output_tokens == len(token_ids("It is")) + len(token_ids(" 2.")) + 1


async def test_a_response_in_the_background_can_be_cancelled(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine)
    await engine.say(request, "It is")
    await standing(world, response, "in_progress")
    cancelled = await world.openai.responses.cancel(response.id)
    assert await engine.next_cancelled() == request.request_id
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "It is")
    assert cancelled.usage is not None
    assert cancelled.usage.output_tokens == len(token_ids("It is"))
    assert await world.openai.responses.cancel(response.id) == cancelled
    with pytest.raises(openai.BadRequestError, match="cancelled") as caught:
        await exchanged(world, engine, previous_response_id=response.id)
    assert caught.value.param == "previous_response_id"


async def test_what_is_deleted_while_it_is_made_ends(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine)
    await world.openai.responses.delete(response.id)
    assert await engine.next_cancelled() == request.request_id
    with pytest.raises(openai.NotFoundError):
        await world.openai.responses.retrieve(response.id)


async def test_only_what_runs_in_the_background_can_be_cancelled(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await kept(world, engine)
    with pytest.raises(openai.BadRequestError, match="background: true"):
        await world.openai.responses.cancel(response.id)


async def test_one_can_go_on_only_from_what_is_complete(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine)
    with pytest.raises(openai.BadRequestError, match="the response is queued"):
        await exchanged(world, engine, previous_response_id=response.id)
    await engine.say(request, "2", end="<|user|>")
    await standing(world, response, "completed")
    _, request = await exchanged(world, engine, previous_response_id=response.id, input="Sure?")
    assert "\n2<|user|>\nSure?" in prompt_of(request)


async def test_a_stream_in_the_background_outlives_its_client(world: ServerWorld, engine: ScriptedEngine) -> None:
    """The client reads a little, leaves, and comes back for the rest: together it is the whole stream."""
    stream, request = await begun(world, engine, stream=True)
    await engine.say(request, "\n<think>1+1</think>\nIt is")
    events = [await anext(stream) for _ in range(5)]
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    await stream.close()
    await engine.say(request, " 2.", end="<|user|>")
    id_ = events[0].response.id
    again = await world.openai.responses.retrieve(id_, stream=True, starting_after=events[-1].sequence_number)
    events += [event async for event in again]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "It is 2."
    assert events[-1].type == "response.completed"
    found = await world.openai.responses.retrieve(id_)
    assert found == events[-1].response
    whole = [event async for event in await world.openai.responses.retrieve(id_, stream=True)]
    assert whole == events


async def test_a_deadline_ends_what_runs_in_the_background(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine, extra_body={"deadline_s": 0.2, "priority": -1})
    assert request.priority == -1
    assert await engine.next_cancelled() == request.request_id
    failed = await standing(world, response, "failed")
    assert failed.error is not None
    assert "within the 0.2 seconds" in failed.error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_hidden_reasoning_is_kept_for_nobody(tmp_path: Path, stream: bool) -> None:
    async with a_server(tmp_path, reasoning_visibility="hidden") as world:
        engine = await world.serve()
        response, request = await begun(world, engine, stream=stream)
        await engine.say(request, "\n<think>a secret</think>\nIt is 2.", end="<|user|>")
        if stream:
            response = [event async for event in response][-1].response
        found = await standing(world, response, "completed")
        assert [item.type for item in found.output] == ["message"]
        told = await world.http.get(f"/v1/responses/{found.id}" + ("?stream=true" if stream else ""))
        assert "secret" not in told.text


async def test_reasoning_that_one_role_may_read_is_kept_from_another(tmp_path: Path) -> None:
    """In the same tenant: who may ask for the response may not read all of it."""
    settings = {"reasoning_visibility": "by_role", "reasoning_visible_to": "dev", "trust_proxy_headers": True}
    developer = {"x-glm-role": "dev"}
    async with a_server(tmp_path, **settings) as world:
        engine = await world.serve()
        stream, request = await begun(world, engine, stream=True, extra_headers=developer)
        await engine.say(request, "\n<think>a secret</think>\nIt is 2.", end="<|user|>")
        first = [event async for event in stream][-1].response
        assert [item.type for item in first.output] == ["reasoning", "message"]
        second = await kept(world, engine, previous_response_id=first.id, input="Sure?")
        for path in (first.id, f"{first.id}/input_items", f"{second.id}/input_items", f"{first.id}?stream=true"):
            told = await world.http.get(f"/v1/responses/{path}")
            assert told.status_code == (400 if "stream" in path else 200)
            assert "secret" not in told.text
        assert "secret" not in (await world.http.post(f"/v1/responses/{first.id}/cancel")).text
        for path in (first.id, f"{second.id}/input_items", f"{first.id}?stream=true"):
            assert "a secret" in (await world.http.get(f"/v1/responses/{path}", headers=developer)).text


async def test_a_stream_that_was_none_cannot_be_read_again(world: ServerWorld, engine: ScriptedEngine) -> None:
    response = await kept(world, engine)
    with pytest.raises(openai.BadRequestError, match="stream: true") as caught:
        await world.openai.responses.retrieve(response.id, stream=True)
    assert caught.value.param == "stream"


async def test_followers_see_a_cancelled_stream_end(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream, request = await begun(world, engine, stream=True)
    await engine.say(request, "It")
    first = await anext(stream)
    await world.openai.responses.cancel(first.response.id)
    events = [event async for event in stream]
    assert "response.completed" not in [event.type for event in events]
    assert (await world.openai.responses.retrieve(first.response.id)).status == "cancelled"


async def test_what_was_begun_goes_on_when_its_engine_dies(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, request = await begun(world, engine)
    await engine.say(request, "It is")
    await standing(world, response, "in_progress")
    await world.kill(engine)
    engine = await world.serve("g-2")
    await engine.say(await engine.next_request(), " 2.", end="<|user|>")
    assert (await standing(world, response, "completed")).output_text == "It is 2."


async def test_a_stream_whose_engine_dies_twice_is_kept_as_failed(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream, request = await begun(world, engine, stream=True)
    await engine.say(request, "It")
    events = [await anext(stream) for _ in range(6)]
    assert events[-1].type == "response.output_text.delta"
    await world.kill(engine)
    again = await world.serve("g-2")
    await world.kill_computing(again)
    events += [event async for event in stream]
    assert [event.type for event in events[-2:]] == ["error", "response.failed"]
    found = await world.openai.responses.retrieve(events[0].response.id)
    assert found == events[-1].response
    assert (found.status, found.error and found.error.code) == ("failed", "server_error")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("include=reasoning.encrypted_content", "include"),
        ("stream=maybe", "stream"),
        ("starting_after=3", "starting_after"),
        ("stream=true&starting_after=-1", "starting_after"),
        ("verbose=true", "verbose"),
    ],
)
async def test_parameters_of_reading_are_refused_by_name(
    world: ServerWorld, engine: ScriptedEngine, query: str, param: str
) -> None:
    response = await kept(world, engine)
    refused = await world.http.get(f"/v1/responses/{response.id}?{query}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "order=up", "after=msg_1"])
async def test_parameters_of_pages_are_refused_by_name(world: ServerWorld, engine: ScriptedEngine, query: str) -> None:
    response = await kept(world, engine)
    refused = await world.http.get(f"/v1/responses/{response.id}/input_items?{query}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, query.partition("=")[0])
