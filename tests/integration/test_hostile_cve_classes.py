"""The classes of faults that other servers of models had, each asked of this one. Those of the engine are elsewhere."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fuzz.judge import complaints
from fuzz.wire import Connection, Reply
from glm_worker.messages import RequestOutput
from glm_worker.request import EngineRequest
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

Json = dict[str, Any]
CHAT, MESSAGES, RESPONSES, TEXT = "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server for all: none of this may harm the next


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path_factory.mktemp("server")) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


def a_body(path: str, **fields: Any) -> Json:
    said: Json = {"messages": [{"role": "user", "content": "hi"}]}
    match path:
        case "/v1/messages":
            said["max_tokens"] = 5
        case "/v1/responses":
            said = {"input": "hi"}
        case "/v1/completions":
            said = {"prompt": "hi"}
    return {"model": MODEL, **said, **fields}


async def refused(world: ServerWorld, path: str, **fields: Any) -> str:
    """Return the message of the refusal of a body, which must be a plain one, and the parameter that it names."""
    connection = Connection(world.port)
    reply = await connection.post(path, json.dumps(a_body(path, **fields)).encode())
    await connection.close()
    assert reply.status == 400, reply.body
    assert complaints(path, reply) == []
    error: Json = json.loads(reply.body)["error"]
    return f"{error['message']} {error.get('param')}"


async def sent(world: ServerWorld, *parts: bytes) -> Reply:
    connection = Connection(world.port)
    try:
        return await connection.send(*parts)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("line", "hosts", "status"),
    [
        (b"GET /v1/models HTTP/1.1", [b"a/?x"], 200),
        (b"GET /v1/models HTTP/1.1", [b"evil.example/health#"], 200),
        (b"GET /v1/models HTTP/1.1", [b"x"], 200),
        (b"GET /v1/models HTTP/1.1", [b"glm."], 200),
        (b"GET /v1/models HTTP/1.1", [b""], 200),
        (b"GET http://evil.example/v1/models HTTP/1.1", [b"glm"], 200),
        (b"GET //v1/models HTTP/1.1", [b"glm"], 404),
        (b"GET /%2fv1/models HTTP/1.1", [b"glm"], 404),
        (b"GET /health/../v1/models HTTP/1.1", [b"glm"], 404),
        (b"GET /V1/MODELS HTTP/1.1", [b"glm"], 404),
        (b"GET /v1/models;x HTTP/1.1", [b"glm"], 404),
        (b"GET /v1/models HTTP/1.1", [b"glm", b"other"], 400),
    ],
)
async def test_auth_bypass_by_the_host_header_or_the_target_finds_only_the_path_to_decide_on(
    world: ServerWorld, line: bytes, hosts: list[bytes], status: int
) -> None:
    reply = await sent(world, b"\r\n".join([line, *(b"host: " + host for host in hosts), b"", b""]))
    assert reply.status == status
    assert "location" not in reply.headers
    assert b"evil.example" not in reply.body
    if status != 200:
        assert complaints("/", reply) == []


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (CHAT, {"n": 10**6}, "n "),
        (TEXT, {"n": 17}, "n "),
        (TEXT, {"best_of": 10**6}, "best_of"),
        (TEXT, {"prompt": ["a"] * 65}, "prompt"),
        (TEXT, {"prompt": ["a"] * 10, "n": 10}, "100 answers"),
        (TEXT, {"logprobs": 10**6}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (CHAT, {"max_tokens": 10**12}, "max_tokens"),
        (CHAT, {"max_tokens": 2049}, "max_tokens"),
        (CHAT, {"stop": ["s"] * 17}, "stop"),
        (CHAT, {"stop": "s" * 1025}, "stop"),
        (CHAT, {"stop_token_ids": list(range(200))}, "stop_token_ids"),
        (CHAT, {"bad_words": ["w"] * 200}, "bad_words"),
        (CHAT, {"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias"),
        (CHAT, {"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        (CHAT, {"user": "u" * 513}, "user"),
        (CHAT, {"seed": 2**80}, "seed"),
        (CHAT, {"tools": [{"type": "function", "function": {"name": f"f{n}"}} for n in range(513)]}, "tools"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}] * 4097}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 1025}]}, "content"),
        (MESSAGES, {"stop_sequences": ["s"] * 17}, "stop_sequences"),
        (MESSAGES, {"max_tokens": 0}, "max_tokens"),
        (RESPONSES, {"max_output_tokens": 10**12}, "max_output_tokens"),
        (RESPONSES, {"metadata": {str(n): "" for n in range(17)}}, "metadata"),
    ],
)
async def test_unbounded_n_best_of_logprobs_and_sizes_are_bounded(
    world: ServerWorld, path: str, fields: Json, named: str
) -> None:
    assert named in await refused(world, path, **fields)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (TEXT, {"prompt": ""}),
        (TEXT, {"prompt": []}),
        (TEXT, {"prompt": [[]]}),
        (TEXT, {"prompt": [""]}),
        (TEXT, {"prompt": [10**6]}),
        (TEXT, {"prompt": [-1]}),
        (TEXT, {"prompt": None}),
        (CHAT, {"messages": []}),
        (MESSAGES, {"messages": []}),
        (RESPONSES, {"input": []}),
    ],
)
async def test_empty_and_odd_prompts_are_refused(world: ServerWorld, path: str, fields: Json) -> None:
    await refused(world, path, **fields)


def a_tool(schema: Any) -> list[Json]:
    return [{"type": "function", "function": {"name": "f", "parameters": schema}}]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "nonsense"}}},
        {"type": "object", "properties": {"a": {"type": ["string", 7, None]}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a+)+$"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/schema"}}},
        {"type": "object", "properties": 7},
        {"type": "object", "required": "a"},
    ],
)
async def test_tools_with_odd_patterns_and_types_harm_nobody(
    world: ServerWorld, engine: ScriptedEngine, schema: Json
) -> None:
    """What a model may call is read leniently; whatever comes of it, the engine and the server live on."""
    asked = asyncio.create_task(world.http.post(CHAT, json=a_body(CHAT, tools=a_tool(schema))))
    request = asyncio.create_task(engine.next_request())
    await asyncio.wait({asked, request}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        await engine.say(await request, "<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call>")
        await engine.step(finished(await request))
        assert (await asked).status_code == 200
        return
    request.cancel()
    assert (await asked).status_code == 400


def finished(request: EngineRequest) -> RequestOutput:
    return RequestOutput(request.request_id, token_ids("<|user|>"), "stop")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "(?=a)b"},
        {"type": "string", "pattern": "(a{1,9999}){1,9999}"},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**7, "maxItems": 10**7},
        {"$ref": "#/$defs/missing"},
        {"type": "object", "properties": {"a": 7}},
    ],
)
async def test_a_bad_json_schema_is_refused_and_the_server_lives(
    world: ServerWorld, engine: ScriptedEngine, schema: Json
) -> None:
    json_schema = {"name": "s", "schema": schema}
    await refused(world, CHAT, response_format={"type": "json_schema", "json_schema": json_schema})
    await assert_answers(world, engine)


@pytest.mark.parametrize("regex", ["(", "(a+)+$(", "(?<=a)b", "((a{1,999}){1,999}){1,999}", "a{99999999}", "(" * 4000])
async def test_a_bad_regex_is_refused_and_the_server_lives(
    world: ServerWorld, engine: ScriptedEngine, regex: str
) -> None:
    await refused(world, CHAT, guided_regex=regex)
    await assert_answers(world, engine)


async def assert_answers(world: ServerWorld, engine: ScriptedEngine) -> None:
    asked = asyncio.create_task(world.http.post(CHAT, json=a_body(CHAT)))
    await engine.say(await engine.next_request(), "hello", end="<|user|>")
    assert (await asked).json()["choices"][0]["message"]["content"] == "hello"


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (CHAT, {"chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        (MESSAGES, {"chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        (RESPONSES, {"chat_template": "{{ 7 * 7 }}"}, "chat_template"),
        (CHAT, {"chat_template_kwargs": {"chat_template": "{{ 1 }}"}}, "chat_template_kwargs.chat_template"),
        (CHAT, {"chat_template_kwargs": {"tokenize": False}}, "chat_template_kwargs.tokenize"),
        (RESPONSES, {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages"),
        (TEXT, {"prompt_embeds": "gASV"}, "prompt_embeds"),
        (CHAT, {"prompt_embeds": "gASV"}, "prompt_embeds"),
        (CHAT, {"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
    ],
)
async def test_templates_tensors_and_their_arguments_are_not_taken_from_requests(
    world: ServerWorld, path: str, fields: Json, named: str
) -> None:
    assert named in await refused(world, path, **fields)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_ssrf_by_an_image_is_refused_before_anything_is_fetched(world: ServerWorld, path: str) -> None:
    asked: list[bytes] = []

    async def heard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))
        writer.close()

    bait = await asyncio.start_server(heard, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{bait.sockets[0].getsockname()[1]}/x.png"
    part: Json = {
        CHAT: {"type": "image_url", "image_url": {"url": url}},
        MESSAGES: {"type": "image", "source": {"type": "url", "url": url}},
        RESPONSES: {"type": "input_image", "image_url": url},
    }[path]
    said = [{"role": "user", "content": [part]}]
    message = await refused(world, path, **({"input": said} if path == RESPONSES else {"messages": said}))
    assert "text only" in message
    assert asked == []
    bait.close()
    await bait.wait_closed()


async def test_a_compressed_body_is_not_opened(world: ServerWorld) -> None:
    """A bomb stays closed: the encoding is refused by its name."""
    bomb = gzip.compress(b"[" * 10_000_000)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: glm\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    )
    reply = await sent(world, head + bomb)
    assert reply.status == 415
    assert complaints(CHAT, reply) == []


async def test_a_body_past_all_bounds_is_refused_unread(world: ServerWorld) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: glm\r\ncontent-length: {17 * 2**20}\r\n\r\n".encode()
    reply = await sent(world, head, b" " * (17 * 2**20))
    assert reply.status == 413
    assert complaints(CHAT, reply) == []


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, TEXT, "/api/paas/v4/chat/completions", "/tokenize"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 1e999}', b'{"a": "\\ud800"}'])
async def test_texts_of_errors_leak_nothing_of_the_server(world: ServerWorld, path: str, body: bytes) -> None:
    connection = Connection(world.port)
    reply = await asyncio.wait_for(connection.post(path, body), DEADLINE_S)
    await connection.close()
    assert reply.status == 400
    assert complaints(path, reply) == []
