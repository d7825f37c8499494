"""Hostile requests, in short: nothing breaks, errors tell what is wrong and nothing else, and answers stay right.

The long form of the first two is `make fuzz`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fuzz import bodies, described
from fuzz.seeds import seeds
from fuzz.server_process import ServerProcess, a_server_process, answer_all, odd_answers
from integration.server_world import MODEL, ScriptedEngine


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
            report = await bodies.send(world.port, seeds(MODEL), range(1500), seed=1)
        assert report.failures == []
        assert report.num_cases == 1500
        assert {200, 400, 404} <= report.statuses.keys(), "some of each kind"
        await assert_well(world, engine)


async def test_the_server_keeps_to_its_own_description(tmp_path: Path) -> None:
    async with a_world(tmp_path) as (world, engine):
        async with answering(engine, odd_answers(2)):
            report = await asyncio.to_thread(described.send, world.port, 200, aliases=False)
        assert report.failures == []
        assert report.num_cases >= 150
        assert report.statuses[200] >= 20, "bodies that are valid are answered"
        await assert_well(world, engine)
