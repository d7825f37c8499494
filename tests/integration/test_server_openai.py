"""Every parameter of OpenAI's surface through a real server: what the engine is told, and what the client gets."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from pydantic import BaseModel

from glm_worker.messages import RequestOutput, TokenLogprobs
from glm_worker.models import resolve
from glm_worker.request import EngineRequest
from integration.server_world import MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

USER: list[Any] = [{"role": "user", "content": "What is 1+1?"}]
TOOL: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}
LOOSE: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
UNTHINKING: Any = {"thinking": {"type": "disabled"}}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest_asyncio.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


async def ask(
    world: ServerWorld, engine: ScriptedEngine, path: str = CHAT, text: str = "2", num_answers: int = 1, **fields: Any
) -> tuple[httpx.Response, list[EngineRequest]]:
    """Send a request, answer it, and return the response with what the engine was told."""
    prompt: dict[str, Any] = {"prompt": "1+1="} if path == TEXT else {"messages": USER}
    asked = asyncio.create_task(world.http.post(path, json={"model": MODEL, **prompt, **fields}))
    requests = [await engine.next_request() for _ in range(num_answers)]
    for request in requests:
        await engine.say(request, text, end="<|user|>")
    return await asked, requests


PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 9}, {"max_tokens": 9}),
    ({"min_tokens": 2}, {"min_tokens": 2}),
    ({"temperature": 0.25, "top_p": 0.5, "top_k": 7, "min_p": 0.125, "seed": 5},
     {"sampling.temperature": 0.25, "sampling.top_p": 0.5, "sampling.top_k": 7, "sampling.min_p": 0.125,
      "sampling.seed": 5}),
    ({"frequency_penalty": 1.5, "presence_penalty": -1.5},
     {"sampling.frequency_penalty": 1.5, "sampling.presence_penalty": -1.5}),
    ({"repetition_penalty": 1.25}, {"sampling.repetition_penalty": 1.25}),
    ({"logit_bias": {"7": -100, "8": 0.5}}, {"sampling.logit_bias": {7: -100.0, 8: 0.5}}),
    ({"stop_token_ids": [7], "ignore_eos": True}, {"stop_token_ids": [7]}),
    ({"ignore_eos": True}, {"stop_token_ids": []}),
    ({"bad_words": ["no"]}, {"bad_words": [token_ids("no"), token_ids(" no")]}),
    ({"priority": 4}, {"priority": 4}),
    ({}, {"num_logprobs": None, "grammar": None, "deadline_ms": None, "priority": 0}),
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_the_engine_is_told_what_the_client_says(world: ServerWorld, engine: ScriptedEngine, path: str) -> None:
    for fields, told in PARAMETERS:
        response, (request,) = await ask(world, engine, path, **fields)
        assert response.status_code == 200, fields
        for name, value in told.items():
            said: Any = request
            for part in name.split("."):
                said = getattr(said, part)
            assert said == value, fields


async def test_the_newer_name_of_max_tokens_counts(world: ServerWorld, engine: ScriptedEngine) -> None:
    _, (request,) = await ask(world, engine, max_completion_tokens=11)
    assert request.max_tokens == 11


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_are_told_apart(
    world: ServerWorld, engine: ScriptedEngine, path: str, stream: bool
) -> None:
    fields = {"model": MODEL, "n": 3, "seed": 5, "stream": stream}
    prompt: dict[str, Any] = {"prompt": "1+1="} if path == TEXT else {"messages": USER}
    if stream:
        fields["stream_options"] = {"include_usage": True}
    asked = asyncio.create_task(world.http.post(path, json={**fields, **prompt}))
    requests = [await engine.next_request() for _ in range(3)]
    assert [request.sampling.seed for request in requests] == [5, 6, 7]
    for number, request in reversed(list(enumerate(requests))):
        await engine.say(request, f"answer {number}", end="<|user|>")
    texts, usage = put_together(await asked)
    assert texts == ["answer 0", "answer 1", "answer 2"]
    assert usage["completion_tokens"] == 3 * (len(token_ids("answer 0")) + 1)
    assert usage["prompt_tokens"] == len(requests[0].prompt_token_ids)


def put_together(response: httpx.Response) -> tuple[list[str], dict[str, Any]]:
    """Return the texts of the answers and the usage, whole or streamed."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        body = response.json()
        return [text_of(choice) for choice in body["choices"]], body["usage"]
    *chunks, done = response.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    payloads = [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]
    texts: dict[int, str] = {}
    for payload in payloads:
        for choice in payload["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + text_of(choice)
    return [texts[index] for index in sorted(texts)], payloads[-1]["usage"]


def text_of(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return str(choice["text"])
    return str(choice.get("message", choice.get("delta", {})).get("content") or "")


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_a_chat_reach_the_openai_client(
    world: ServerWorld, engine: ScriptedEngine, stream: bool
) -> None:
    asked = asyncio.create_task(
        world.openai.chat.completions.create(model=MODEL, messages=USER, logprobs=True, top_logprobs=2, stream=stream)
    )
    request = await engine.next_request()
    assert request.num_logprobs == 2
    await say_with_logprobs(engine, request, "\n<think>1</think>\n1 2 🙂")
    answer: Any = await asked
    choices = [chunk.choices[0] async for chunk in answer] if stream else answer.choices
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    told = bytes(byte for entry in entries for byte in entry.bytes).decode()
    assert told.strip() == "1 2 🙂"
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_a_completion_reach_the_openai_client(
    world: ServerWorld, engine: ScriptedEngine, stream: bool
) -> None:
    asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1", logprobs=2, stream=stream))
    request = await engine.next_request()
    assert request.num_logprobs == 2
    await say_with_logprobs(engine, request, "1 2 3")
    answer: Any = await asked
    choices = [chunk.choices[0] async for chunk in answer] if stream else answer.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.tokens]
    offsets = [offset for choice in choices if choice.logprobs for offset in choice.logprobs.text_offset]
    assert "".join(tokens) == "1 2 3"
    assert offsets == [len("".join(tokens[:at])) for at in range(len(tokens))]


async def test_logprobs_end_where_a_stop_string_cuts_the_text_streamed_or_whole(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    told: dict[tuple[str, bool], Any] = {}
    for path, wish in ((CHAT, {"logprobs": True, **UNTHINKING}), (TEXT, {"logprobs": 1})):
        for stream in (False, True):
            prompt: dict[str, Any] = {"prompt": "1+1="} if path == TEXT else {"messages": USER}
            body = {"model": MODEL, **prompt, **wish, "stop": "3 4 5", "stream": stream}
            asked = asyncio.create_task(world.http.post(path, json=body))
            await say_with_logprobs(engine, await engine.next_request(), "1 2 3 4 5 6")
            text = (await asked).text
            bodies = [json.loads(each[6:]) for each in text.splitlines() if each.startswith("data: {")] or [
                json.loads(text)
            ]
            found = [body["choices"][0]["logprobs"] for body in bodies if body["choices"][0]["logprobs"]]
            entries = [entry["token"] for each in found for entry in each.get("content", ())]
            told[path, stream] = entries + [token for each in found for token in each.get("tokens", ())]
    assert {"".join(each) for each in told.values()} == {"1 2 "}
    assert told[CHAT, False] == told[CHAT, True]
    assert told[TEXT, False] == told[TEXT, True]


async def say_with_logprobs(engine: ScriptedEngine, request: EngineRequest, text: str) -> None:
    top = [(token_ids("7")[0], -0.1), (token_ids("8")[0], -2.5)]
    for token_id in token_ids(text):
        await engine.step(RequestOutput(request.request_id, [token_id], None, [TokenLogprobs(-0.5, 1, top)]))
    end = RequestOutput(request.request_id, token_ids("<|user|>"), "stop", [TokenLogprobs(-0.5, 1, top)])
    await engine.step(end)


SCHEMA: Any = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


STRICT: Any = {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}
FREE: list[dict[str, Any]] = [
    {},
    {"response_format": {"type": "text"}},
    {"tools": [LOOSE]},
    {"tools": [LOOSE], "tool_choice": "none"},
]
BOUND: list[dict[str, Any]] = [
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
    {"guided_regex": "[0-9]+"},
    {"structured_outputs": {"choice": ["yes", "no"]}},
    {"tools": [LOOSE], "tool_choice": "required"},
    {"tools": [LOOSE], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [LOOSE], "parallel_tool_calls": False},
    {"tools": [STRICT]},
]
NEVER_KEPT: list[tuple[dict[str, Any], str]] = [
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "text"}}}},
        "response_format.json_schema.schema",
    ),
    ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex"),
    ({"guided_json": {"$ref": "http://10.0.0.1/schema.json"}}, "guided_json"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "text"}, "strict": True}}]},
        "tools[0].function.parameters",
    ),
]


