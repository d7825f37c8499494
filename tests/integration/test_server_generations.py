"""Generations that come and go under a server, with requests in every phase. None of them is ever left in silence."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from glm_worker.messages import EngineLimits, RequestOutput
from integration.server_world import MODEL, ServerWorld, a_server, token_ids


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


def ask(world: ServerWorld, *, stream: bool = False) -> asyncio.Task[httpx.Response]:
    body = {"model": MODEL, "prompt": "1 2 3", "stream": stream}
    return asyncio.create_task(world.http.post("/v1/completions", json=body))


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text(response: httpx.Response, *, stream: bool) -> str:
    """Return the text of a completion. How many events a stream has says only how fast its client reads."""
    bodies = [event for event in events(response) if event != "[DONE]"] if stream else [response.json()]
    return "".join(choice["text"] for body in bodies for choice in body["choices"])


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_wait_for_the_first_generation(world: ServerWorld, stream: bool) -> None:
    asked = ask(world, stream=stream)
    await world.until(f'glm_num_requests_waiting{{model="{MODEL}"}}', 1)
    engine = await world.serve()
    await engine.say(await engine.next_request(), " 4", end="<|user|>")
    assert (await asked).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_had_not_begun_runs_in_the_next_generation(world: ServerWorld, stream: bool) -> None:
    first = await world.serve("g-1")
    asked = ask(world, stream=stream)
    request = await first.next_request()
    await world.kill(first)
    second = await world.serve("g-2")
    again = await second.next_request()
    assert again == request
    await second.say(again, " 4", end="<|user|>")
    response = await asked
    assert response.status_code == 200
    assert text(response, stream=stream) == " 4"
    assert await world.value(f'glm_requests_total{{model="{MODEL}",outcome="finished"}}') == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_half_computed_goes_on_in_the_next_generation(
    world: ServerWorld, stream: bool
) -> None:
    first = await world.serve("g-1")
    asked = ask(world, stream=stream)
    await first.say(await first.next_request(), " 4")
    await world.until(f'glm_engine_steps_total{{model="{MODEL}"}}', len(token_ids(" 4")))
    await world.kill(first, "rank 1 was killed by signal 9")
    second = await world.serve("g-2")
    again = await second.next_request()
    assert again.answer_token_ids == token_ids(" 4")
    await second.say(again, " 5", end="<|user|>")
    response = await asked
    assert text(response, stream=stream) == " 4 5"
    if not stream:
        assert response.json()["usage"]["completion_tokens"] == len(token_ids(" 4 5")) + 1
    assert await world.value(f'glm_requests_total{{model="{MODEL}",outcome="finished"}}') == 1


async def test_tokens_that_nobody_had_read_when_their_generation_died_are_not_computed_again(
    world: ServerWorld,
) -> None:
    first = await world.serve("g-1")
    asked = ask(world)
    request = await first.next_request()
    said = " 4" * 200
    await first.say(request, said)
    await world.kill(first)
    second = await world.serve("g-2")
    again = await second.next_request()
    assert again.answer_token_ids == token_ids(" 4") * 200
    await second.say(again, " 5", end="<|user|>")
    assert (await asked).json()["choices"][0]["text"] == said + " 5"


@pytest.mark.parametrize("num_queued", [0, 5])
async def test_streams_that_ran_go_on_before_anything_that_waited(world: ServerWorld, num_queued: int) -> None:
    first = await world.serve("g-1")
    asked = [ask(world, stream=True) for _ in range(3)]
    streams = [await first.next_request() for _ in asked]
    asked += [ask(world) for _ in range(num_queued)]
    queued = [await first.next_request() for _ in range(num_queued)]
    for stream in streams:
        await first.say(stream, " 4")
    await world.until(f'glm_engine_steps_total{{model="{MODEL}"}}', len(streams) * len(token_ids(" 4")))
    await world.kill(first)
    second = await world.serve("g-2")
    submitted = []
    for _ in streams:
        again = await second.next_request()
        assert again.answer_token_ids == token_ids(" 4")
        submitted.append(again)
        assert second.submitted.empty(), "the next one comes when this one has proved itself"
        await second.say(again, " 5 6")
    submitted += [await second.next_request() for _ in queued]
    assert [each.request_id for each in submitted] == [each.request_id for each in (*streams, *queued)]
    for each in submitted:
        await second.say(each, " 7", end="<|user|>")
    assert [(await each).status_code for each in asked] == [200] * len(asked)


async def test_a_thought_that_was_begun_goes_on_in_the_next_generation(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    messages: Any = [{"role": "user", "content": "hi"}]
    stream_task = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=messages, stream=True))
    await first.say(await first.next_request(), "\n<think>\n1 + ")
    await world.until(f'glm_engine_steps_total{{model="{MODEL}"}}', len(token_ids("\n<think>\n1 + ")))
    await world.kill(first)
    second = await world.serve("g-2")
    await second.say(await second.next_request(), "2</think>\n3", end="<|user|>")
    deltas: list[Any] = [chunk.choices[0].delta async for chunk in await stream_task]
    assert "".join(delta.content or "" for delta in deltas) == "3"
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "1 + 2"


async def test_a_stream_that_is_lost_twice_ends_with_an_error_event(world: ServerWorld) -> None:
    engine = await world.serve("g-1")
    asked = ask(world, stream=True)
    request = await engine.next_request()
    await engine.say(request, " 4")
    await world.until(f'glm_engine_steps_total{{model="{MODEL}"}}', len(token_ids(" 4")))
    await world.kill(engine, "rank 1 was killed by signal 9")
    again = await world.serve("g-2")
    await world.kill_computing(again, "rank 1 was killed by signal 9")
    response = await asked
    assert response.status_code == 200
    *said, last = events(response)
    assert "".join(event["choices"][0]["text"] for event in said) == " 4"
    assert last["error"]["code"] == "generation_lost"
    assert last["error"]["message"] == "the group that wrote this answer failed; try again"
    assert await world.value(f'glm_requests_total{{model="{MODEL}",outcome="failed"}}') == 1


async def test_the_openai_client_raises_on_that_event(world: ServerWorld) -> None:
    engine = await world.serve("g-1")
    stream_task = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1", stream=True))
    await engine.say(await engine.next_request(), " 2")
    stream = await stream_task
    await anext(stream)
    await world.kill(engine)
    again = await world.serve("g-2")
    await world.kill_computing(again)
    with pytest.raises(openai.APIError, match="the group that wrote this answer failed"):
        [chunk async for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_second_loss_is_a_503(world: ServerWorld, stream: bool) -> None:
    asked = ask(world, stream=stream)
    for generation in ("g-1", "g-2"):
        await world.kill_computing(await world.serve(generation))
    response = await asked
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert response.json()["error"]["code"] == "generation_lost"


async def test_a_generation_that_never_served_costs_nothing(world: ServerWorld) -> None:
    asked = ask(world)
    for number in range(3):
        await world.kill(await world.start_generation(f"g-{number}"), "it failed to load")
    engine = await world.serve("g-9")
    await engine.say(await engine.next_request(), " 4", end="<|user|>")
    assert (await asked).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_nobody_waits_while_no_generation_will_serve_soon(world: ServerWorld, stream: bool) -> None:
    held = ask(world, stream=stream)
    await world.until("glm_num_requests_waiting" + f'{{model="{MODEL}"}}', 1)
    await world.unavailable("the last 3 starts failed: rank 0 has no weights", 8)
    late = ask(world, stream=stream)
    for response in (await held, await late):
        assert (response.status_code, response.headers["retry-after"]) == (503, "8")
        said = response.json()["error"]["message"]
        assert said == "temporarily unavailable: this group cannot start; try again later"  # no ranks, no pods


async def test_the_next_start_opens_the_server_again(world: ServerWorld) -> None:
    await world.unavailable("pods [1] of the group are missing", 10)
    engine = await world.serve("g-1")
    asked = ask(world)
    await engine.say(await engine.next_request(), " 4", end="<|user|>")
    assert (await asked).status_code == 200


async def test_a_stream_that_goes_on_is_untouched_by_that(world: ServerWorld) -> None:
    engine = await world.serve("g-1")
    asked = ask(world, stream=True)
    request = await engine.next_request()
    await engine.say(request, " 4")
    await world.unavailable("said by mistake", 1)
    await engine.say(request, " 5", end="<|user|>")
    assert "[DONE]" in (await asked).text


async def test_each_generation_is_told_to_work_when_it_has_finished_a_request(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    asked = ask(world)
    await first.begin(await first.next_request())
    await world.kill(first)
    second = await world.serve("g-2")
    request = await second.next_request()
    assert world.answered == []
    await second.say(request, " 4", end="<|user|>")
    await asked
    again = ask(world)
    await second.say(await second.next_request(), " 4", end="<|user|>")
    await again
    await world.metrics()
    assert world.answered == ["g-2"]


async def test_requests_of_a_lost_generation_keep_their_order(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    asked = []
    requests = []
    for _ in range(5):
        asked.append(ask(world))
        requests.append(await first.next_request())
    await world.kill(first)
    second = await world.serve("g-2")
    again = [await second.next_request() for _ in requests]
    assert [request.request_id for request in again] == [request.request_id for request in requests]
    for request in again:
        await second.say(request, " 4", end="<|user|>")
    assert {response.status_code for response in await asyncio.gather(*asked)} == {200}


async def test_a_client_that_leaves_between_generations_is_forgotten(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    asked = ask(world)
    request = await first.next_request()
    stays = ask(world)
    other = await first.next_request()
    await world.kill(first)
    asked.cancel()
    await world.until(f'glm_requests_total{{model="{MODEL}",outcome="cancelled"}}', 1)
    second = await world.serve("g-2")
    again = await second.next_request()
    assert again.request_id == other.request_id != request.request_id
    await second.say(again, " 4", end="<|user|>")
    assert (await stays).status_code == 200


async def test_words_of_a_dead_generation_are_dropped(world: ServerWorld) -> None:
    engine = await world.serve("g-2")
    asked = ask(world)
    request = await engine.next_request()
    await engine.step(RequestOutput(request.request_id, token_ids(" wrong<|user|>"), "stop"), generation="g-1")
    await engine.say(request, " right", end="<|user|>")
    assert (await asked).json()["choices"][0]["text"] == " right"


async def test_a_new_generation_takes_the_place_of_one_whose_end_was_not_told(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    asked = ask(world)
    await first.next_request()
    second = await world.serve("g-2")
    await second.say(await second.next_request(), " 4", end="<|user|>")
    assert (await asked).status_code == 200


async def test_a_generation_with_less_room_refuses_what_no_longer_fits(world: ServerWorld) -> None:
    first = await world.serve("g-1")
    body = {"model": MODEL, "prompt": "1 2 3", "max_tokens": 500}
    asked = asyncio.create_task(world.http.post("/v1/completions", json=body))
    await first.next_request()
    await world.kill(first)
    await world.serve("g-2", EngineLimits(max_model_len=2048, num_blocks=4, block_size=16))
    response = await asked
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "the KV cache of this group holds 64 tokens" in response.json()["error"]["message"]
    models = (await world.http.get("/v1/models")).json()["data"]
    assert [model["max_model_len"] for model in models] == [64]


async def test_clients_are_told_when_the_supervisor_is_gone(world: ServerWorld) -> None:
    engine = await world.serve("g-1")
    held = ask(world)
    await engine.next_request()
    begun = ask(world, stream=True)
    await engine.say(await engine.next_request(), " 4")
    await world.until(f'glm_engine_steps_total{{model="{MODEL}"}}', len(token_ids(" 4")))
    world.hang_up()
    assert (await held).status_code == 503
    assert events(await begun)[-1]["error"]["message"] == "the server stops; try again"
