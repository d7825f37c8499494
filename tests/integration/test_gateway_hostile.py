"""Bytes that no honest client sends, to a gateway over real sockets: none of them reaches a group as something else."""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from fuzz.wire import read_reply
from glm_edge.http import protocol
from glm_edge.http.heads import MAX_BODY_BYTES
from glm_gateway.app import Gateway
from glm_gateway.exchange import body as gateway_body
from glm_gateway.exchange.bodies import MAX_BYTES
from integration.gateway_world import TOKEN, a_gateway, member
from integration.metrics_text import series_values
from integration.scripted_groups import FRAMES_HEAD, STALL, Asked, ScriptedGroup, opened, plain, said, serving

MODEL = "m"
DEADLINE_S = 20.0
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
WHOLE = POST + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass
class World:
    port: int
    group: ScriptedGroup
    gateway: Gateway

    async def exchange(self, *data: bytes) -> tuple[int, str]:
        """Send bytes on a connection of their own; return the status, and what the error says."""
        async with connected(self.port) as (reader, writer):
            writer.writelines(data)
            reply = await read_reply(reader)
        return reply.status, reply.body.decode()

    async def asked(self, head: bytes = b"", *, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> Asked:
        """Send a chat with further lines in its head; return what the group was asked."""
        lines = b"\r\nhost: x\r\n%scontent-length: %d\r\n\r\n" % (head, len(BODY))
        status, said = await self.exchange(line, lines, BODY)
        assert status == 200, said
        return self.group.asked.pop()

    def num_cancelled(self) -> float:
        told = self.gateway.telemetry.exposition().decode()
        return sum(series_values(told, 'glm_gateway_requests_total{api="openai",model="m",outcome="cancelled"}'))

    async def is_well(self) -> bool:
        """Tell whether an honest request is answered, and nothing else has come to the group."""
        assert self.group.asked == []
        await self.asked()
        return True


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


pytestmark = pytest.mark.asyncio(loop_scope="module")  # one gateway for all: none of this may harm the next


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world() -> AsyncIterator[World]:
    answers = [[plain(200, b'{"ok": true}', b"content-type: application/json")] for _ in range(1000)]
    group = ScriptedGroup("g0", list(answers))
    async with serving(group), a_gateway(MODEL, [member("g0", group.port)]) as (url, gateway):
        port = urlsplit(url).port
        assert port is not None
        yield World(port, group, gateway)


@pytest.mark.parametrize(
    "target",
    [
        b"//v1/chat/completions",
        b"/v1//chat/completions",
        b"/v1/../v1/chat/completions",
        b"/v1/%2e%2e/v1/chat/completions",
        b"/./v1/chat/completions",
        b"/v1/chat/completions/",
        b"/v1/chat/completions%00",
        b"/v1/chat/completions%0d%0ax-glm-role:admin",
        b"/v1/chat%252fcompletions",
        b"/v1/chat/completions;x=y",
        b"/v1/chat\\completions",
        b"/V1/chat/completions",
        b"/v1/chat/complet%69ons/%2e",
        b"/%76%31/chat/completions%20",
        b"/v1/responses/..%2f..%2fload",
        b"/v1/responses/a%2fb",
        b"/v1/responses/a%00",
        b"/load",
        b"/group",
        b"/metrics",
        b"/slo",
        b"/policy",
        b"/drain",
        b"/demand",
        b"/state",
        b"/livez",
        b"/v1/chat/completions%ff",
        b"/v1/chat/completions\xff",
        b"/\xc3\xa9",
        b"http://g0/load",
        b"http://g0//v1/chat/completions",
        b"http://g0:1/v1/../load",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET"])
async def test_a_path_that_is_not_written_as_it_is_served_is_nobodys(
    world: World, method: bytes, target: bytes
) -> None:
    head = b"%s %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (method, target, len(BODY))
    status, said = await world.exchange(head, BODY)
    assert status in (400, 404), said
    assert json.loads(said)["error"]["code"] in ("not_found", "malformed_request")
    assert await world.is_well()


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/chat/completions",
        b"/v1/chat%2fcompletions",
        b"/%76%31/chat/completions",
        b"http://evil.example/v1/chat/completions",
    ],
)
async def test_however_a_path_is_written_a_group_is_asked_by_its_one_name(world: World, target: bytes) -> None:
    asked = await world.asked(line=b"POST %s HTTP/1.1" % target)
    assert asked.target == "/v1/chat/completions"
    assert "evil.example" not in str(asked.headers)


async def test_what_a_worker_believes_of_a_gateway_cannot_come_from_a_client(world: World) -> None:
    names = (
        b"x-glm-frames: 1",
        b"x-glm-gateway: forged",
        b"X-GLM-Role: admin",
        b"x-glm-tenant: other",
        b"x-glm-model: other",
        b"x-glm-max-thinking: 0",
        b"x-glm-context-tokens: 1000000",
        b"x-glm-auto-thinking: off",
        b"x-forwarded-for: 1.2.3.4",
        b"authorization: Bearer secret",
        b"x-api-key: secret",
        b"cookie: a=b",
        b"expect: 200-ok",
        b"connection: x-glm-kept",
        b"x-glm-kept: 1",
    )
    asked = await world.asked(b"".join(name + b"\r\n" for name in names))
    assert asked.headers["x-glm-gateway"] == TOKEN
    assert "forged" not in str(asked.headers)
    assert "admin" not in str(asked.headers)
    assert set(asked.headers) == {
        "host",
        "content-length",
        "x-glm-gateway",
        "x-glm-frames",
        "x-glm-model",
        "x-glm-tenant",
        "x-request-id",
    }
    assert "other" not in (asked.headers["x-glm-tenant"], asked.headers["x-glm-model"])


@pytest.mark.parametrize(
    "name", [b"x_glm_role", b"x-glm-role ", b"x-glm-role\x00", b"\tx-glm-role", b" x-glm-role", b"X-GLM-ROLE\x0b"]
)
async def test_a_name_that_is_nearly_one_that_workers_believe_is_refused_or_dropped(world: World, name: bytes) -> None:
    status, said = await world.exchange(POST + name + b": admin\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)
    assert status in (200, 400), said
    assert all("admin" not in str(asked.headers) for asked in world.group.asked)
    world.group.asked.clear()


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "of which one is allowed"),
        (POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400, "of which one is allowed"),
        (POST + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 0, ""),
        (POST + b"transfer-encoding: identity\r\n\r\n", 501, "allowed: chunked"),
        (POST + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", 400, "malformed"),
        (POST + b"transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 0, ""),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "gzip, chunked"),
        (POST + b"content-length: +5\r\n\r\nhello", 400, "no number"),
        (POST + b"content-length: 0x5\r\n\r\nhello", 400, "no number"),
        (POST + b"content-length: 5 5\r\n\r\nhello", 400, "no number"),
        (POST + b"content-length: 5, 5\r\n\r\nhello", 400, "no number"),
        (POST + b"content-length: -5\r\n\r\nhello", 400, "no number"),
        (POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello", 400, "twice"),
        (POST + b"x: a\r\n b\r\n\r\n", 400, "malformed"),
        (POST + b"x: a\r\n\tcontent-length: 5\r\n\r\n", 400, "malformed"),
        (b"POST /v1/chat/completions HTTP/1.1\r\n host: x\r\n\r\n", 400, ""),
        (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", 400, "chunk"),
        (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", 400, "chunk"),
        (CHUNKED + b"5\nhello\n0\n\n", 400, ""),
        (CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n", 400, ""),
        (CHUNKED + b"fffffffffffffffff\r\nhello", 400, "chunk"),
        (POST + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello", 415, "allowed: identity"),
        (POST + b"content-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413, "larger than"),
        (POST + b"x: " + b"a" * protocol.MAX_HEAD_BYTES, 431, "larger than"),
        (b"GET /health HTTP/1.1\nhost: x\n\n", 400, ""),
        (b"GET /health HTTP/1.1\r\nhost: x\nx: y\r\n\r\n", 400, ""),
        (b"GET /health\r\n\r\n", 400, ""),
        (b"GET /health HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400, "twice"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/2"),
    ],
)  # fmt: skip
async def test_what_two_parsers_could_take_for_two_requests_is_refused_and_the_connection_ends(
    world: World, data: bytes, status: int, said: str
) -> None:
    """What stands behind it is no request of its own: it is never answered, and comes to no group."""
    async with connected(world.port) as (reader, writer):
        writer.write(data + WHOLE)
        reply = await read_reply(reader)
        assert reply.status == status or (not status and reply.status in (400, 501)), reply.body
        assert said in reply.body.decode()
        assert reply.headers["connection"] == "close"
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    assert await world.is_well()


async def test_a_bomb_of_gzip_is_not_opened(world: World) -> None:
    bomb = gzip.compress(b" " * 2**24)
    status, said = await world.exchange(
        POST + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb), bomb
    )
    assert status == 415
    assert "allowed: identity" in said
    assert await world.is_well()


@pytest.mark.parametrize(
    ("data", "said"), [(b"POST /v1/chat", "head of the request"), (POST, "head of the request"), (b"\r\n\r\nG", "head")]
)
async def test_a_head_that_does_not_come_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, data: bytes, said: str
) -> None:
    monkeypatch.setattr(protocol, "HEAD_S", 0.1)
    status, told = await world.exchange(data)
    assert status == 408
    assert said in told


@pytest.mark.parametrize("head", [POST + b"content-length: 5\r\n\r\n{", CHUNKED + b"5\r\n{", CHUNKED])
async def test_a_body_that_does_not_come_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(gateway_body, "BODY_IDLE_S", 0.1)
    status, told = await world.exchange(head)
    assert status == 408
    assert "did not come" in told
    assert await world.is_well()


async def test_a_body_that_comes_byte_by_byte_is_given_up_as_a_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_body, "BODY_S", 0.3)
    async with connected(world.port) as (reader, writer):
        writer.write(POST + b"content-length: 1000\r\n\r\n")
        reading = asyncio.create_task(read_reply(reader))
        while not reading.done():
            writer.write(b" ")
            await asyncio.wait({reading}, timeout=0.02)
        assert (await reading).status == 408


@pytest.mark.parametrize("path", [b"/health", b"/version", b"/v1/models", b"/openapi.json", b"/docs", b"/v1/models/m"])
async def test_head_is_answered_as_get_without_a_body(world: World, path: bytes) -> None:
    async with connected(world.port) as (reader, writer):
        writer.write(b"HEAD %s HTTP/1.1\r\nhost: x\r\n\r\n" % path)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
        reply = await read_reply(reader)
        assert await reader.read() == b""
    assert head.startswith(b"HTTP/1.1 200")
    assert b"content-length: %d\r\n" % len(reply.body) in head
    assert reply.status == 200
    world.group.asked.clear()  # for its own description


@pytest.mark.parametrize(
    "path", [b"/nothing", b"/v1/models/other", b"/v1/chat/completions", b"/v1/responses/resp_g0_1"]
)
async def test_a_refusal_of_head_has_no_body_either(world: World, path: bytes) -> None:
    async with connected(world.port) as (reader, writer):
        writer.write(b"HEAD %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" % path)
        head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert rest == b""


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/models/%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /health?\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/usage?start=%ff HTTP/1.1\r\nhost: x\r\n\r\n",
        POST + b"content-length: 4\r\n\r\n\xff\xfe\x00\x01",
        POST + b'content-length: 14\r\n\r\n{"model":"\xff\xfe"}',
        POST + b'content-length: 18\r\n\r\n{"model":"\\ud800"}',
        b"GET /health HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\r\nx-request-id: \xff\xfe\r\n\r\n",
    ],
)
async def test_what_is_no_utf8_is_answered_with_json(world: World, data: bytes) -> None:
    status, said = await world.exchange(data)
    assert status in (200, 400, 404), said
    json.loads(said)
    assert await world.is_well()


async def test_bytes_of_a_query_reach_a_group_as_they_are_or_not_at_all(world: World) -> None:
    for query in (b"a=%0d%0ax-glm-role:admin", b"a=\xe9", b"a=b c", b"a=\tb"):
        status, said = await world.exchange(
            b"POST /v1/chat/completions?%s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (query, len(BODY)), BODY
        )
        assert status in (200, 400), said
        for asked in world.group.asked:
            assert asked.target == f"/v1/chat/completions?{query.decode('latin-1')}"
            assert "admin" not in str(asked.headers)
        world.group.asked.clear()
    assert await world.is_well()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "m", "messages": ' + b"[" * 100 + b"]" * 100 + b"}", "nested 101 deep; allowed are 64"),
        (b'{"model": "m", "messages": [' + b"[]," * 20_000 + b"[]]}", "objects and lists; allowed are 15000"),
        (b'{"model": "m", "input": [' + b"1," * 300_000 + b"1]}", "values; allowed are 200000"),
        (b'{"model": "m", "input": [' + b'"",' * 50_000 + b'""]}', "strings, keys counted; allowed are 40000"),
        (b'{"model": "m", "max_tokens": ' + b"9" * 10_000 + b"}", "more than 400 digits; allowed are 400"),
        (b'{"model": "m", "x": [' + b"1," * 2_000_000 + b"1]}", "values; allowed are 200000"),
    ],
)
async def test_a_body_with_more_in_it_than_is_read_is_refused_by_what_it_has(
    world: World, body: bytes, said: str
) -> None:
    status, told = await world.exchange(POST + b"content-length: %d\r\n\r\n" % len(body), body)
    assert status == 400
    assert json.loads(told)["error"]["code"] == "body_too_complex"
    assert said in told
    assert await world.is_well()