async def test_a_grammar_binds_the_answer_where_one_is_asked_for_and_begins_after_the_thought(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    """One server for all of them: what compiles starts for seconds."""
    for mode in ("enabled", "disabled"):
        for fields in FREE:
            _, (request,) = await ask(world, engine, thinking={"type": mode}, **fields)
            assert request.grammar is None, fields
        for fields in BOUND:
            _, (request,) = await ask(world, engine, thinking={"type": mode}, **fields)
            assert request.grammar is not None, fields
            assert request.grammar.compiled
            assert request.grammar.close_id == (token_ids("</think>")[0] if mode == "enabled" else None)
    for fields, param in NEVER_KEPT:
        response = await world.http.post(CHAT, json={"model": MODEL, "messages": USER, **fields})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert engine.submitted.empty()


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_what_the_client_stopped_at_is_told(world: ServerWorld, engine: ScriptedEngine, path: str) -> None:
    (stop_id,) = token_ids("7")
    response, _ = await ask(world, engine, path, text="1", stop_token_ids=[stop_id])
    assert response.json()["choices"][0]["stop_reason"] is None
    prompt: dict[str, Any] = {"prompt": "1+1="} if path == TEXT else {"messages": USER}
    asked = asyncio.create_task(
        world.http.post(path, json={"model": MODEL, **prompt, "stop": ["END"], "stop_token_ids": [stop_id]})
    )
    request = await engine.next_request()
    await engine.step(RequestOutput(request.request_id, [stop_id], "stop"))
    (choice,) = (await asked).json()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop_id)
    response, _ = await ask(world, engine, path, text="a END b", stop=["END"])
    (choice,) = response.json()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "END")


