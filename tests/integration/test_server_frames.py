"""What a gateway is told in frames, and that a second group goes on with a reply as if it had begun it."""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_edge.frames import (
    CONTINUED_TYPE,
    FRAMES_HEADER,
    FRAMES_TYPE,
    GATEWAY_HEADER,
    Close,
    Continuation,
    Fail,
    Frame,
    FrameReader,
    Idle,
    Open,
    Tokens,
    continued,
)
from glm_gateway.continuation.progress import Bounds, GoOn, Progress
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server, token_ids
from long_form import short_of

TOKEN = "token-of-the-gateway"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CALL = (
    "\n<think>It is cold — °C.</think>\nLet me see 😀.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
    "<arg_value>São Paulo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
ANSWER = "\n<think>17+25=42</think>\nIt is **42**, or “forty-two” 😀.\n\nEnd"
ASK = [{"role": "user", "content": "hi"}]
CHAT_TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK, "stream_options": {"include_usage": True}}, ANSWER),
    "chat with a call": ("/v1/chat/completions", {"messages": ASK, "tools": CHAT_TOOLS}, CALL),
    "chat with hidden thoughts": ("/v1/chat/completions", {"messages": ASK, "include_reasoning": False}, ANSWER),
    "chat with a stop": ("/v1/chat/completions", {"messages": ASK, "stop": ["\n\nEnd"]}, ANSWER),
    "Z.ai": ("/api/paas/v4/chat/completions", {"messages": ASK, "tools": CHAT_TOOLS, "tool_stream": True}, CALL),
    "chat with usage so far": (
        "/v1/chat/completions",
        {"messages": ASK, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        ANSWER,
    ),
    "completion with usage so far": (
        "/v1/completions",
        {"prompt": "1 2 3", "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        " 4 5 😀 6",
    ),
    "completion": ("/v1/completions", {"prompt": "1 2 3"}, " 4 5 😀 6"),
    "message": ("/v1/messages", {"messages": ASK, "max_tokens": 200}, ANSWER),
    "message with a call": (
        "/v1/messages",
        {"messages": ASK, "max_tokens": 200, "tools": [{"name": "get_weather", "input_schema": WEATHER}]},
        CALL,
    ),
    "response": ("/v1/responses", {"input": "hi"}, ANSWER),
    "response with a call": (
        "/v1/responses",
        {"input": "hi", "tools": [{"type": "function", "name": "get_weather", "parameters": WEATHER}]},
        CALL,
    ),
}


@dataclass
class Group:
    """One group's server and its engine."""

    world: ServerWorld
    engine: ScriptedEngine


@dataclass
class Reading:
    """A gateway that reads the reply of one group."""

    group: Group
    response: httpx.Response
    request: EngineRequest
    frames: AsyncIterator[Frame]
    progress: Progress
    told: bytes = b""
    seen: list[Frame] = field(default_factory=list)

    async def next(self) -> Frame:
        frame = await anext(self.frames)
        self.seen.append(frame)
        self.progress.take(frame.meaning)
        self.told += frame.told
        return frame

    async def write(self, ids: Sequence[int], end: str | None = None) -> None:
        """Let the engine write tokens one by one, each read before the next. end: of the answer, with the last."""
        for number, token_id in enumerate(ids):
            is_last = number == len(ids) - 1
            output = RequestOutput(self.request.request_id, [token_id], end if is_last else None)  # type: ignore[arg-type]
            before = self.progress.num_tokens
            await self.group.engine.step(output)
            while self.progress.num_tokens == before and not self.progress.is_over:
                await self.next()

    async def rest(self) -> None:
        async for frame in self.frames:
            self.seen.append(frame)
            self.progress.take(frame.meaning)
            self.told += frame.told


@contextlib.asynccontextmanager
async def reading(
    group: Group, path: str, body: dict[str, Any], continuation: Continuation | None = None
) -> AsyncIterator[Reading]:
    headers = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1", "content-type": "application/json"}
    content = json.dumps({"model": MODEL, **body}).encode()
    if continuation is not None:
        content = b"".join(continued(continuation, content))
        headers["content-type"] = CONTINUED_TYPE
    async with group.world.http.stream("POST", path, content=content, headers=headers) as response:
        assert response.headers["content-type"] == FRAMES_TYPE
        request = await group.engine.next_request()
        progress = Progress(Bounds(), began_s=0.0)
        yield Reading(group, response, request, _frames(response), progress)


async def _frames(response: httpx.Response) -> AsyncIterator[Frame]:
    reader = FrameReader()
    async for data in response.aiter_raw():
        for frame in reader.feed(data):
            yield frame
    assert reader.is_empty


@pytest_asyncio.fixture
async def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Group, Group]]:
    """Two groups whose ids and times do not vary, so that whole replies can be compared."""
    moment = time.time()
    monkeypatch.setattr(secrets, "token_hex", lambda num_bytes=16: "ab" * num_bytes)
    monkeypatch.setattr(time, "time", lambda: moment)
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    async with (
        a_server(folders[0], gateway_token=TOKEN) as first,
        a_server(folders[1], gateway_token=TOKEN) as second,
    ):
        yield Group(first, await first.serve()), Group(second, await second.serve())


