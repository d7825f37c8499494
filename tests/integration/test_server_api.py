"""The API over real sockets, asked by the openai package and by hand. The engine's words are the test's."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import pytest_asyncio

from glm_worker.errors import RequestRefused
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from glm_worker.server.edge.lanes import SHORT_BYTES
from glm_worker.server.jobs.order import Order
from glm_worker.server.openai.completions import intake
from glm_worker.supervisor.children import compilers
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

USER: list[Any] = [{"role": "user", "content": "What is 1+1?"}]
THOUGHT = "\n<think>1+1=2</think>\nIt is 2."
WEATHER: Any = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
CALL = (
    "\n<think>ask</think>\n"
    '<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Bad "Ems"</arg_value>\n</tool_call>'
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


async def begin(engine: ScriptedEngine) -> EngineRequest:
    """Say the first word of the next request's answer."""
    request = await engine.next_request()
    await engine.say(request, "1")
    return request


async def test_a_chat_is_answered_with_its_reasoning_apart(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=USER))
    await answered(engine, THOUGHT)
    completion = await asked
    (choice,) = completion.choices
    assert choice.message.content == "It is 2."
    assert choice.message.model_dump()["reasoning_content"] == "1+1=2"
    assert choice.finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(token_ids(THOUGHT)) + 1
    assert completion.usage.completion_tokens_details is not None
    assert completion.usage.completion_tokens_details.reasoning_tokens == len(token_ids("<think>1+1=2</think>"))
    assert completion.model == MODEL


async def test_a_streamed_chat_comes_piece_by_piece(world: ServerWorld, engine: ScriptedEngine) -> None:
    stream_task = asyncio.create_task(
        world.openai.chat.completions.create(
            model=MODEL, messages=USER, stream=True, stream_options={"include_usage": True}
        )
    )
    request = await engine.next_request()
    await engine.say(request, "\n<think>1")
    stream = await stream_task
    first, second = await anext(stream), await anext(stream)  # while the engine is still at it
    assert first.choices[0].delta.role == "assistant"
    assert second.choices[0].delta.model_dump()["reasoning_content"] == "1"
    await engine.say(request, "+1=2</think>\nIt is 2.", end="<|user|>")
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks if chunk.choices]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "+1=2"
    assert "".join(delta.get("content") or "" for delta in deltas) == "It is 2."
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(token_ids(THOUGHT)) + 1
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_stream_on_the_wire_is_server_sent_events(world: ServerWorld, engine: ScriptedEngine) -> None:
    body = {"model": MODEL, "messages": USER, "stream": True}
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", json=body))
    await answered(engine, "Hi")
    response = await asked
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_call_is_parsed(world: ServerWorld, engine: ScriptedEngine, stream: bool) -> None:
    asked = asyncio.create_task(
        world.openai.chat.completions.create(model=MODEL, messages=USER, tools=[WEATHER], stream=stream)
    )
    await answered(engine, CALL, end="<|observation|>")
    if stream:
        call, finish_reason = await put_together(await asked)
    else:
        (choice,) = (await asked).choices
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        (call,) = (tool_call.model_dump() for tool_call in choice.message.tool_calls)
        finish_reason = choice.finish_reason
    assert finish_reason == "tool_calls"
    assert call["type"] == "function"
    assert call["id"].startswith("call_")
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": 'Bad "Ems"'}


async def put_together(stream: Any) -> tuple[dict[str, Any], str | None]:
    call: dict[str, Any] = {}
    finish_reason = None
    async for chunk in stream:
        (choice,) = chunk.choices
        finish_reason = choice.finish_reason
        for part in choice.delta.tool_calls or ():
            assert part.index == 0
            if part.id is not None:
                assert not call, "the name comes once, whole"
                call = {"id": part.id, "type": part.type, "function": {"name": part.function.name, "arguments": ""}}
            call["function"]["arguments"] += part.function.arguments
    return call, finish_reason


