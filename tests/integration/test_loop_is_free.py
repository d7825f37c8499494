"""Nothing of one request holds the event loop, and with it every other stream, for more than 50 ms.

The server runs as a process of its own under a watch (loop_watch.py) that leaves out what the machine did meanwhile.
What holds it once by chance is tried again; what holds it each time is a fault, and its stacks are told.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fuzz.server_process import a_server_process
from fuzz.wire import Connection
from glm_worker.messages import EngineLimits, RequestOutput, TokenLogprobs
from glm_worker.request import EngineRequest
from integration.loop_watch import FILE, TARGET, TICK_S, Stretch, Watch
from integration.server_world import ScriptedEngine, token_ids
from integration.tiny_models import NANO

MOST_S = 0.050
TRIES = 3
MAX_LEN = 131_072
LIMITS = EngineLimits(max_model_len=MAX_LEN, num_blocks=2 * MAX_LEN // 16, block_size=16, max_num_seqs=64)
Json = dict[str, Any]
MIB = 2**20


def plain(request: EngineRequest) -> list[RequestOutput]:
    return [RequestOutput(request.request_id, token_ids("yes"), "length")]


def tokens(text: str, num_tokens: int, *, at_once: int = 64) -> Callable[[EngineRequest], list[RequestOutput]]:
    """Return what answers with this text again and again, in steps of so many tokens."""

    def answer(request: EngineRequest) -> list[RequestOutput]:
        ids = list(itertools.islice(itertools.cycle(token_ids(text)), num_tokens))
        k = request.num_logprobs
        each = TokenLogprobs(-0.5, 1, [(n, -0.5 - n) for n in range(k or 0)])
        parts = [ids[at : at + at_once] for at in range(0, num_tokens, at_once)]
        last = len(parts) - 1
        return [
            RequestOutput(
                request.request_id,
                part,
                "length" if number == last else None,
                [] if k is None else [each] * len(part),
            )
            for number, part in enumerate(parts)
        ]

    return answer


@dataclass(frozen=True)
class Case:
    """A request, and what the engine says to it."""

    path: str
    body: Callable[[], bytes]
    answer: Callable[[EngineRequest], list[RequestOutput]] = plain
    is_compiled: bool = False  # whether a grammar comes of it, and so it must be answered


def chat(*messages: Json, **fields: Any) -> Callable[[], bytes]:
    said = list(messages) or [{"role": "user", "content": "x"}]
    return lambda: json.dumps({"model": "m", "messages": said, "max_tokens": 100, **fields}).encode()


def raw(begin: bytes, item: bytes, end: bytes) -> Callable[[], bytes]:
    count = (16 * MIB - 1024 - len(begin) - len(end)) // len(item)
    return lambda: b'{"model": "m", ' + begin + item * count + end + b"}"


def a_tool(number: int, num_fields: int = 8) -> Json:
    properties = {
        f"field_{n}": {"type": ["string", "null"], "description": f"what field {n} of tool {number} is for"}
        for n in range(num_fields)
    }
    schema = {"type": "object", "properties": properties, "required": ["field_0"], "additionalProperties": False}
    return {"type": "function", "function": {"name": f"tool_{number}", "description": "a tool", "parameters": schema}}


def a_schema(num_fields: int, depth: int) -> Json:
    """Return a schema of num_fields ** depth leaves."""
    if depth == 0:
        return {"type": "string", "enum": ["one", "two", "three"], "description": "a word that says what it is"}
    inner = a_schema(num_fields, depth - 1)
    properties = {f"field_{n}": inner for n in range(num_fields)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def agent_turns(count: int) -> list[Json]:
    turns: list[Json] = []
    for n in range(count):
        call = {"id": f"c{n}", "type": "function", "function": {"name": "tool_0", "arguments": '{"field_0": "a"}'}}
        turns += [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{n}", "content": f"line {n} of the file\n" * 5},
        ]
    return turns


def anthropic_turns(count: int) -> list[Json]:
    turns: list[Json] = [{"role": "user", "content": "go"}]
    for n in range(count):
        use = {"type": "tool_use", "id": f"t{n}", "name": "tool_0", "input": {"field_0": "a"}}
        result = {"type": "tool_result", "tool_use_id": f"t{n}", "content": f"line {n} of the file\n" * 5}
        turns += [{"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    return turns


def response_items(count: int) -> list[Json]:
    items: list[Json] = [{"role": "user", "content": "go"}]
    for n in range(count):
        call = {"type": "function_call", "call_id": f"c{n}", "name": "tool_0", "arguments": '{"field_0": "a"}'}
        items += [call, {"type": "function_call_output", "call_id": f"c{n}", "output": f"line {n} of the file\n" * 5}]
    return items


FOX = "The quick brown fox jumps over the lazy dog; 12 + 30 = 42, said he. "
CHATS, TEXTS, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
QUIET: Json = {"thinking": {"type": "disabled"}}
LONG: Json = {"max_tokens": 100_000, "ignore_eos": True, **QUIET}
VALUE = '{"a": [1, 2, 3, {"b": "c"}], "d": "' + "words and words " * 20 + '"}, '
CALL = "<tool_call>tool_0\n<arg_key>field_0</arg_key>\n<arg_value>["
PROMPTS = {
    "a prompt of 100,000 tokens": Case(CHATS, chat({"role": "user", "content": FOX * 3000})),
    "a text of 100,000 token ids": Case(
        TEXTS, lambda: json.dumps({"model": "m", "prompt": [7] * 100_000, "max_tokens": 5}).encode()
    ),
    "500 tools": Case(CHATS, chat(tools=[a_tool(n) for n in range(500)])),
    "a forced call over 500 tools": Case(CHATS, chat(tools=[a_tool(n) for n in range(500)], tool_choice="required")),
    "500 strict tools": Case(
        CHATS,
        chat(tools=[{"type": "function", "function": {**a_tool(n)["function"], "strict": True}} for n in range(500)]),
    ),
    "a schema of 512 leaves": Case(
        CHATS,
        chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": a_schema(8, 3)}}),
        is_compiled=True,
    ),
    "a forced call over 10 tools": Case(
        CHATS, chat(tools=[a_tool(n) for n in range(10)], tool_choice="required"), is_compiled=True
    ),
    "a schema of 4,096 leaves": Case(
        CHATS,
        chat(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": a_schema(8, 4)}}),
    ),
    "16 MiB of one string": Case(CHATS, chat({"role": "user", "content": "x" * (16 * MIB - 1000)})),
    "16 MiB of empty lists": Case(TEXTS, raw(b'"prompt": [', b"[],", b"[]]")),
    "5 MB of escapes": Case(CHATS, chat({"role": "user", "content": "\n" * 2_500_000})),
    "5 MB of one word": Case(CHATS, chat({"role": "user", "content": "x" * 5_000_000})),
    "5 MB of other letters": Case(CHATS, chat({"role": "user", "content": "数字" * 400_000})),
    "4,000 messages": Case(CHATS, chat(*({"role": "user", "content": f"message {n}"} for n in range(4000)))),
    "500 turns of an agent": Case(CHATS, chat({"role": "user", "content": "go"}, *agent_turns(500), tools=[a_tool(0)])),
    "500 turns of an agent in messages": Case(
        MESSAGES,
        lambda: json.dumps({"model": "m", "max_tokens": 50, "messages": anthropic_turns(500)}).encode(),
    ),
    "500 turns of an agent in a response": Case(
        RESPONSES, lambda: json.dumps({"model": "m", "input": response_items(500)}).encode()
    ),
    "16 long stop strings": Case(CHATS, chat(stop=["a" * 1000 + chr(ord("b") + n) for n in range(16)])),
    "64 prompts of 2,000 tokens": Case(
        TEXTS, lambda: json.dumps({"model": "m", "prompt": [FOX * 60] * 64, "max_tokens": 5}).encode()
    ),
    "16 answers to a prompt of 30,000 tokens": Case(CHATS, chat({"role": "user", "content": FOX * 900}, n=16)),
    "1 MB to tokenize": Case(
        "/tokenize", lambda: json.dumps({"model": "m", "prompt": FOX * 15_000, "return_token_strs": True}).encode()
    ),
    "190,000 ids to detokenize": Case(
        "/detokenize", lambda: json.dumps({"model": "m", "tokens": [7, 8] * 95_000}).encode()
    ),
}
ANSWERS = {
    "a whole answer of 100,000 tokens": Case(CHATS, chat(**LONG), tokens(FOX, 100_000)),
    "a whole answer of 100,000 tokens in one step": Case(CHATS, chat(**LONG), tokens(FOX, 20_000, at_once=500)),
    "a whole message of 100,000 tokens": Case(
        MESSAGES,
        lambda: json.dumps(
            {"model": "m", "max_tokens": 100_000, "messages": [{"role": "user", "content": "x"}], **QUIET}
        ).encode(),
        tokens(FOX, 100_000),
    ),
    "a whole response of 100,000 tokens": Case(
        RESPONSES,
        lambda: json.dumps(
            {"model": "m", "max_output_tokens": 100_000, "input": "x", "reasoning": {"effort": "none"}}
        ).encode(),
        tokens(FOX, 100_000),
    ),
    "20 logprobs of each of 50,000 tokens": Case(
        CHATS, chat(logprobs=True, top_logprobs=20, **LONG), tokens(FOX, 50_000, at_once=16)
    ),
    "5 logprobs of each of 50,000 tokens of a text": Case(
        TEXTS,
        lambda: json.dumps(
            {"model": "m", "prompt": "x", "max_tokens": 100_000, "ignore_eos": True, "logprobs": 5}
        ).encode(),
        tokens(FOX, 50_000, at_once=16),
    ),
    "20 logprobs of each of 20,000 tokens of a response": Case(
        RESPONSES,
        lambda: json.dumps(
            {
                "model": "m",
                "input": "x",
                "max_output_tokens": 100_000,
                "reasoning": {"effort": "none"},
                "top_logprobs": 20,
                "include": ["message.output_text.logprobs"],
            }
        ).encode(),
        tokens(FOX, 20_000, at_once=16),
    ),
    "an argument of 50,000 tokens": Case(
        CHATS, chat(tools=[a_tool(0)], **LONG), tokens(CALL + VALUE * 300, 50_000)
    ),
    "blanks": Case(CHATS, chat(**LONG), tokens("\n\n \n", 50_000)),
    "openings of calls that are none": Case(
        CHATS, chat(tools=[a_tool(0)], **LONG), tokens("<tool_call>", 20_000)
    ),
    "stop strings that nearly come": Case(
        CHATS, chat(stop=["a" * 1000 + chr(ord("b") + n) for n in range(16)], **LONG), tokens("a", 20_000)
    ),
}  # fmt: skip
CASES = {**PROMPTS, **ANSWERS}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[int, ScriptedEngine, Path]]:
    model, watch = a_long_model(tmp_path / "model"), tmp_path / "stretches.jsonl"
    settings = {"GLM_MODEL": str(model), "GLM_SERVED_MODEL_NAME": "m", FILE: str(watch)}
    settings["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)  # the watch is a test's
    async with a_server_process(tmp_path, target=TARGET, **settings) as server:
        yield server.port, await server.serve(limits=LIMITS), watch


def a_long_model(folder: Path) -> Path:
    """Return the shipped model with room for long prompts. Nobody computes anything of it."""
    folder.mkdir()
    for path in NANO.iterdir():
        if path.suffix in (".json", ".jinja"):
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": MAX_LEN}))
    return folder


async def answer_all(engine: ScriptedEngine, answer: Callable[[EngineRequest], list[RequestOutput]]) -> None:
    while True:
        request = await engine.submitted.get()
        for output in answer(request):
            await engine.step(output)
            await asyncio.sleep(0)


async def longest(world: tuple[int, ScriptedEngine, Path], case: Case) -> tuple[int, list[Stretch]]:
    """Return the status of a case's reply, and what held the loop meanwhile."""
    port, engine, watch = world
    since = time.monotonic()
    connection = Connection(port, deadline_s=300)
    answering = asyncio.create_task(answer_all(engine, case.answer))
    try:
        reply = await connection.post(case.path, case.body())
    finally:
        answering.cancel()
        await connection.close()
    await asyncio.sleep(0.1)  # the watch's next tick
    return reply.status, Stretch.all_of(watch, since)


