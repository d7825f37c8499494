"""curl before a gateway's process: old HTTP, expectations, and connections that are used again or closed."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from glm_gateway.access.keys import item_of, new_key
from integration.gateway_process import TOKEN, GatewayProcess, a_gateway_process, model_of, write_groups
from integration.server_world import DEADLINE_S, MODEL, a_server
from integration.writing_engine import Writer, writing

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here"),
    pytest.mark.asyncio(loop_scope="module"),
]

PATH = "/v1/chat/completions"
TOLD = r"\n%{http_version} %{http_code} %{num_connects} %{content_type}"


@dataclass
class Reply:
    """body: as it came. http, status, num_connects, kind: as curl tells them. log: what it says with --verbose."""

    body: str
    http: str
    status: int
    num_connects: int
    kind: str
    log: str


@dataclass
class World:
    gateway: GatewayProcess
    writer: Writer

    async def curl(self, *arguments: str, path: str = PATH, key: str = "alice", stdin: bytes = b"") -> list[Reply]:
        """Ask for each path, with one run of curl. Returns the replies in order."""
        process = await asyncio.create_subprocess_exec(
            *(
                "curl",
                "--silent",
                "--verbose",
                "--no-buffer",
                "--max-time",
                str(DEADLINE_S),
                "--write-out",
                TOLD + "\x01",
            ),
            *("--header", f"Authorization: Bearer glm-{key}", "--header", "Content-Type: application/json"),
            *arguments,
            *(f"{self.gateway.url}{each}" for each in path.split()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, log = await process.communicate(stdin)
        assert process.returncode == 0, log.decode()
        replies = []
        for part in printed.decode().split("\x01")[:-1]:
            body, _, told = part.rpartition("\n")
            http, status, num_connects, kind = told.split(" ", 3)
            replies.append(Reply(body, http, int(status), int(num_connects), kind, log.decode()))
        return replies


def chat(*, stream: bool = False, text: str = "hi", max_tokens: int = 5) -> str:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": max_tokens, "stream": stream})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    tmp_path = tmp_path_factory.mktemp("curl")
    (tmp_path / "keys").mkdir()
    for name in ("alice", "bob"):
        key = new_key(f"glm-{name}", datetime.now(UTC), group=None, role=None, expires=None)
        (tmp_path / "keys" / name).write_bytes(item_of(key))
    config = {
        "auth": {"mode": "Keys", "keysFolder": str(tmp_path / "keys")},
        "models": [model_of(MODEL, tmp_path / "groups.json")],
        "quotas": {"keys": {"bob": {"answerTokensPerMinute": 600}}},  # ten in a second
    }
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0") as server:
        write_groups(tmp_path / "groups.json", {"chat-g0": server.port})
        async with writing(await server.serve()) as writer, a_gateway_process(tmp_path, **config) as gateway:
            await gateway.until_value(f'glm_gateway_groups_ready{{model="{MODEL}"}}', 1)
            yield World(gateway, writer)


async def test_curl_is_answered_whole_and_in_a_stream(world: World) -> None:
    (whole,) = await world.curl("--data", chat())
    assert (whole.http, whole.status, whole.kind) == ("1.1", 200, "application/json")
    assert json.loads(whole.body)["choices"][0]["message"]["content"] == "aaaaa"
    (stream,) = await world.curl("--data", chat(stream=True))
    assert (stream.status, stream.kind) == (200, "text/event-stream; charset=utf-8")
    assert stream.body.endswith("data: [DONE]\n\n")
    assert "Transfer-Encoding: chunked" in stream.log or "transfer-encoding: chunked" in stream.log


@pytest.mark.parametrize("stream", [False, True])
async def test_http_of_1996_gets_its_answer_to_the_end_of_the_connection(world: World, *, stream: bool) -> None:
    (reply,) = await world.curl("--http1.0", "--data", chat(stream=stream))
    assert reply.status == 200
    assert "chunked" not in reply.log
    assert reply.body.endswith("data: [DONE]\n\n") if stream else json.loads(reply.body)["usage"]
    assert "Closing connection" in reply.log


async def test_a_body_that_waits_to_be_called_for_is_called_for(world: World) -> None:
    (reply,) = await world.curl(
        "--header", "Expect: 100-continue", "--expect100-timeout", str(DEADLINE_S), "--data", chat()
    )
    assert reply.status == 200
    assert "HTTP/1.1 100 Continue" in reply.log


async def test_a_body_that_would_be_refused_is_not_called_for(world: World) -> None:
    """Without a key nobody's body is read. curl does not send it then."""
    big = "x" * 3_000_000
    (reply,) = await world.curl(
        *("--header", "Expect: 100-continue", "--expect100-timeout", str(DEADLINE_S), "--data-binary", "@-"),
        key="nobody",
        stdin=chat(text=big).encode(),
    )
    assert reply.status == 401
    assert "100 Continue" not in reply.log


async def test_a_body_in_chunks_is_read_as_one_with_a_length(world: World) -> None:
    (reply,) = await world.curl(
        *("--header", "Transfer-Encoding: chunked", "--data-binary", "@-"), stdin=chat().encode()
    )
    assert reply.status == 200
    assert json.loads(reply.body)["choices"][0]["message"]["content"] == "aaaaa"


async def test_a_connection_is_used_for_all_that_curl_asks(world: World) -> None:
    """After a whole answer, a stream, a refusal and a page."""
    replies = await world.curl("--data", chat(stream=True), path=f"{PATH} {PATH} /v1/nothing {PATH}")
    assert [reply.status for reply in replies] == [200, 200, 404, 200]
    assert [reply.num_connects for reply in replies] == [1, 0, 0, 0]


@pytest.mark.parametrize("stream", [False, True])
async def test_who_wants_the_connection_closed_has_it_closed(world: World, *, stream: bool) -> None:
    replies = await world.curl(*("--header", "Connection: close", "--data", chat(stream=stream)), path=f"{PATH} {PATH}")
    assert [reply.status for reply in replies] == [200, 200]
    assert [reply.num_connects for reply in replies] == [1, 1]


async def test_curl_tries_again_when_it_is_told_to(world: World) -> None:
    """It heeds the whole seconds of Retry-After."""
    began_s = time.monotonic()
    (all_there_is,) = await world.curl("--data", chat(max_tokens=600), key="bob")
    (reply,) = await world.curl("--retry", "3", "--data", chat(max_tokens=20), key="bob")
    took_s = time.monotonic() - began_s
    assert (all_there_is.status, reply.status) == (200, 200)
    assert "HTTP/1.1 429" in reply.log
    assert 2.0 <= took_s < 10.0