async def test_a_deadline_ends_the_request_and_says_so(world: ServerWorld, engine: ScriptedEngine) -> None:
    before_ms = time.monotonic() * 1000
    asked = asyncio.create_task(
        world.http.post(CHAT, json={"model": MODEL, "messages": USER, "deadline_s": 0.05, "priority": -1})
    )
    request = await engine.next_request()
    assert request.deadline_ms is not None
    assert before_ms < request.deadline_ms < time.monotonic() * 1000 + 50
    response = await asked
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_passed"
    assert await engine.next_cancelled() == request.request_id


async def test_an_answer_goes_on_with_the_last_message(world: ServerWorld, engine: ScriptedEngine) -> None:
    messages = [*USER, {"role": "assistant", "content": "It is"}]
    response, (request,) = await ask(
        world, engine, text=" 2", messages=messages, continue_final_message=True, add_generation_prompt=False
    )
    end = token_ids("It is")
    assert request.prompt_token_ids[-len(end) :] == end
    assert response.json()["choices"][0]["message"]["content"] == " 2"


async def test_the_usage_so_far_is_in_every_chunk(world: ServerWorld, engine: ScriptedEngine) -> None:
    fields: dict[str, Any] = {"stream": True, "stream_options": {"continuous_usage_stats": True, "include_usage": True}}
    response, _ = await ask(world, engine, text="1 2 3", **fields)
    *chunks, _ = response.text.removesuffix("\n\n").split("\n\n")
    counts = [json.loads(chunk.removeprefix("data: "))["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == len(token_ids("1 2 3")) + 1


async def test_what_has_no_effect_is_told_in_a_header(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, _ = await ask(world, engine, user="somebody", metadata={"a": "b"}, verbosity="low")
    assert response.headers["x-glm-ignored"] == "user, metadata, verbosity"


async def test_what_stock_clients_send_is_accepted(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(
        world.openai.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}], "name": "rules"},
                {"role": "user", "content": "2+2?", "name": "Ann"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c", "content": "4"},
            ],
            tools=[TOOL],
            tool_choice="auto",
            parallel_tool_calls=False,
            safety_identifier="s",
            prompt_cache_key="k",
            verbosity="medium",
            store=True,
            metadata={"a": "b"},
            service_tier="auto",
            user="u",
            frequency_penalty=0,
            presence_penalty=0,
            logit_bias={},
            n=1,
            extra_body=UNTHINKING,
        )
    )
    request = await engine.next_request()
    await engine.say(request, "4", end="<|user|>")
    assert (await asked).choices[0].message.content == "4"


