"""Draining: first nothing changes but `Connection: close`, then only what runs is finished, then it is over."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from glm_worker.messages import Drained
from glm_worker.request import EngineRequest
from glm_worker.server.responses import background
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

BODY = {"model": MODEL, "prompt": "1 2 3"}
FOR_EVER_S = 10_000.0


def ask(world: ServerWorld, *, stream: bool = False) -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(world.http.post("/v1/completions", json={**BODY, "stream": stream}))


async def until_refused(world: ServerWorld) -> httpx.Response:
    """Ask until the server accepts no more; what it accepted meanwhile is given up again."""
    while True:
        asked = ask(world)
        done, _ = await asyncio.wait({asked}, timeout=0.5)
        if done:
            return asked.result()
        asked.cancel()
        await asyncio.wait({asked})


async def answer_next(engine: ScriptedEngine) -> None:
    await engine.say(await engine.next_request(), " 4", end="<|user|>")


async def test_an_idle_server_drains_at_once(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        await world.serve()
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        assert await world.drained() == Drained(0)


async def test_requests_are_accepted_for_a_while_and_connections_closed(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        assert (await world.http.get("/v1/models")).headers.get("connection") != "close"
        world.drain(accept_s=FOR_EVER_S, deadline_s=FOR_EVER_S)
        await world.metrics()
        asked = ask(world)
        await answer_next(engine)
        response = await asked
        assert response.status_code == 200
        assert response.headers["connection"] == "close"


async def test_what_is_accepted_late_has_the_whole_deadline(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        world.drain(accept_s=FOR_EVER_S, deadline_s=0)
        await world.metrics()
        asked = ask(world)
        await answer_next(engine)
        assert (await asked).status_code == 200


async def test_after_that_new_requests_get_503_and_old_ones_finish(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        running = ask(world)
        request = await engine.next_request()
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        response = await until_refused(world)
        assert response.status_code == 503
        assert response.headers["retry-after"]
        assert response.headers["connection"] == "close"
        assert "draining" in response.json()["error"]["message"]
        await engine.say(request, " 4", end="<|user|>")
        assert (await running).status_code == 200
        assert await world.drained() == Drained(0)


async def test_past_the_deadline_the_rest_ends_with_an_error(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        whole, requests = ask(world), [await engine.next_request()]
        stream_task = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1 2 3", stream=True))
        requests.append(await engine.next_request())
        await engine.say(requests[1], "4")
        stream = await stream_task
        assert (await anext(stream)).choices[0].text == "4"
        world.drain(accept_s=0, deadline_s=0.3)
        assert await world.drained() == Drained(2)
        assert {await engine.next_cancelled(), await engine.next_cancelled()} == {r.request_id for r in requests}
        assert (await whole).status_code == 503
        with pytest.raises(openai.APIError, match="stopped before"):
            await anext(stream)


async def test_a_second_request_to_drain_can_only_hurry(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        await world.serve()
        world.drain(accept_s=FOR_EVER_S, deadline_s=FOR_EVER_S)
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        assert await world.drained() == Drained(0)
        world.drain(accept_s=FOR_EVER_S, deadline_s=FOR_EVER_S)
        assert await world.drained() == Drained(0)


async def test_requests_that_are_held_end_with_an_error_too(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        held = ask(world)
        await world.until(f'glm_num_requests_waiting{{model="{MODEL}"}}', 1)
        world.drain(accept_s=0, deadline_s=0.2)
        assert await world.drained() == Drained(1)
        assert (await held).status_code == 503


async def begun(world: ServerWorld, engine: ScriptedEngine, **fields: Any) -> tuple[str, EngineRequest]:
    """Return the path of a response that is made in the background, and what the engine has of it."""
    body = {"model": MODEL, "input": "1+1?", "background": True, "store": True, **fields}
    response = (await world.http.post("/v1/responses", json=body)).json()
    return f"/v1/responses/{response['id']}", await engine.next_request()


async def standing(world: ServerWorld, path: str, *ends: str) -> dict[str, Any]:
    """Poll for a response until it has come to one of these ends."""
    async with asyncio.timeout(DEADLINE_S):
        while (found := (await world.http.get(path)).json())["status"] not in ends:
            pass
    return dict(found)


async def test_a_response_in_the_background_is_waited_for_until_somebody_has_read_it(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        path, request = await begun(world, engine)
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        drained = asyncio.create_task(world.drained())
        assert (await until_refused(world)).status_code == 503
        assert (await world.http.get(path)).json()["status"] == "queued"
        assert not drained.done()
        await engine.say(request, "2", end="<|user|>")
        found = await standing(world, path, "completed")
        assert found["output"][-1]["content"][0]["text"] == "2"
        assert await drained == Drained(0)


async def test_a_response_that_nobody_reads_holds_up_a_drain_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "READ_S", 0.05)
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        path, request = await begun(world, engine)
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        assert (await until_refused(world)).status_code == 503
        await engine.say(request, "2", end="<|user|>")
        assert await world.drained() == Drained(0)
        assert (await world.http.get(path)).json()["status"] == "completed"


@pytest.mark.parametrize("how", ["delete", "cancel"])
async def test_a_drain_does_not_wait_for_what_its_client_has_ended(tmp_path: Path, how: str) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        path, _ = await begun(world, engine)
        world.drain(accept_s=0, deadline_s=FOR_EVER_S)
        assert (await until_refused(world)).status_code == 503
        ended = world.http.delete(path) if how == "delete" else world.http.post(f"{path}/cancel")
        assert (await ended).status_code == 200
        async with asyncio.timeout(background.READ_S / 2):
            assert await world.drained() == Drained(0)


async def test_past_the_deadline_a_response_in_the_background_has_failed_and_says_why(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        path, request = await begun(world, engine)
        await engine.say(request, "2 and")
        world.drain(accept_s=0, deadline_s=0.3)
        found = await standing(world, path, "failed", "completed", "incomplete", "cancelled")
        sentence = "the server stopped before this answer was finished"
        assert (found["status"], found["error"]) == ("failed", {"code": "server_error", "message": sentence})
        assert await engine.next_cancelled() == request.request_id
        assert await world.drained() == Drained(1)


async def test_past_the_deadline_followers_of_a_response_in_the_background_see_it_fail(tmp_path: Path) -> None:
    async with a_server(tmp_path) as world:
        engine = await world.serve()
        body = {"model": MODEL, "input": "1+1?", "background": True, "store": True, "stream": True}
        asked = asyncio.create_task(world.http.post("/v1/responses", json=body))
        await engine.say(await engine.next_request(), "2 and")
        world.drain(accept_s=0, deadline_s=0.3)
        told = [line.removeprefix("event: ") for line in (await asked).text.splitlines() if line.startswith("event:")]
        assert told[-2:] == ["error", "response.failed"]
        assert await world.drained() == Drained(1)
