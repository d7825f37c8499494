"""Hostile requests, in short: nothing breaks, errors tell what is wrong and nothing else, and answers stay right.

The long form of the first two is `make fuzz`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fuzz import bodies, described
from fuzz.judge import complaints
from fuzz.seeds import seeds
from fuzz.server_process import ServerProcess, a_server_process, answer_all, odd_answers, plain_answer
from fuzz.wire import Connection
from integration.server_world import MODEL, ScriptedEngine

NUM_BODIES = 1500  # make fuzz sends 20,000


@contextlib.asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[tuple[ServerProcess, ScriptedEngine]]:
    async with a_server_process(folder) as world:
        yield world, await world.serve()


@contextlib.asynccontextmanager
async def answering(engine: ScriptedEngine, answer: Callable[..., list[int]]) -> AsyncIterator[None]:
    task = asyncio.create_task(answer_all(engine, answer))
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        task.cancel()


async def assert_well(world: ServerProcess, engine: ScriptedEngine) -> None:
    """Nothing is left in flight, the log has no traceback, and an answer is what the engine says."""
    assert not any((await world.in_flight()).values())
    assert "Traceback" not in world.log.read_text()
    asked = asyncio.create_task(
        world.http.post(
            "/v1/chat/completions", json={"model": MODEL, "messages": [{"role": "user", "content": "What is 12 + 30?"}]}
        )
    )
    await engine.say(await engine.next_request(), "<think>It is a sum.</think>The answer is 42.", end="<|user|>")
    assert (await asked).json()["choices"][0]["message"]["content"] == "The answer is 42."


async def test_no_mutated_body_breaks_the_server_or_gets_more_than_a_plain_refusal(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, engine):
        async with answering(engine, odd_answers(1)):
            report = await bodies.send(world.port, seeds(MODEL), range(NUM_BODIES), seed=1)
        assert report.failures == []
        assert report.num_cases == NUM_BODIES
        assert {200, 400, 404} <= report.statuses.keys(), "some of each kind"
        await assert_well(world, engine)


def a_chat(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "x"}], **fields}).encode()


def a_tool(schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": schema}}


def branching(depth: int) -> dict[str, Any]:
    """Return a schema that is 2^depth when written out."""
    both = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    root = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}
    return {**root, "$defs": {**both, f"d{depth}": {"type": "integer"}}}


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
LARGE = {
    "a million empty lists": ("/v1/completions", b'{"model": "glm-nano", "prompt": [' + b"[]," * 300_000 + b"[]]}"),
    "26,000 calls": ("/v1/chat/completions", a_chat(messages=[{"role": "assistant", "tool_calls": [CALL] * 26_000}])),
    "100,000 stop strings": ("/v1/chat/completions", a_chat(stop=["s"] * 100_000)),
    "a large logit_bias": ("/v1/chat/completions", a_chat(logit_bias={str(n): 1 for n in range(100_000)})),
    "a long string": ("/v1/messages", a_chat(max_tokens=1, system="x" * (16 * 2**20 - 500))),
    "a wall of braces": ("/v1/responses", b'{"a":' * 100_000),
}


async def test_bodies_that_are_small_to_send_and_large_to_read_are_refused(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, engine):
        connection = Connection(world.port)
        for name, (path, body) in LARGE.items():
            reply = await connection.post(path, body)
            assert reply.status in (400, 413), name
            assert complaints(path, reply) == [], name
        await connection.close()
        await assert_well(world, engine)


async def test_schemas_that_are_endless_when_written_out_end_at_once(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, engine):
        connection = Connection(world.port)
        async with answering(engine, plain_answer):
            for fields in (
                {"tools": [a_tool(branching(32))]},
                {"tools": [a_tool({"$ref": "#"})]},
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "s", "schema": branching(32)},
                    }
                },
            ):
                reply = await connection.post("/v1/chat/completions", a_chat(**fields))
                assert reply.status in (200, 400), reply.body
                assert complaints("/v1/chat/completions", reply) == []
        await connection.close()
        await assert_well(world, engine)


@pytest.mark.long  # make fuzz sends 5,500 of these
async def test_the_server_keeps_to_its_own_description(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, engine):
        async with answering(engine, odd_answers(2)):
            report = await asyncio.to_thread(described.send, world.port, 80, aliases=False)
        assert report.failures == []
        assert report.num_cases >= 60
        assert report.statuses[200] >= 10, "bodies that are valid are answered"
        await assert_well(world, engine)