class Sum(BaseModel):
    sum: int


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")  # the package's own
async def test_what_the_openai_package_read_goes_back_with_the_message(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    call = "<tool_call>Sum\n<arg_key>sum</arg_key>\n<arg_value>2</arg_value>\n</tool_call>"
    asked = asyncio.create_task(
        world.openai.chat.completions.parse(
            model=MODEL,
            messages=USER,
            tools=[openai.pydantic_function_tool(Sum)],
            response_format=Sum,
            extra_body=UNTHINKING,
        )
    )
    await engine.say(await engine.next_request(), call, end="<|observation|>")
    message: Any = (await asked).choices[0].message
    assert message.tool_calls[0].function.parsed_arguments == Sum(sum=2)
    answer = asyncio.create_task(
        world.openai.chat.completions.parse(
            model=MODEL,
            messages=[*USER, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "2"}],
            response_format=Sum,
            extra_body=UNTHINKING,
        )
    )
    await engine.say(await engine.next_request(), '{"sum": 2}', end="<|user|>")
    told: Any = (await answer).choices[0].message
    assert told.parsed == Sum(sum=2)
    again = asyncio.create_task(world.openai.chat.completions.create(model=MODEL, messages=[*USER, told, *USER]))
    await engine.say(await engine.next_request(), "2", end="<|user|>")
    assert (await again).choices[0].message.content == "2"


async def test_a_prompt_comes_back_before_its_answers(world: ServerWorld, engine: ScriptedEngine) -> None:
    response, _ = await ask(world, engine, TEXT, text="2", num_answers=4, prompt=["1+1=", "2+2="], n=2, echo=True)
    texts, usage = put_together(response)
    assert texts == ["1+1=2", "1+1=2", "2+2=2", "2+2=2"]
    assert usage["prompt_tokens"] == len(token_ids("1+1=")) + len(token_ids("2+2="))


NEVER_TAKEN: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"max_tokens": 5000}, "max_tokens"),
    (CHAT, {"max_completion_tokens": 5000}, "max_completion_tokens"),
    (TEXT, {"max_tokens": 5000}, "max_tokens"),
    (TEXT, {"suffix": "x"}, "suffix"),
    (TEXT, {"prompt": ["a"] * 65}, "prompt"),
    (CHAT, {"n": 17}, "n"),
    (CHAT, {"logit_bias": {"5000": 1}}, "logit_bias"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
     "messages[0].content[0].type"),
    (CHAT, {"extra_body": {}}, "extra_body"),
]  # fmt: skip
NOT_PLAIN_JSON: list[tuple[bytes, str]] = [
    (b'{"model": "m", "model": "n", "messages": []}', "model is there twice"),
    (b'{"model": "glm-nano", "messages": [{"role": "user", "content": "\\ud83d"}]}', "half of a surrogate pair"),
    (b'{"model": "glm-nano", "temperature": 1e999, "messages": []}', "out of range"),
    (b'{"model": "glm-nano", "max_tokens": ' + b"9" * 5000 + b"}", "allowed are 400"),
    (b'{"model": "glm-nano", "max_tokens": ' + b"9" * 399 + b"}", "more than 100 digits"),
    (b'{"tools": ' + b"[" * 300 + b"]" * 300 + b"}", "nested"),
]


