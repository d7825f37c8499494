"""What a worker believes of its gateway alone: the model that is meant, and what overload cuts of thoughts."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_edge.frames import CONTINUED_TYPE, FRAMES_HEADER, GATEWAY_HEADER, FrameReader, Open, Tokens, continued
from glm_gateway.continuation.progress import Bounds, GoOn, Progress
from glm_worker.messages import LoadChanged, Policy, ReasoningPolicy, RequestOutput, WatchLoad
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

TOKEN = "token-of-the-gateway"
ASK = [{"role": "user", "content": "Prove that the square root of 2 is irrational, and explain each step."}]
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK}),
    "completion": ("/v1/completions", {"prompt": "1 2 3"}),
    "message": ("/v1/messages", {"messages": ASK, "max_tokens": 50}),
    "response": ("/v1/responses", {"input": "hi"}),
    "Z.ai": ("/api/paas/v4/chat/completions", {"messages": ASK}),
    "Z.ai for agents": ("/api/anthropic/v1/messages", {"messages": ASK, "max_tokens": 50}),
}
COUNTS: dict[str, tuple[str, dict[str, Any]]] = {
    "count_tokens": ("/v1/messages/count_tokens", {"messages": ASK}),
    "tokenize": ("/tokenize", {"prompt": "1 2 3"}),
    "detokenize": ("/detokenize", {"tokens": [5]}),
}
CHAT = "/v1/chat/completions"


class Group:
    """A server, its engine, and a gateway that asks it."""

    def __init__(self, world: ServerWorld, engine: ScriptedEngine) -> None:
        self.world = world
        self.engine = engine

    async def ask(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        said = {GATEWAY_HEADER: TOKEN, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self.world.http.post(path, json=body, headers=said)

    async def chat(self, fields: dict[str, Any] | None = None, **headers: str) -> tuple[EngineRequest, str]:
        """Return what the engine is to do for a chat, and what the reply says of its thinking."""
        body = {"model": MODEL, "messages": ASK, "stream": True, **(fields or {})}
        said = {GATEWAY_HEADER: TOKEN, **{name.replace("_", "-"): value for name, value in headers.items()}}
        post = self.world.http.build_request("POST", CHAT, json=body, headers=said)
        asked = asyncio.create_task(self.world.http.send(post, stream=True))
        request = await self.engine.next_request()
        await self.engine.say(request, "a")  # or the head of the reply would come a second later
        async with contextlib.aclosing(await asked) as response:
            thinking = response.headers["x-glm-thinking"]
        assert await self.engine.next_cancelled() == request.request_id
        return request, thinking


@pytest_asyncio.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    async with a_server(tmp_path, gateway_token=TOKEN) as world:
        yield Group(world, await world.serve())


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_gateway_says_which_model_is_meant_and_the_reply_names_it(group: Group, name: str) -> None:
    path, fields = ANSWERS[name]
    for stream in (False, True):
        body = {"model": "gpt-4o/anything", **fields, "stream": stream}
        asking = asyncio.create_task(group.ask(path, body, x_glm_model=MODEL))
        await group.engine.say(await group.engine.next_request(), " 4", end="<|user|>")
        response = await asking
        text = response.text
        assert response.status_code == 200
        assert "gpt-4o" not in text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        named = [found for each in (events or [json.loads(text)]) for found in _models(each)]
        assert named
        assert set(named) == {MODEL}


def _models(value: Any) -> list[str]:
    """Return what `model` says, wherever it stands."""
    if isinstance(value, dict):
        own = [value["model"]] if isinstance(value.get("model"), str) else []
        return own + [found for each in value.values() for found in _models(each)]
    return [found for each in value for found in _models(each)] if isinstance(value, list) else []


async def test_a_load_line_tells_the_name_by_which_the_gateway_means_the_model(tmp_path: Path) -> None:
    async with a_server(tmp_path, gateway_token=TOKEN, served_model_name="nano-2026") as world:
        await world.serve()
        world._control.send(WatchLoad(is_on=True))
        told = await world.told(LoadChanged)
        assert told.model == "nano-2026"
        headers = {GATEWAY_HEADER: TOKEN, "x-glm-model": "nano-2026"}
        response = await world.http.post("/tokenize", json={"model": "nano", "prompt": "1"}, headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize("name", COUNTS)
async def test_what_only_counts_knows_the_model_that_is_meant(group: Group, name: str) -> None:
    path, fields = COUNTS[name]
    body = {"model": "chat", **fields}
    assert (await group.ask(path, body, x_glm_model=MODEL)).status_code == 200
    assert (await group.ask(path, body)).status_code == 404
    assert (await group.ask(path, {**body, "model": MODEL}, x_glm_model="another")).status_code == 404


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("token", ["", "wrong"])
async def test_nobody_else_can_say_which_model_is_meant(group: Group, name: str, token: str) -> None:
    path, fields = ANSWERS[name]
    headers = {GATEWAY_HEADER: token, "x-glm-model": MODEL}
    response = await group.world.http.post(path, json={"model": "chat", **fields}, headers=headers)
    assert response.status_code in (400, 404)  # Z.ai has its own
    assert MODEL in response.text


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_request_that_came_to_the_wrong_group_is_refused_by_the_name_that_was_meant(
    group: Group, name: str
) -> None:
    path, fields = ANSWERS[name]
    response = await group.ask(path, {"model": "claude-x", **fields}, x_glm_model="glm-big")
    assert response.status_code in (400, 404)
    assert "glm-big" in response.text
    assert "claude-x" not in response.text


async def test_a_model_whose_name_is_no_ascii_is_meant_in_utf_8(tmp_path: Path) -> None:
    async with a_server(tmp_path, gateway_token=TOKEN, served_model_name="größe") as world:
        headers = {b"x-glm-gateway": TOKEN.encode(), b"x-glm-model": "größe".encode()}
        response = await world.http.post("/tokenize", json={"model": "chat", "prompt": "1"}, headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("fields", "caps", "budget"),
    [
        ({"thinking": {"type": "enabled"}}, "300", 300),
        ({"thinking": {"type": "enabled", "budget_tokens": 200}}, "300", 200),
        ({"thinking": {"type": "enabled", "budget_tokens": 900}}, "300", 300),
        ({"reasoning_effort": "low"}, "2000", 1024),
        ({}, "400", 400),
    ],
)
async def test_the_gateways_cap_is_one_of_the_bounds_of_a_thought(
    group: Group, fields: dict[str, Any], caps: str, budget: int
) -> None:
    request, thinking = await group.chat(fields, x_glm_max_thinking=caps)
    assert request.thought is not None
    assert request.thought.max_tokens == budget
    assert thinking.startswith("enabled")
    assert thinking.endswith(f"budget={budget}")


async def test_a_cap_of_none_answers_without_a_thought_whoever_asks_for_one(group: Group) -> None:
    asked: list[dict[str, Any]] = [{}, {"thinking": {"type": "enabled", "budget_tokens": 900}}]
    for fields in asked:
        request, thinking = await group.chat(fields, x_glm_max_thinking="0")
        assert thinking == "disabled; by=overload"
        assert request.prompt_token_ids[-2:] == token_ids("<think></think>")[-2:]


async def test_auto_answers_without_thinking_under_overload_and_who_asks_thinks(group: Group) -> None:
    await group.world.policy(Policy(reasoning=ReasoningPolicy(default="auto", auto_threshold=0.0)))
    assert (await group.chat())[1].startswith("enabled; by=auto")
    left_to_us: list[dict[str, Any]] = [{}, {"thinking": {"type": "auto"}}]
    for fields in left_to_us:
        assert (await group.chat(fields, x_glm_auto_thinking="off"))[1] == "disabled; by=overload"
    asked = {"thinking": {"type": "enabled"}}
    assert (await group.chat(asked, x_glm_auto_thinking="off"))[1] == "enabled; by=request"
    series = 'glm_thinking_decisions_total{model="glm-nano",mode="disabled",by="overload"}'
    assert await group.world.value(series) == 2


async def test_nobody_else_can_cut_a_thought(group: Group) -> None:
    await group.world.policy(Policy(trust_proxy_headers=True))
    request, thinking = await group.chat(x_glm_gateway="wrong", x_glm_max_thinking="0", x_glm_auto_thinking="off")
    assert request.thought is None
    assert thinking == "enabled; by=template"


async def test_an_answer_has_what_its_prompt_leaves_of_the_context_that_the_gateway_says(group: Group) -> None:
    for said, max_tokens in ({}, None), ({"max_tokens": 7}, 7), ({"max_tokens": 2000, "min_tokens": 1500}, None):
        request, _ = await group.chat(said, x_glm_context_tokens="300")
        assert request.max_tokens == (max_tokens or 300 - len(request.prompt_token_ids))
        assert request.min_tokens <= request.max_tokens
    request, _ = await group.chat(x_glm_context_tokens="1000000")
    assert request.max_tokens == 2048 - len(request.prompt_token_ids)
    request, _ = await group.chat(x_glm_gateway="wrong", x_glm_context_tokens="1")
    assert request.max_tokens == 2048 - len(request.prompt_token_ids)


async def test_a_prompt_without_room_in_the_context_that_the_gateway_says_is_refused(group: Group) -> None:
    response = await group.ask(CHAT, {"model": MODEL, "messages": ASK}, x_glm_context_tokens="2")
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert response.json()["error"]["message"].startswith("one request may have 2 tokens here")


@pytest.mark.parametrize("bound", ["", "0", "-1", "1.5", "x", "9" * 14])
async def test_a_context_that_is_none_is_refused(group: Group, bound: str) -> None:
    response = await group.ask(CHAT, {"model": MODEL, "messages": ASK}, x_glm_context_tokens=bound)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")
    assert "allowed is one integer from 1 to 1000000000000" in response.json()["error"]["message"]


@pytest.mark.parametrize("cap", ["-1", "1.5", "x", "", "١٢", "99999999999999999999"])
async def test_a_cap_that_is_none_is_passed_over_and_told_to_the_log_once(
    group: Group, cap: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        headers = {b"x-glm-gateway": TOKEN.encode(), b"x-glm-max-thinking": cap.encode(), b"x-glm-auto-thinking": b"on"}
        for _ in range(3):
            body = {"model": MODEL, "messages": ASK, "max_tokens": 5}
            response = await group.world.http.post("/v1/messages/count_tokens", json={**body}, headers=headers)
            assert response.status_code == 400, "max_tokens is not for counts: the client's own mistake stays one"
            del body["max_tokens"]
            response = await group.world.http.post("/v1/messages/count_tokens", json=body, headers=headers)
            assert (response.status_code, response.headers["x-glm-thinking"]) == (200, "enabled; by=template")
    told = [record.getMessage() for record in caplog.records if "x-glm-" in record.getMessage()]
    assert len(told) == 2
    assert "integers from 0 to 10000000" in told[0]
    assert "allowed is off" in told[1]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fields", "first", "then"),
    [
        ({}, {"x-glm-max-thinking": "40"}, {}),
        ({}, {}, {"x-glm-max-thinking": "1"}),
        ({"thinking": {"type": "auto"}}, {"x-glm-auto-thinking": "off"}, {}),
        ({"thinking": {"type": "auto"}}, {}, {"x-glm-auto-thinking": "off"}),
        ({"thinking": {"type": "enabled"}}, {}, {"x-glm-max-thinking": "0"}),
    ],
)
async def test_a_reply_goes_on_in_the_mode_that_it_began_in_whatever_the_load_and_policy_are_by_then(
    tmp_path: Path, stream: bool, fields: dict[str, Any], first: dict[str, str], then: dict[str, str]
) -> None:
    body = json.dumps({"model": MODEL, "messages": ASK, "seed": 3, "stream": stream, **fields}).encode()
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    async with (
        a_server(folders[0], gateway_token=TOKEN) as here,
        a_server(folders[1], gateway_token=TOKEN) as there,
    ):
        engine, other = await here.serve(), await there.serve()
        other_policy = ReasoningPolicy(default="disabled", auto_threshold=1.0, max_thinking_tokens=7)
        await there.policy(Policy(reasoning=other_policy))
        progress, frames = Progress(Bounds(), began_s=0.0), FrameReader()
        asking = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1"}
        async with here.http.stream("POST", CHAT, content=body, headers={**asking, **first}) as response:
            begun = await engine.next_request()
            await engine.step(RequestOutput(begun.request_id, token_ids("\nSo")[:1]))
            async for data in response.aiter_raw():
                for frame in frames.feed(data):
                    progress.take(frame.meaning)
                if progress.num_tokens:
                    break
        verdict = progress.lose(1.0)
        assert isinstance(verdict, GoOn)
        content = b"".join(continued(verdict.continuation, body))
        headers = {**asking, "content-type": CONTINUED_TYPE, **then}
        async with there.http.stream("POST", CHAT, content=content, headers=headers) as response:
            rest = await other.next_request()
            opened = next(FrameReader().feed(await anext(response.aiter_raw()))).meaning
        assert isinstance(opened, Open)
        assert progress.opened is not None
        told = [dict(each.headers)["x-glm-thinking"] for each in (progress.opened, opened)]
        assert told[0] == told[1]
        assert rest.prompt_token_ids == begun.prompt_token_ids
        assert rest.thought == begun.thought
        assert rest.answer_token_ids == token_ids("\nSo")[:1]


async def test_a_state_that_cannot_be_read_is_another_groups_business(group: Group) -> None:
    progress = Progress(Bounds(), began_s=0.0)
    asking = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1"}
    body = json.dumps({"model": MODEL, "messages": ASK}).encode()
    async with group.world.http.stream("POST", CHAT, content=body, headers=asking) as response:
        await group.engine.next_request()
        progress.take(next(FrameReader().feed(await anext(response.aiter_raw()))).meaning)
    progress.take(Tokens(ids=[(0, [5])], state=b"\xc1"))
    verdict = progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    headers = {**asking, "content-type": CONTINUED_TYPE}
    content = b"".join(continued(verdict.continuation, body))
    response = await group.world.http.post(CHAT, content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (409, "cannot_continue")