async def test_a_tool_result_goes_back_to_the_model(world: ServerWorld, engine: ScriptedEngine) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}}
    messages: Any = [
        *USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "12 degrees"},
    ]
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER]))
    request = await answered(engine, "12 degrees")
    assert (
        token_ids("\n<tool_response>\n12 degrees\n</tool_response>")
        == request.prompt_token_ids[-len(token_ids("\n<tool_response>\n12 degrees\n</tool_response>")) - 1 : -1]
    )
    assert (await asked).choices[0].message.content == "12 degrees"


async def test_running_out_of_tokens_is_told(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=USER, max_tokens=3))
    request = await engine.next_request()
    assert request.max_tokens == 3
    await engine.step(RequestOutput(request.request_id, token_ids("1 2"), "length"))
    assert (await asked).choices[0].finish_reason == "length"


async def test_a_stop_string_ends_the_answer_and_the_engines_work(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=USER, stop=["3 4"]))
    request = await engine.next_request()
    await engine.say(request, "1 2 3 4 5 6")
    (choice,) = (await asked).choices
    assert (choice.message.content, choice.finish_reason) == ("1 2 ", "stop")
    assert await engine.next_cancelled() == request.request_id


@pytest.mark.parametrize("prompt", ["1 2 3", token_ids("1 2 3")])
async def test_a_completion_goes_on_from_text_or_tokens(
    world: ServerWorld, engine: ScriptedEngine, prompt: Any
) -> None:
    asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt=prompt, temperature=0.5, seed=3))
    request = await answered(engine, " 4<think>5")
    assert request.prompt_token_ids == token_ids("1 2 3")
    assert (request.sampling.temperature, request.sampling.seed) == (0.5, 3)
    completion = await asked
    assert completion.choices[0].text == " 4<think>5"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(token_ids("1 2 3"))


async def test_a_streamed_completion(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(
        world.openai.completions.create(
            model=MODEL, prompt="1 2 3", stream=True, stream_options={"include_usage": True}
        )
    )
    await answered(engine, " 4 5")
    chunks = [chunk async for chunk in await asked]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == " 4 5"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None


async def test_half_characters_are_never_sent(world: ServerWorld, engine: ScriptedEngine) -> None:
    text = "数字 🙂 – ü"
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=USER, stream=True))
    await answered(engine, text)
    parts = [chunk.choices[0].delta.content or "" async for chunk in await asked]
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts)


async def test_many_streams_at_once_do_not_mix(world: ServerWorld, engine: ScriptedEngine) -> None:
    async def ask(number: int) -> str:
        prompt = f"say {number}"
        stream = await world.openai.completions.create(model=MODEL, prompt=prompt, stream=True)
        return "".join([chunk.choices[0].text async for chunk in stream])

    asked = [asyncio.create_task(ask(number)) for number in range(40)]
    requests = [await engine.next_request() for _ in asked]
    for request in requests:
        await engine.step(RequestOutput(request.request_id, token_ids("echo:")))
    for request in reversed(requests):
        await engine.step(
            RequestOutput(request.request_id, [*request.prompt_token_ids, *token_ids("<|user|>")], "stop")
        )
    assert await asyncio.gather(*asked) == [f"echo:say {number}" for number in range(40)]


async def test_the_model_is_listed(world: ServerWorld) -> None:
    models = await world.openai.models.list()
    assert [model.id for model in models.data] == [MODEL]
    assert (await world.openai.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError, match=MODEL):
        await world.openai.models.retrieve("other")


async def test_another_model_is_not_found(world: ServerWorld) -> None:
    with pytest.raises(openai.NotFoundError, match=MODEL) as caught:
        await world.openai.chat.completions.create(model="gpt-4", messages=USER)
    assert caught.value.code == "model_not_found"


async def test_unknown_fields_are_named(world: ServerWorld) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await world.openai.chat.completions.create(model=MODEL, messages=USER, extra_body={"top_kk": 5})
    assert caught.value.param == "top_kk"