async def test_what_cannot_be_is_refused_by_its_name(world: ServerWorld, engine: ScriptedEngine) -> None:
    for path, fields, param in NEVER_TAKEN:
        prompt: dict[str, Any] = {"prompt": "1"} if path == TEXT else {"messages": USER}
        response = await world.http.post(path, json={"model": MODEL, **prompt, **fields})
        error = response.json()["error"]
        assert response.status_code == 400
        assert set(error) == {"message", "type", "param", "code"}
        assert error["param"] == param
    assert engine.submitted.empty()


async def test_what_json_allows_and_the_server_does_not_is_told_as_such(world: ServerWorld) -> None:
    for body, sign in NOT_PLAIN_JSON:
        response = await world.http.post(CHAT, content=body)
        assert response.status_code == 400
        assert sign in response.json()["error"]["message"]
        assert "not valid JSON" not in response.json()["error"]["message"]


async def test_nothing_of_the_prompt_comes_back_in_errors(world: ServerWorld) -> None:
    canary = "a-secret-of-whoever-asks"
    for fields in (
        {"messages": canary},
        {"messages": [{"role": "user", "content": [canary]}]},
        {"messages": [{"role": "user", "content": canary}], "temperature": 9},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": canary}}]}]},
    ):
        response = await world.http.post(CHAT, json={"model": MODEL, **fields})
        assert response.status_code == 400
        assert canary not in response.text


class TestUtilities:
    async def test_health_says_whether_requests_are_answered(self, world: ServerWorld) -> None:
        response = await world.http.get("/health")
        assert response.status_code == 503
        assert "no generation serves yet" in response.json()["error"]["message"]
        engine = await world.serve()
        assert [(await world.http.get(path)).status_code for path in ("/health", "/ping")] == [200, 200]
        await world.kill(engine)
        await world.unavailable("two starts in a row have failed", 7)
        response = await world.http.get("/health")
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
        assert "this group cannot start" in response.json()["error"]["message"]

    @pytest.mark.parametrize("path", ["/health", "/ping", "/version", "/v1/models"])
    async def test_a_probe_may_leave_the_body_out(self, world: ServerWorld, path: str) -> None:
        await world.serve()
        response = await world.http.head(path)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["content-length"] == (await world.http.get(path)).headers["content-length"]

    @pytest.mark.parametrize("headers", [{}, {"anthropic-version": "2023-06-01"}])
    async def test_no_model_is_no_model_of_an_empty_name(self, world: ServerWorld, headers: dict[str, str]) -> None:
        response = await world.http.get("/v1/models/", headers=headers)
        assert response.status_code == 404
        assert "no model is named; this server has" in response.json()["error"]["message"]

    async def test_the_version_is_the_packages(self, world: ServerWorld) -> None:
        told = (await world.http.get("/version")).json()
        assert told["version"] == "0.1.0"
        assert told["deterministic"] in (None, False)  # what the scripted engine says, once one serves

    async def test_a_text_is_taken_apart_and_put_together(self, world: ServerWorld) -> None:
        text = "数字 🙂 <|user|> 1+1"
        body = {"model": MODEL, "prompt": text, "return_token_strs": True}
        reply = (await world.http.post("/tokenize", json=body)).json()
        assert reply["tokens"] == token_ids(text)
        assert (reply["count"], reply["max_model_len"]) == (len(token_ids(text)), 2048)
        assert len(reply["token_strs"]) == reply["count"]
        back = await world.http.post("/detokenize", json={"tokens": reply["tokens"]})
        assert back.json() == {"prompt": text}

    async def test_a_chat_is_taken_apart_as_it_is_for_the_engine(
        self, world: ServerWorld, engine: ScriptedEngine
    ) -> None:
        fields: dict[str, Any] = {"messages": USER, "tools": [LOOSE], "thinking": {"type": "disabled"}}
        tokens = (await world.http.post("/tokenize", json=fields)).json()["tokens"]
        _, (request,) = await ask(world, engine, **fields)
        assert tokens == request.prompt_token_ids

    async def test_what_cannot_be_taken_apart_is_refused_by_its_name(self, world: ServerWorld) -> None:
        cases: list[tuple[str, dict[str, Any], str]] = [
            ("/tokenize", {}, "prompt"),
            ("/tokenize", {"prompt": "a", "messages": USER}, "prompt"),
            ("/tokenize", {"messages": USER, "add_generation_prompt": False}, "add_generation_prompt"),
            ("/tokenize", {"prompt": "x" * 41_000}, "prompt"),
            ("/tokenize", {"prompt": "a", "model": "other"}, "model"),
            ("/tokenize", {"prompt": 5}, "prompt"),
            ("/detokenize", {"tokens": [5, 1024]}, "tokens[1]"),
            ("/detokenize", {"tokens": "x"}, "tokens"),
            ("/detokenize", {}, "tokens"),
        ]
        for path, body, param in cases:
            response = await world.http.post(path, json=body)
            assert response.json()["error"]["param"] == param