@pytest.mark.parametrize("name", short_of(REQUESTS, lambda name: "call" in name))
async def test_a_reply_that_goes_on_elsewhere_is_told_as_an_unbroken_one(
    groups: tuple[Group, Group], name: str
) -> None:
    first, second = groups
    path, fields, text = REQUESTS[name]
    body = {"seed": 7, **fields, "stream": True} if "message" not in name else {**fields, "stream": True}
    if path == "/v1/responses":
        del body["seed"]
    # The server ends an answer at a stop string. The next request has the same id here: what the engine wrote after it
    # might come only when that request is there, and be taken for its answer.
    is_stopped = "stop" in fields
    ids = token_ids(text) if is_stopped else [*token_ids(text), *token_ids("<|user|>")]
    end = None if is_stopped else "stop"
    async with reading(first, path, body) as unbroken:
        await unbroken.write(ids, end)
        await unbroken.rest()
    assert unbroken.progress.closed is not None
    if is_stopped:  # found by the server, so the engine is told
        await first.engine.next_cancelled()
    num_ids = len(unbroken.progress._answers[0])
    for split in sorted({*range(0, num_ids, 5), num_ids - 1}):
        async with reading(first, path, body) as begun:
            await begun.next()
            await begun.write(ids[:split])
            told, is_over = begun.told, begun.progress.is_over
            verdict = begun.progress.lose(1.0)
        if is_over:  # by a stop string
            break
        assert await first.engine.next_cancelled() == begun.request.request_id
        assert isinstance(verdict, GoOn)
        async with reading(second, path, body, verdict.continuation) as rest:
            assert rest.request.answer_token_ids == ids[:split]
            assert rest.request.sampling == begun.request.sampling
            assert rest.request.prompt_token_ids == begun.request.prompt_token_ids
            await rest.write(ids[split:], end)
            await rest.rest()
        assert told + rest.told == unbroken.told, f"split at {split}"
        assert rest.progress.closed == unbroken.progress.closed


async def test_a_whole_reply_goes_on_as_well(groups: tuple[Group, Group]) -> None:
    first, second = groups
    path, body = "/v1/chat/completions", {"messages": ASK, "tools": CHAT_TOOLS}
    ids = [*token_ids(CALL), *token_ids("<|user|>")]
    async with reading(first, path, body) as unbroken:
        await unbroken.write(ids, "stop")
        await unbroken.rest()
    async with reading(first, path, body) as begun:
        await begun.write(ids[:20])
        verdict = begun.progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    assert begun.told == b""
    async with reading(second, path, body, verdict.continuation) as rest:
        await rest.write(ids[20:], "stop")
        await rest.rest()
    assert rest.told == unbroken.told
    assert json.loads(rest.told)["choices"][0]["finish_reason"] == "tool_calls"


async def test_of_several_answers_those_that_were_whole_stay_whole(groups: tuple[Group, Group]) -> None:
    first, second = groups
    path, body = "/v1/completions", {"prompt": "1 2", "n": 2, "seed": 5}
    async with reading(first, path, body) as begun:
        other = await first.engine.next_request()
        await begun.write([*token_ids(" 3"), *token_ids("<|user|>")], "stop")
        await first.engine.step(RequestOutput(other.request_id, token_ids(" 7")[:1]))
        while len(begun.progress._answers) < 2:
            await begun.next()
        verdict = begun.progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    assert [answer.reason for answer in verdict.continuation.answers] == ["stop", None]
    async with reading(second, path, body, verdict.continuation) as rest:
        assert rest.request.request_id.endswith("-1")
        assert rest.request.sampling.seed == 6
        await rest.write([*token_ids(" 7")[1:], *token_ids(" 8"), *token_ids("<|user|>")], "stop")
        await rest.rest()
    texts = [choice["text"] for choice in json.loads(rest.told)["choices"]]
    assert texts == [" 3", " 7 8"]


async def test_a_seed_that_nobody_chose_is_kept(groups: tuple[Group, Group]) -> None:
    first, second = groups
    async with reading(first, "/v1/completions", {"prompt": "1"}) as begun:
        await begun.write(token_ids(" 2")[:1])
        verdict = begun.progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    async with reading(second, "/v1/completions", {"prompt": "1"}, verdict.continuation) as rest:
        assert rest.request.sampling.seed == begun.request.sampling.seed