async def test_a_prompt_that_is_too_long_is_told_with_both_numbers(world: ServerWorld) -> None:
    with pytest.raises(openai.BadRequestError, match=r"2048 tokens.*2101 together") as caught:
        await world.openai.completions.create(model=MODEL, prompt=[5] * 2100)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/embeddings", 404, "not_found"),
        ("GET", "/" + "x" * 3000, 404, "not_found"),
        ("GET", "/v1/models/" + "x" * 3000, 404, "model_not_found"),
    ],
)
async def test_errors_of_routing_have_the_same_shape(
    world: ServerWorld, method: str, path: str, status: int, code: str
) -> None:
    response = await world.http.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["code"] == code
    assert len(response.json()["error"]["message"]) < 250


@pytest.mark.parametrize(
    ("path", "reason"),
    [("embeddings", "no embeddings"), ("audio/transcriptions", "neither hears nor speaks"), ("files", "no files")],
)
async def test_what_a_model_that_writes_text_has_not_is_refused_with_the_reason(
    world: ServerWorld, path: str, reason: str
) -> None:
    response = await world.http.post(f"/v1/{path}", json={"model": MODEL})
    assert response.status_code == 404
    assert reason in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe"])
async def test_malformed_json_is_refused(world: ServerWorld, body: bytes) -> None:
    response = await world.http.post("/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


async def test_a_body_that_is_too_large_is_refused_and_the_server_lives_on(world: ServerWorld) -> None:
    response = await world.http.post("/v1/chat/completions", content=b" " * (16 * 2**20 + 1))
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert (await world.http.get("/v1/models")).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_body_far_longer_than_the_context_is_refused_while_a_stream_flows(
    world: ServerWorld, engine: ScriptedEngine, path: str
) -> None:
    flowing = await asyncio.gather(
        world.openai.completions.create(model=MODEL, prompt="1", stream=True, timeout=DEADLINE_S), begin(engine)
    )
    stream, request = flowing
    assert (await anext(stream)).choices[0].text == "1"
    text = "a b c " * 2_600_000
    body = {"messages": [{"role": "user", "content": text}]} if "chat" in path else {"prompt": text}
    huge = asyncio.create_task(world.http.post(path, content=json.dumps({"model": MODEL, **body}).encode()))
    longest_gap_s, num_turns = 0.0, 0
    while not huge.done() or num_turns < 3:
        begun = time.monotonic()
        await engine.say(request, "2")
        assert (await anext(stream)).choices[0].text == "2"
        longest_gap_s = max(longest_gap_s, time.monotonic() - begun)
        num_turns += 1
    await stream.close()
    response = await huge
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert "2048 tokens" in response.json()["error"]["message"]
    assert longest_gap_s < 5  # it was 30 s of standstill


async def test_a_lone_surrogate_in_the_arguments_of_a_call_is_refused(world: ServerWorld) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"\\ud83d"}'}}
    messages = [*USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    response = await world.http.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[1].tool_calls[0].function.arguments"


async def test_a_long_body_is_prepared_without_holding_up_others(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, others_done = threading.Event(), threading.Event()

    def prepare(*_: object) -> Order:
        begun.set()
        others_done.wait(DEADLINE_S)
        raise RequestRefused("prepared")

    monkeypatch.setattr(intake, "order_of", prepare)
    body = b'{"model": "m", "prompt": "x"}' + b" " * SHORT_BYTES
    long = asyncio.create_task(world.http.post("/v1/completions", content=body))
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    assert (await world.http.get("/v1/models")).status_code == 200
    assert not long.done()
    others_done.set()
    assert (await long).json()["error"]["message"] == "prepared"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_goes_away_frees_the_engine(
    world: ServerWorld, engine: ScriptedEngine, stream: bool, has_begun: bool
) -> None:
    body = json.dumps({"model": MODEL, "messages": USER, "stream": stream}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    request = await engine.next_request()
    if has_begun:
        await engine.say(request, "1 2")
        if stream:
            await asyncio.wait_for(reader.readuntil(b"data: "), DEADLINE_S)
    writer.close()
    await writer.wait_closed()
    assert await engine.next_cancelled() == request.request_id
    await world.until(f'glm_requests_total{{model="{MODEL}",outcome="cancelled"}}', 1)
    assert await world.value('glm_num_requests_waiting{model="glm-nano"}') == 0


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_error(world: ServerWorld) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", world.port)
    writer.write(b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"model"')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await world.until(f'glm_requests_total{{model="{MODEL}",outcome="cancelled"}}', 1)


async def test_clients_that_go_away_wait_for_no_grammar_any_more(world: ServerWorld, engine: ScriptedEngine) -> None:
    def body(number: int) -> bytes:
        return json.dumps({"model": MODEL, "messages": USER, "structured_outputs": {"choice": [f"{number}"]}}).encode()

    others = {each.pid for each in compile_processes()}
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", content=body(17)))
    await answered(engine, "17")
    assert (await asked).status_code == 200
    (process,) = (each for each in compile_processes() if each.pid not in others)
    process.suspend()  # it compiles nothing until the others are gone
    writers = []
    for number in range(16):  # as many as may wait
        _, writer = await asyncio.open_connection("127.0.0.1", world.port)
        sent = body(number)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(sent) + sent)
        writers.append(writer)
    await world.http.get("/v1/models")  # who came before has been read by then
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    await world.until(f'glm_requests_total{{model="{MODEL}",outcome="cancelled"}}', 16)
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", content=body(16)))
    process.resume()
    await answered(engine, "16")
    assert (await asked).status_code == 200


def compile_processes() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if is_compiler(each)]


def is_compiler(process: psutil.Process) -> bool:
    try:
        return process.name() == compilers.NAME
    except psutil.NoSuchProcess:
        return False


async def test_a_client_that_reads_nothing_holds_up_nobody(world: ServerWorld, engine: ScriptedEngine) -> None:
    body = json.dumps({"model": MODEL, "prompt": "1", "stream": True}).encode()
    deaf = socket.create_connection(("127.0.0.1", world.port))
    with deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        stuck = await engine.next_request()
        asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="2"))
        other = await engine.next_request()
        for _ in range(2000):
            await engine.step(RequestOutput(stuck.request_id, token_ids("a word more")))
        await engine.say(other, "fine", end="<|user|>")
        assert (await asked).choices[0].text == "fine"
    assert await engine.next_cancelled() == stuck.request_id


