"""The edge of HTTP, byte by byte: what is no request, what is too much of one, and who is still there."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from glm_worker.messages import Full
from glm_worker.server.edge import body as body_module
from glm_worker.server.edge import protocol
from glm_worker.server.flights.exchange import KEEP_ALIVE_S
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


class Connection:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, world: ServerWorld) -> "Connection":
        return cls(*await asyncio.open_connection("127.0.0.1", world.port))

    def send(self, data: bytes) -> "Connection":
        self.writer.write(data)
        return self

    async def response(self) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and JSON of the next response that is none in between."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
                status = int(head.split()[1])
                if status != 100:
                    break
            headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return status, headers, json.loads(body)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.read(1) == b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def exchange(world: ServerWorld, data: bytes) -> tuple[int, dict[str, str], Any]:
    connection = await Connection.open(world)
    try:
        answer = await connection.send(data).response()
        assert await connection.is_closed()
        return answer
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Content-Length"),
        (HEAD + b"content-length: five\r\n\r\n", 400, "Content-Length"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400, "Content-Length"),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400, "Host is missing"),
        (HEAD + b"host: y\r\ncontent-length: 0\r\n\r\n", 400, "Host is there twice"),
        (b"NONSENSE\r\n\r\n", 400, "no valid HTTP request"),
        (HEAD + b"x: " + b"a" * protocol.MAX_HEAD_BYTES, 431, f"larger than {protocol.MAX_HEAD_BYTES} bytes"),
        (HEAD + b"x: a\r\n" * (protocol.MAX_HEADERS + 1) + b"\r\n", 431, f"more than {protocol.MAX_HEADERS} headers"),
    ],
)
async def test_what_is_no_request_is_refused_in_json_and_the_connection_closed(
    world: ServerWorld, data: bytes, status: int, said: str
) -> None:
    told, headers, body = await exchange(world, data)
    assert told == status
    assert headers["content-type"] == "application/json"
    assert said in body["error"]["message"]
    assert (await world.http.get("/v1/models")).status_code == 200


async def test_a_head_that_does_not_come_is_given_up(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.05)
    status, _, body = await exchange(world, HEAD)
    assert (status, body["error"]["code"]) == (408, "request_timeout")


async def test_a_body_that_does_not_come_is_given_up(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "IDLE_S", 0.05)
    status, headers, body = await exchange(world, HEAD + b"content-length: 100\r\n\r\n{")
    assert (status, body["error"]["code"]) == (408, "request_timeout")
    assert headers["connection"] == "close"


async def test_a_connection_that_asks_for_nothing_is_closed(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "IDLE_S", 0.05)
    connection = await Connection.open(world)
    assert await connection.is_closed()
    await connection.close()


async def test_connections_past_the_bound_are_told_so(world: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 1)
    first = await Connection.open(world)
    assert (await first.send(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").response())[0] == 200
    status, headers, body = await exchange(world, b"")
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "overloaded")
    await first.close()


async def test_the_supervisor_is_told_when_there_is_no_room_for_connections_and_when_there_is(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 10)
    clients = [await Connection.open(world) for _ in range(10)]
    full = await world.told(Full)
    assert full.reason is not None
    assert full.reason.startswith("10 connections of clients are open")
    assert await world.value("glm_http_connections") == 10
    assert (await exchange(world, b""))[0] == 503
    await clients.pop().close()
    await world.until("glm_http_connections", 9)  # nothing is told: 9 are not below 90 % of 10
    await clients.pop().close()
    assert await world.told(Full) == Full(None)
    assert await world.value("glm_http_connections") == 8
    for client in clients:
        await client.close()


async def test_a_queue_that_is_full_is_nothing_that_readiness_hears_of(tmp_path: Path) -> None:
    async with a_server(tmp_path, max_waiting_requests=0, max_num_seqs=1) as world:
        await world.serve()
        refused = 0
        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(world.http.post("/v1/chat/completions", content=CHAT))
            async with asyncio.timeout(DEADLINE_S):
                while refused < 19:
                    refused = await world.value('glm_requests_total{outcome="refused"}')  # fails if it is told of room
            world.hang_up()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_has_closed_its_half_gets_its_answer(
    world: ServerWorld, engine: ScriptedEngine, stream: bool
) -> None:
    body = json.dumps({**json.loads(CHAT), "stream": stream}).encode()
    connection = await Connection.open(world)
    connection.send(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    connection.writer.write_eof()
    request = await engine.next_request()
    async with asyncio.timeout(DEADLINE_S):  # the server has seen the end of our half: it probes
        await connection.reader.readuntil(b"100 Continue\r\n\r\n")
    await engine.say(request, "hello", end="<|user|>")
    async with asyncio.timeout(DEADLINE_S):
        answer = await connection.reader.read()
    assert b"HTTP/1.1 200 OK" in answer
    assert "".join(re.findall(r'"content":"([^"]*)"', answer.decode())) == "hello"
    assert engine.cancelled.empty()
    await connection.close()


async def test_a_client_that_closes_a_stream_that_has_begun_frees_the_engine_though_nothing_more_is_told(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    body = json.dumps({**json.loads(CHAT), "stream": True}).encode()
    connection = await Connection.open(world)
    connection.send(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    request = await engine.next_request()
    await engine.say(request, "hello")
    async with asyncio.timeout(DEADLINE_S):
        await connection.reader.readuntil(b"hello")
    closed_at = asyncio.get_running_loop().time()
    await connection.close()
    assert await engine.next_cancelled() == request.request_id
    assert asyncio.get_running_loop().time() - closed_at < KEEP_ALIVE_S, "a probe found out, not a comment"


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/chat/completions/", "//evil.example/v1/models"])
async def test_a_slash_too_many_is_not_found_and_nobody_is_sent_elsewhere(world: ServerWorld, path: str) -> None:
    connection = await Connection.open(world)
    connection.send(b"GET " + path.encode() + b" HTTP/1.1\r\nhost: evil.example\r\n\r\n")
    status, headers, body = await connection.response()
    assert status in (404, 405)
    assert "location" not in headers
    assert body["error"]["code"]
    await connection.close()


async def test_a_client_that_offers_http2_is_answered_in_http1(world: ServerWorld, engine: ScriptedEngine) -> None:
    connection = await Connection.open(world)
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAA\r\n"
    connection.send(HEAD + offer + b"content-length: %d\r\n\r\n" % len(CHAT) + CHAT)
    await engine.say(await engine.next_request(), "hello", end="<|user|>")
    status, _, body = await connection.response()
    assert (status, body["choices"][0]["message"]["content"]) == (200, "hello")
    await connection.close()


async def test_two_requests_sent_at_once_are_answered_one_after_the_other(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    connection = await Connection.open(world)
    request = HEAD + b"content-length: %d\r\n\r\n" % len(CHAT) + CHAT
    connection.send(request + request)
    for text in ("one", "two"):
        await engine.say(await engine.next_request(), text, end="<|user|>")
        assert (await connection.response())[2]["choices"][0]["message"]["content"] == text
    await connection.close()


async def test_a_long_method_is_not_told_back_whole(world: ServerWorld) -> None:
    connection = await Connection.open(world)
    status, _, body = await connection.send(b"A" * 5000 + b" / HTTP/1.1\r\nhost: x\r\n\r\n").response()
    assert status == 400
    assert len(body["error"]["message"]) < 300
    await connection.close()


async def test_a_body_in_chunks_of_one_byte_is_refused_and_one_in_large_chunks_is_read(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    chunked = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    status, _, body = await exchange(world, chunked + b"1\r\n \r\n" * (protocol.MAX_SMALL_CHUNKS + 1))
    assert status == 400
    assert "more than 1024 chunks of less than 64 bytes" in body["error"]["message"]

    connection = await Connection.open(world)
    large = b" " * 100
    connection.send(chunked + b"64\r\n%s\r\n" % large * 2000 + b"%x\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT))
    await engine.say(await engine.next_request(), "hello", end="<|user|>")
    assert (await connection.response())[0] == 200
    await connection.close()