async def test_ranks_that_die_twice_are_told_as_what_another_group_can_mend(groups: tuple[Group, Group]) -> None:
    first, _ = groups
    async with reading(first, "/v1/completions", {"prompt": "1", "stream": True}) as begun:
        await begun.write(token_ids(" 2")[:1])
        await first.world.kill(first.engine)
        again = await first.world.serve("g-2")
        request = await again.next_request()
        assert request.answer_token_ids == token_ids(" 2")[:1]
        await first.world.kill_computing(again, request=request)
        await begun.rest()
    failed = begun.progress.failed
    assert failed is not None
    assert (failed.code, failed.can_continue, failed.status) == ("generation_lost", True, 503)


async def test_a_refusal_is_no_frame(groups: tuple[Group, Group]) -> None:
    headers = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1"}
    response = await groups[0].world.http.post("/v1/completions", json={"model": "other"}, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x"])
async def test_who_does_not_know_the_token_gets_no_frames(groups: tuple[Group, Group], token: str) -> None:
    group = groups[0]
    headers = {GATEWAY_HEADER: token, FRAMES_HEADER: "1"}
    body = {"model": MODEL, "prompt": "1", "stream": True}
    async with group.world.http.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        request = await group.engine.next_request()
        await group.engine.say(request, " 2", end="<|user|>")
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "[DONE]" in (await response.aread()).decode()


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"fingerprint": "other"}, 409), ({"seeds": [1, 2]}, 409), ({"answers": []}, 409)],
)
async def test_a_group_that_cannot_go_on_says_so_before_anything_is_told(
    groups: tuple[Group, Group], changes: dict[str, Any], status: int
) -> None:
    first, second = groups
    async with reading(first, "/v1/completions", {"prompt": "1"}) as begun:
        await begun.write(token_ids(" 2")[:1])
        verdict = begun.progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    fields = {name: getattr(verdict.continuation, name) for name in Continuation.__struct_fields__}
    content = b"".join(continued(Continuation(**{**fields, **changes}), b'{"model": "glm-nano", "prompt": "1"}'))
    headers = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1", "content-type": CONTINUED_TYPE}
    response = await second.world.http.post("/v1/completions", content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, "cannot_continue")


async def test_a_broken_continuation_is_a_bad_request(groups: tuple[Group, Group]) -> None:
    headers = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1", "content-type": CONTINUED_TYPE}
    response = await groups[0].world.http.post("/v1/completions", content=b"\0\0\0\x09{}", headers=headers)
    assert response.status_code == 400


async def test_frames_open_with_what_the_reply_would_have_said_in_its_head(groups: tuple[Group, Group]) -> None:
    body = {"messages": ASK, "stream": True, "user": "u"}
    async with reading(groups[0], "/v1/chat/completions", body) as begun:
        opened = (await begun.next()).meaning
        assert isinstance(opened, Open)
        headers = dict(opened.headers)
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["x-glm-thinking"].startswith("enabled")
        assert opened.num_prompt_tokens == len(begun.request.prompt_token_ids)
        assert opened.seeds == [begun.request.sampling.seed]
        assert {type(frame.meaning) for frame in begun.seen} <= {Open, Tokens, Idle, Close, Fail}


@pytest.mark.parametrize("stream", [True, False])
async def test_others_are_answered_while_a_long_reply_is_read_again(groups: tuple[Group, Group], stream: bool) -> None:
    _, group = groups
    path, body = "/v1/chat/completions", {"messages": ASK, "stream": stream}
    ids = token_ids("\n<think>abc def, ghi jkl. ")
    ids = [*ids, *ids[1:] * (100_000 // len(ids))]
    async with reading(group, path, body) as begun:
        while begun.progress.opened is None:
            await begun.next()
    await group.engine.next_cancelled()
    begun.progress.take(Tokens(ids=[(0, ids)]))
    verdict = begun.progress.lose(1.0)
    assert isinstance(verdict, GoOn)
    headers = {GATEWAY_HEADER: TOKEN, FRAMES_HEADER: "1", "content-type": CONTINUED_TYPE}
    content = b"".join(continued(verdict.continuation, json.dumps({"model": MODEL, **body}).encode()))
    sending = group.world.http.stream("POST", path, content=content, headers=headers)
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks, contextlib.AsyncExitStack() as stack:
        asked = tasks.create_task(stack.enter_async_context(sending))
        submitted = tasks.create_task(group.engine.next_request())
        gaps_s = []
        while not submitted.done():
            looked_s = time.monotonic()
            assert (await group.world.http.get("/v1/models")).status_code == 200
            gaps_s.append(time.monotonic() - looked_s)
        took_s = time.monotonic() - began_s
        assert submitted.result().answer_token_ids == ids
        await asked
    assert len(gaps_s) > 10, "others had their turns"
    assert max(gaps_s) < took_s / 4