async def test_no_request_holds_the_loop(world: tuple[int, ScriptedEngine, Path]) -> None:
    too_long: dict[str, Stretch] = {}
    for name, case in CASES.items():
        for _ in range(TRIES):
            status, stretches = await longest(world, case)
            assert status < 500, name
            assert status == 200 or not case.is_compiled, name
            if not stretches or stretches[0].held_s <= MOST_S:
                too_long.pop(name, None)
                break
            too_long[name] = stretches[0]
    told = [f"{name}: {each.held_s:.3f} s\n{each.stacks}" for name, each in too_long.items()]
    assert not told, "\n\n".join(told)


async def test_the_watch_sees_what_holds_a_loop_and_who(tmp_path: Path) -> None:
    with (tmp_path / "stretches").open("a") as file:
        watch = Watch(file)
        since = time.monotonic()
        watch.begin()
        await asyncio.sleep(4 * TICK_S)
        _work(0.100)
        await asyncio.sleep(4 * TICK_S)
        by_the_loop = Stretch.all_of(tmp_path / "stretches", since)[0]
        since = time.monotonic()
        await asyncio.to_thread(sorted, range(4_000_000, 0, -1))  # keeps Python's lock
        await asyncio.sleep(4 * TICK_S)
        by_a_thread = Stretch.all_of(tmp_path / "stretches", since)[0]
        watch.end()
    assert 0.09 < by_the_loop.held_s < 0.2
    assert "_work" in by_the_loop.stacks
    assert by_a_thread.held_s > 0.02


def _work(seconds: float) -> None:
    """Use so much CPU time."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass
