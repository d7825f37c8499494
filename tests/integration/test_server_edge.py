"""The edge of HTTP, byte by byte: what is no request, what is too much of one, and who is still there."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from glm_edge.http import protocol
from glm_edge.http.heads import MAX_BODY_BYTES
from glm_worker.messages import Full, RequestOutput
from glm_worker.server.edge import body as body_module
from glm_worker.server.flights.exchange import KEEP_ALIVE_S
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, token_ids

CHAT = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
MESSAGES = HEAD.replace(b"/chat/completions", b"/messages")
GET = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"

by_one_server = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ServerWorld]:
    async with a_server(tmp_path) as world:
        yield world


@pytest.fixture
async def engine(world: ServerWorld) -> ScriptedEngine:
    return await world.serve()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerWorld]:
    """A server for all that is refused: none of it may harm the next."""
    async with a_server(tmp_path_factory.mktemp("shared")) as world:
        yield world


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


async def asking(world: ServerWorld) -> Connection:
    """Return a connection on which an answer is owed: the body of its request, 100 bytes, is still to come."""
    connection = (await Connection.open(world)).send(HEAD + b"content-length: 100\r\nexpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(DEADLINE_S):
        assert b"100 Continue" in await connection.reader.readuntil(b"\r\n\r\n")
    return connection


@by_one_server
@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "of which one is allowed"),
        (HEAD + b"content-length: five\r\n\r\n", 400, "Content-Length is no number"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400, "Content-Length is there twice"),
        (HEAD + b"content-length: 99999999999999999999999\r\n\r\n", 400, "Content-Length is too large a number"),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 400, "Host is missing"),
        (HEAD + b"host: y\r\ncontent-length: 0\r\n\r\n", 400, "Host is there twice"),
        (b"NONSENSE\r\n\r\n", 400, "its method is not known"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "it begins HTTP/2"),
        (b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "its method is CONNECT"),
        (b"GET a:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400, "its URL cannot be read"),
        (b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n", 400, "it cannot be parsed"),
        (b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", 400, "its version is not HTTP/1.1"),
        (b"GET / HTTP/1.1\nhost: x\n\n", 400, "its version is not HTTP/1.1"),
        (HEAD + b"a b: c\r\n\r\n", 400, "a header is malformed"),
        (CHUNKED + b"zz\r\n", 400, "a chunk of its body is malformed"),
        (HEAD + b"x: " + b"a" * protocol.MAX_HEAD_BYTES, 431, f"larger than {protocol.MAX_HEAD_BYTES} bytes"),
        (HEAD + b"x: " + b"a" * 70_000 + b"\r\n\r\n", 431, f"larger than {protocol.MAX_HEAD_BYTES} bytes"),
        (HEAD + b"x: " + b" " * 120_000 + b"a\r\n\r\n", 431, f"larger than {protocol.MAX_HEAD_BYTES} bytes"),
        (HEAD + b"x: " + b"a" * 2_000_000 + b"\r\n\r\n", 431, f"larger than {protocol.MAX_HEAD_BYTES} bytes"),
        (HEAD + b"x: a\r\n" * (protocol.MAX_HEADERS + 1) + b"\r\n", 431, f"more than {protocol.MAX_HEADERS} headers"),
        (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "Transfer-Encoding is gzip, chunked"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", 501, "Transfer-Encoding is gzip; allowed: chunked"),
        (HEAD + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", 415, "gzip; allowed: identity"),
        (HEAD + b"content-encoding: '\xff'\r\ncontent-length: 1\r\n\r\nx", 415, "a text of 3 characters; allowed"),
        (HEAD + b"content-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413, f"larger than {MAX_BODY_BYTES} bytes"),
        (CHUNKED + b"1;" + b"a" * 2 * protocol.SPARE_BYTES, 413, "the chunks of the body have more than"),
        (CHUNKED + b"1\r\nx\r\n0\r\nt: " + b"a" * 2 * protocol.SPARE_BYTES, 413, "the chunks of the body"),
        (CHUNKED + (b"100000\r\n" + b" " * 2**20 + b"\r\n") * 40, 413, f"larger than {MAX_BODY_BYTES} bytes"),
    ],
    ids=range(28),
)
async def test_what_is_no_request_is_refused_in_json_and_the_connection_closed(
    shared: ServerWorld, data: bytes, status: int, said: str
) -> None:
    told, headers, body = await exchange(shared, data)
    assert told == status, body
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"]
    assert said in body["error"]["message"]
    assert (await shared.http.get("/v1/models")).status_code == 200


@by_one_server
@pytest.mark.parametrize(
    "wrong", [b"y: z\r\na b: c\r\n\r\n", b"content-length: 99999999\r\n\r\n", b"transfer-encoding: gzip\r\n\r\n"]
)
async def test_what_is_no_request_is_told_by_its_own_id_under_the_names_of_its_surface(
    shared: ServerWorld, wrong: bytes
) -> None:
    _, headers, _ = await exchange(shared, HEAD + b"x-request-id: mine\r\n" + wrong)
    assert headers["x-request-id"] == "mine"
    assert "request-id" not in headers
    _, headers, body = await exchange(shared, MESSAGES + b"x-request-id: mine\r\n" + wrong)
    assert headers["x-request-id"] == headers["request-id"] == body["request_id"] == "mine"


@by_one_server
@pytest.mark.parametrize(
    "path", ["/v1/models", "/health", "/ping", "/version", "/openapi.json", "/docs", "/api/paas/v4/models", "/nothing"]
)
async def test_every_answer_has_the_id_of_its_request(shared: ServerWorld, path: str) -> None:
    answer = await shared.http.get(path, headers={"x-request-id": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"]
    assert len((await shared.http.get(path)).headers["x-request-id"]) == 32


@by_one_server
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/nothing", "/api/anthropic/nothing"])
async def test_what_anthropics_surface_has_not_is_told_with_its_name_for_the_id(shared: ServerWorld, path: str) -> None:
    answer = await shared.http.get(path)
    assert answer.status_code in (404, 405)
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == answer.json()["request_id"]


@by_one_server
async def test_a_body_that_is_announced_too_large_is_refused_before_the_client_is_told_to_send_it(
    shared: ServerWorld,
) -> None:
    connection = await Connection.open(shared)
    connection.send(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1))
    async with asyncio.timeout(DEADLINE_S):
        answer = await connection.reader.read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    await connection.close()


@by_one_server
async def test_a_head_as_large_as_is_allowed_is_read(shared: ServerWorld) -> None:
    start, end = GET + b"x: ", b"\r\nconnection: close\r\n\r\n"
    fill = protocol.MAX_HEAD_BYTES - len(start) - len(end)
    assert (await exchange(shared, start + b"a" * fill + end))[0] == 200
    assert (await exchange(shared, start + b"a" * (fill + 1) + end))[0] == 431


@by_one_server
async def test_who_sends_without_end_after_a_refusal_is_cut_off(
    shared: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_BYTES", 1000)
    connection = await Connection.open(shared)
    assert (await connection.send(b"NONSENSE\r\n\r\n").response())[0] == 400

    async def send_on() -> None:
        while True:
            await connection.send(b"a" * 1000).writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_on(), DEADLINE_S)
    await connection.close()


@by_one_server
async def test_who_stays_after_a_refusal_is_cut_off(shared: ServerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.01)
    num_open = await shared.value("glm_http_connections")
    connection = await Connection.open(shared)
    assert (await connection.send(b"NONSENSE\r\n\r\n").response())[0] == 400
    await shared.until("glm_http_connections", num_open)
    await connection.close()


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
    first = await asking(world)
    status, headers, body = await exchange(world, b"")
    assert (status, headers["retry-after"], body["error"]["code"]) == (503, "1", "overloaded")
    await first.close()


async def test_at_the_bound_who_asks_for_nothing_gives_way_to_who_comes(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    asks = await asking(world)
    silent = await Connection.open(world)
    await world.until("glm_http_connections", 2)
    begun = (await Connection.open(world)).send(GET)
    await world.until("glm_http_connections", 3)
    newcomers = [await Connection.open(world) for _ in range(5)]
    assert await silent.is_closed()
    assert await begun.is_closed()
    last = newcomers[-1].send(GET + b"\r\n")
    assert (await last.response())[0] == 200
    rest = b'{"model":"%s","messages":[]}' % MODEL.encode()
    status, _, body = await asks.send(rest.ljust(100)).response()
    assert (status, body["error"]["param"]) == (400, "messages")
    assert await world.value("glm_http_connections") == 3
    for connection in (asks, silent, begun, *newcomers):
        await connection.close()


async def test_the_supervisor_is_told_when_there_is_no_room_for_connections_and_when_there_is(
    world: ServerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 10)
    clients = [await asking(world) for _ in range(10)]
    full = await world.told(Full)
    assert full.reason is not None
    assert full.reason.startswith("answers are owed on 10 connections of clients")
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
        refused = 0.0
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
    await engine.say(request, "1")
    async with asyncio.timeout(DEADLINE_S):
        await connection.reader.readuntil(b'"content":"1"')
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


@pytest.mark.parametrize("behind", [GET + b"\r\n", GET, b"\r\n"])
async def test_a_client_that_goes_away_frees_the_engine_whatever_it_sent_behind(
    world: ServerWorld, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture, behind: bytes
) -> None:
    request = HEAD + b"content-length: %d\r\n\r\n" % len(CHAT) + CHAT
    for parts in ([request + behind], [request, behind]):
        connection = await Connection.open(world)
        submitted = None
        for part in parts:
            connection.send(part)
            submitted = submitted or await engine.next_request()
        await connection.close()
        assert submitted is not None
        assert await engine.next_cancelled() == submitted.request_id
    assert "Traceback" not in caplog.text


async def test_a_client_of_http_1_0_reads_a_stream_to_the_end_of_the_connection(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    body = json.dumps({**json.loads(CHAT), "stream": True}).encode()
    connection = await Connection.open(world)
    connection.send(b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await engine.say(await engine.next_request(), "hello", end="<|user|>")
    async with asyncio.timeout(DEADLINE_S):
        head, _, events = (await connection.reader.read()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert all(line.startswith(b"data: ") for line in events.split(b"\n\n")[:-1])
    assert events.endswith(b"data: [DONE]\n\n")
    await connection.close()


async def test_a_probe_never_stands_within_the_answer_to_an_earlier_request(
    world: ServerWorld, engine: ScriptedEngine
) -> None:
    body = json.dumps({**json.loads(CHAT), "stream": True}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    connection = await Connection.open(world)
    connection.send(request + request)
    first = await engine.next_request()
    await engine.say(first, "1")
    async with asyncio.timeout(DEADLINE_S):
        told = await connection.reader.readuntil(b'"content":"1"')
        connection.writer.write_eof()
        told += await connection.reader.readuntil(b"4\r\n: \n\n\r\n")  # a probe, as a comment among the events
        await engine.step(RequestOutput(first.request_id, token_ids("<|user|>"), "stop"))
        await engine.say(await engine.next_request(), "2", end="<|user|>")
        told += await connection.reader.read()
    answers = told.split(b"HTTP/1.1 200 OK")[1:]
    assert len(answers) == 2
    for answer, text in zip(answers, "12", strict=True):
        assert "".join(re.findall(r'"content":"([^"]*)"', answer.decode())) == text
        assert answer.partition(b"0\r\n\r\n")[0].count(b"HTTP/1.1") == 0
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


async def test_headers_after_a_body_count_for_nothing(tmp_path: Path) -> None:
    async with a_server(tmp_path, trust_proxy_headers=True) as world:
        engine = await world.serve()
        connection = await Connection.open(world)
        chunks = b"%x\r\n%s\r\n0\r\n" % (len(CHAT), CHAT)
        connection.send(CHUNKED + chunks + b"x-request-id: smuggled\r\nx-glm-role: admin\r\n\r\n")
        await engine.say(await engine.next_request(), "hello", end="<|user|>")
        status, headers, _ = await connection.response()
        assert status == 200
        assert headers["x-request-id"] != "smuggled"
        await connection.close()