async def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path) -> None:
    async with a_server(tmp_path, max_waiting_requests=1, max_num_seqs=1) as world:
        engine = await world.serve()
        body = {"model": MODEL, "prompt": "1"}
        tasks = [asyncio.create_task(world.http.post("/v1/completions", json=body)) for _ in range(2)]
        requests = [await engine.next_request() for _ in tasks]
        response = await world.http.post("/v1/completions", json=body)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "overloaded"
        for request in requests:
            await engine.say(request, "2", end="<|user|>")
        assert [(await task).status_code for task in tasks] == [200, 200]


async def test_connections_are_kept_alive(world: ServerWorld) -> None:
    async with httpx.AsyncClient(base_url=world.url, limits=httpx.Limits(max_connections=1)) as client:
        for _ in range(3):
            assert (await client.get("/v1/models")).headers.get("connection") != "close"


async def test_the_metrics_count_what_happened(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=USER))
    request = await engine.next_request()
    await engine.begin(request)
    await engine.say(request, THOUGHT, end="<|user|>")
    await asked
    labels = f'{{model="{MODEL}",slo_class="default"}}'
    for name in ("time_to_first_token", "time_to_first_answer_token", "e2e_request_latency", "request_queue_time"):
        assert await world.value(f"glm_{name}_seconds_count{labels}") == 1
    num_tokens = len(token_ids(THOUGHT)) + 1
    assert await world.value(f"glm_inter_token_latency_seconds_count{labels}") == num_tokens - 1
    assert await world.value(f'glm_prompt_tokens_total{{model="{MODEL}"}}') == len(request.prompt_token_ids)
    assert await world.value(f'vllm:generation_tokens_total{{engine="0",model_name="{MODEL}"}}') == num_tokens
    assert await world.value(f'glm_engine_steps_total{{model="{MODEL}"}}') == num_tokens + 1