@pytest.mark.parametrize("number", [b"9" * 300, b"-1", b"0", b"1e308", b"0.5", b"true", b'"x"', b"null", b"[]"])
async def test_any_number_of_tokens_is_for_the_worker_to_judge(world: World, number: bytes) -> None:
    for name in (b"max_tokens", b"n", b"priority"):
        body = b'{"model": "m", "messages": [], "%s": %s}' % (name, number)
        status, told = await world.exchange(POST + b"content-length: %d\r\n\r\n" % len(body), body)
        assert status == 200, told
        assert world.group.asked.pop().body == body


async def test_bodies_under_way_have_a_bound_together_and_give_their_room_back(world: World) -> None:
    world.gateway.bodies.max_bytes = 1000
    try:
        async with connected(world.port) as (_, writer):
            writer.write(POST + b"content-length: 900\r\n\r\n" + b" " * 800)
            async with asyncio.timeout(DEADLINE_S):
                while world.gateway.bodies.num_bytes < 800:  # noqa: ASYNC110 - nothing tells a test
                    await asyncio.sleep(0.01)
            large = BODY + b" " * 300
            status, told = await world.exchange(POST + b"content-length: %d\r\n\r\n" % len(large), large)
            assert (status, json.loads(told)["error"]["code"]) == (503, "overloaded")
            assert await world.is_well()
        async with asyncio.timeout(DEADLINE_S):
            while world.gateway.bodies.num_bytes:  # noqa: ASYNC110 - nothing tells a test
                await asyncio.sleep(0.01)
        status, _ = await world.exchange(POST + b"content-length: %d\r\n\r\n" % len(large), large)
        assert status == 200
        world.group.asked.clear()
    finally:
        world.gateway.bodies.max_bytes = MAX_BYTES


async def test_who_does_not_read_its_stream_gives_up_its_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "UNREAD_S", 0.2)
    many = [said("x" * 65_536, number) for number in range(500)]  # more than sockets hold
    world.group.scripts.insert(0, [FRAMES_HEAD, opened(), *many, STALL])
    before = world.num_cancelled()
    body = json.dumps({**json.loads(BODY), "stream": True}).encode()
    async with connected(world.port) as (reader, writer):
        writer.write(POST + b"content-length: %d\r\n\r\n" % len(body) + body)
        async with asyncio.timeout(DEADLINE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            while world.gateway.num_running:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
    assert world.num_cancelled() == before + 1
    assert not world.gateway.models[MODEL].in_flight
    world.group.asked.pop()
    assert await world.is_well()