class TestZai:
    @pytest.mark.parametrize("path", ["/api/paas/v4", "/api/coding/paas/v4"])
    async def test_a_chat_in_its_dialect(self, world: ServerWorld, engine: ScriptedEngine, path: str) -> None:
        response, (request,) = await ask(
            world,
            engine,
            f"{path}/chat/completions",
            request_id="mine-1",
            do_sample=False,
            temperature=0.9,
            user_id="somebody",
            thinking={"type": "disabled"},
        )
        body = response.json()
        assert (response.status_code, body["request_id"]) == (200, "mine-1")
        assert request.sampling.temperature == 0
        assert body["choices"][0]["message"]["content"] == "2"
        assert response.headers["x-glm-ignored"] == "user_id"

    @pytest.mark.parametrize("tool_stream", [None, True])
    async def test_a_stream_ends_with_the_usage(
        self, world: ServerWorld, engine: ScriptedEngine, tool_stream: bool | None
    ) -> None:
        call = "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
        path = "/api/paas/v4/chat/completions"
        response, _ = await ask(world, engine, path, call, tools=[LOOSE], stream=True, tool_stream=tool_stream)
        *chunks, last, done = response.text.removesuffix("\n\n").split("\n\n")
        assert done == "data: [DONE]"
        final = json.loads(last.removeprefix("data: "))
        assert final["choices"][0]["finish_reason"] == "tool_calls"
        assert final["usage"]["completion_tokens"] == len(token_ids(call)) + 1
        deltas = [json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"] for chunk in chunks]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        assert (len(calls) == 1) is (tool_stream is None)
        assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"a": 1}

    async def test_errors_have_its_shape(self, world: ServerWorld) -> None:
        cases: list[tuple[dict[str, Any], int, str]] = [
            ({"model": "glm-4.6"}, 404, "1211"),
            ({"top_p": 5}, 400, "1214"),
            ({"messages": None}, 400, "1214"),
            ({"max_tokens": 5000}, 400, "1261"),
        ]
        for fields, status, code in cases:
            body = {"model": MODEL, "messages": USER, **fields}
            response = await world.http.post("/api/paas/v4/chat/completions", json=body)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code)
            assert set(response.json()["error"]) == {"code", "message"}
        assert (await world.http.get("/api/paas/v4/nowhere")).json()["error"]["code"] == "1222"


async def test_a_base_model_completes_texts_and_refuses_chats_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        shutil.copy(resolve(f"builtin://{MODEL}") / name, folder)
    async with a_server(tmp_path, model=str(folder), served_model_name=MODEL) as world:
        engine = await world.serve()
        response, _ = await ask(world, engine, TEXT)
        assert response.json()["choices"][0]["text"] == "2"
        with pytest.raises(openai.BadRequestError, match="base model") as caught:
            await world.openai.chat.completions.create(model=MODEL, messages=USER)
        assert (caught.value.code, caught.value.param) == ("chat_not_supported", "model")
        response = await world.http.post("/tokenize", json={"messages": USER})
        assert response.json()["error"]["code"] == "chat_not_supported"
        paths = (await world.http.get("/openapi.json")).json()["paths"]
        assert {"/v1/completions", "/v1/models", "/tokenize"} <= set(paths)
        assert not [path for path in paths if "chat" in path or "messages" in path or "responses" in path]
