"""A request whose row is broken ends with an error in the words of its surface, and all others go on."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, TOKENIZER, ScriptedEngine, ServerWorld, a_server, token_ids

CAUSE = "the model computed no number for the next token of this request"
SAID = [{"role": "user", "content": "What is 12 + 30?"}]
SURFACES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID},
    "/api/paas/v4/chat/completions": {"messages": SAID},
    "/v1/completions": {"prompt": "12 + 30 ="},
    "/v1/messages": {"messages": SAID, "max_tokens": 100},
    "/v1/responses": {"input": "What is 12 + 30?"},
}


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


def ask(world: ServerWorld, path: str, **fields: Any) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(world.http.post(path, json={"model": MODEL, **SURFACES[path], **fields}))


def text_of(ids: list[int]) -> str:
    return TOKENIZER.decode(ids)


async def fail(engine: ScriptedEngine, request: EngineRequest, *others: RequestOutput) -> None:
    await engine.step(RequestOutput(request.request_id, [], "failed", error=CAUSE, is_fault=True), *others)


@pytest.mark.parametrize("path", SURFACES)
async def test_a_whole_answer_that_fails_is_a_500_and_others_go_on(
    world: ServerWorld, engine: ScriptedEngine, path: str
) -> None:
    broken = ask(world, path)
    request = await engine.next_request()
    other = ask(world, "/v1/completions")
    going_on = await engine.next_request()
    await engine.step(RequestOutput(request.request_id, token_ids(" 4")[:1]))
    await fail(engine, request, RequestOutput(going_on.request_id, token_ids(" 4")[:1]))
    response = await broken
    assert response.status_code == 500
    error = response.json()["error"]
    assert CAUSE in error["message"]
    assert path == "/v1/messages" or "answer_failed" in error.values() or error["code"] == "500"
    await engine.say(going_on, "2", end="<|user|>")
    assert (await other).json()["choices"][0]["text"] == text_of(token_ids(" 4")[:1]) + "2"
    assert engine.cancelled.empty(), "the engine has ended it by itself"
    assert await world.value(f'glm_requests_total{{model="{MODEL}",outcome="failed"}}') == 1
    assert await world.value(f'glm_in_flight_tokens{{model="{MODEL}"}}') == 0


@pytest.mark.parametrize("path", SURFACES)
async def test_a_stream_that_fails_ends_with_an_event_that_says_so(
    world: ServerWorld, engine: ScriptedEngine, path: str
) -> None:
    broken = ask(world, path, stream=True)
    request = await engine.next_request()
    await engine.say(request, "<think>a sum</think>\nIt is")
    await fail(engine, request)
    response = await broken
    assert response.status_code == 200
    events = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    assert "[DONE]" not in events
    told = [json.loads(event) for event in events]
    assert any("error" in (*event, event.get("type")) and CAUSE in json.dumps(event) for event in told[-2:])
    assert path != "/v1/responses" or told[-1]["type"] == "response.failed"


async def test_a_response_in_the_background_that_fails_says_so(world: ServerWorld, engine: ScriptedEngine) -> None:
    begun = (await ask(world, "/v1/responses", background=True, store=True)).json()
    await fail(engine, await engine.next_request())
    await world.until(f'glm_requests_total{{model="{MODEL}",outcome="failed"}}', 1)
    async with asyncio.timeout(30):
        while (found := (await world.http.get(f"/v1/responses/{begun['id']}")).json())["status"] != "failed":
            pass
    assert found["error"] == {"code": "server_error", "message": CAUSE}


async def test_what_the_request_itself_makes_impossible_stays_the_clients_to_mend(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    refused = ask(world, "/v1/completions")
    request = await engine.next_request()
    await engine.step(RequestOutput(request.request_id, [], "failed", error="the grammar allows no further token"))
    response = await refused
    assert (response.status_code, response.json()["error"]["code"]) == (400, "cannot_be_answered")
