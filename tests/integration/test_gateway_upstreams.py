"""Servers outside, as an arm of a name and as overflow: over TLS, with their own key, and with nothing of ours."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.hold.room import Bounds
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.models.model import Model, Overflow
from glm_gateway.proxy import plain as proxy_plain
from glm_gateway.routing.arms import Split
from glm_gateway.routing.retries import LEAST
from glm_gateway.upstreams.config import UpstreamConfig
from glm_gateway.upstreams.passes import MAX_PASSES
from glm_gateway.upstreams.upstream import Upstream
from integration.certificates import Certificate, a_certificate
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import DIE, FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, plain, said, serving

DEADLINE_S = 30.0
ASK: Any = [{"role": "user", "content": "hi"}]
JSON = b"content-type: application/json"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=b\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
END = b"0\r\n\r\n"
FROM_A_GROUP = [FRAMES_HEAD, opened(), said("near", 1), closed()]


def piece(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(text: str = "far") -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "far-1", "usage": USAGE}
    return plain(200, json.dumps({**body, "choices": [choice]}).encode(), JSON, b"set-cookie: a=b")


def event(**fields: Any) -> bytes:
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "far-1", **fields}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def words(*told: str) -> list[bytes]:
    return [piece(event(choices=[{"index": 0, "delta": {"content": word}}], usage=None)) for word in told]


LAST = [piece(event(choices=[], usage=USAGE)), piece(b"data: [DONE]\n\n"), END]


@dataclass
class World:
    gateway: Gateway
    group: ScriptedGroup
    far: ScriptedGroup
    certificate: Certificate
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI
    folder: Path

    @property
    def near(self) -> Model:
        return self.gateway.models["near"]

    def upstream(self, **fields: Any) -> Upstream:
        url = f"https://localhost:{self.far.port}/v1"
        known: dict[str, Any] = {"key_file": self.folder / "key", "ca_file": self.certificate.chain}
        found = Upstream(UpstreamConfig(name="far", url=url, model="far-1", **{**known, **fields}))
        self.gateway.names.upstreams = {"far": found}
        return found

    async def chat(self, model: str = "chat", path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
        headers = {"authorization": "Bearer glm-alice", "x-glm-role": "admin", "cookie": "a=b"}
        body = {"model": model, "messages": ASK, "priority": 1, **fields}
        return await self.http.post(path, json=body, headers=headers)

    def counted(self, model: str) -> float:
        """Return the tokens of the one answer that was counted."""
        return self.gateway.metering.means.of("alice", model).tokens


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A model of one group, and an upstream that the name `chat` goes to."""
    certificate = a_certificate(tmp_path)
    (tmp_path / "key").write_text("far-key\n")
    far, group = ScriptedGroup("far", [], tls=certificate.server()), ScriptedGroup("g0", [])
    keyring = Keyring({"alice": new_key("glm-alice", datetime.now(UTC), group=None, role=None, expires=None)})
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serving(group, far))
        url, gateway = await stack.enter_async_context(
            a_gateway("near", [member("g0", group.port)], gate=gate, metering=Metering())
        )
        gateway.names.splits = {"chat": Split(name="chat", weights={"far": 1.0})}
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key="glm-alice",
            max_retries=0,
            timeout=DEADLINE_S,
            http_client=httpx.AsyncClient(verify=NO_TLS),
        )
        found = World(gateway, group, far, certificate, http, client, tmp_path)
        found.upstream()
        yield found
        await client.close()
        for upstream in gateway.names.upstreams.values():
            upstream.close()
        found.near.router.book.check()
        assert found.near.router.book.num_charges == 0


async def test_a_whole_reply_comes_from_outside_and_is_counted(world: World) -> None:
    world.far.scripts = [[answer()]]
    response = await world.chat()
    assert response.json()["choices"][0]["message"]["content"] == "far"
    assert "set-cookie" not in response.headers
    (asked,) = world.far.asked
    assert asked.target == "/v1/chat/completions"
    assert json.loads(asked.body) == {"model": "far-1", "messages": ASK}
    assert asked.headers["authorization"] == "Bearer far-key"
    assert asked.headers["host"] == f"localhost:{world.far.port}"
    assert not {"cookie", "x-request-id"} & asked.headers.keys()
    assert not any(name.startswith("x-glm") for name in asked.headers)
    assert world.counted("far") == 5
    told = world.gateway.telemetry.exposition().decode()
    of_far = [line for line in told.splitlines() if line.startswith("glm_gateway_requests_total{") and '"far"' in line]
    assert [line[-4:] for line in of_far if 'api="openai"' in line and 'outcome="finished"' in line] == [" 1.0"]


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_a_stream_from_outside_tells_its_usage_to_who_asked_for_it(world: World, asks_usage: bool) -> None:
    world.far.scripts = [[STREAM, *words("one ", "two"), *LAST]]
    options: Any = {"stream_options": {"include_usage": True}} if asks_usage else {}
    chunks = [
        chunk
        async for chunk in await world.openai.chat.completions.create(
            model="chat", messages=ASK, stream=True, **options
        )
    ]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
    assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == [True] * asks_usage
    assert world.counted("far") == 5


@pytest.mark.parametrize("asks_usage", [False, True])
async def test_a_stream_that_is_silent_outside_is_kept_alive_between_its_events(
    world: World, asks_usage: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_plain, "IDLE_S", 0.01)
    begun, half = words("one ", "two")
    (data,) = [line for line in half.split(b"\r\n") if line.startswith(b"data")]
    world.far.scripts = [[STREAM, begun, piece(data[:20]), STALL]]
    options: Any = {"stream_options": {"include_usage": True}} if asks_usage else {}
    body = {"model": "chat", "messages": ASK, "stream": True, **options}
    told = b""
    async with world.http.stream(
        "POST", "/v1/chat/completions", json=body, headers={"authorization": "Bearer glm-alice"}
    ) as response:
        async for part in response.aiter_bytes():
            told += part
            if told.count(b": waiting\n\n") == 2:
                break
    assert told.replace(b": waiting\n\n", b"") == begun.split(b"\r\n", 1)[1].removesuffix(b"\r\n")


async def test_a_connection_outside_is_used_again_and_a_closed_one_is_tried_anew(world: World) -> None:
    world.far.scripts = [[answer("one")], [answer("two"), DIE], [answer("three")]]
    for text in ("one", "two", "three"):
        assert (await world.chat()).json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize("script", [[plain(401, b"{}", JSON)], [plain(503, b"{}", JSON)], [plain(302, b"")], [DIE]])
async def test_what_is_between_us_and_outside_is_not_the_clients_fault(world: World, script: Any) -> None:
    world.far.scripts = [script, script]
    with pytest.raises(openai.InternalServerError, match="the upstream far did not answer") as caught:
        await world.openai.chat.completions.create(model="chat", messages=ASK)
    assert caught.value.status_code == 502
    assert caught.value.response.headers["retry-after"] == "5"
    assert world.counted("far") == 0


async def test_an_upstream_that_is_gone_is_not_asked_twice_by_everybody(world: World) -> None:
    world.far.scripts = [[plain(503, b"{}", JSON)] for _ in range(40)]
    for _ in range(20):
        assert (await world.chat()).status_code == 502
    assert len(world.far.asked) == 20 + LEAST


async def test_what_the_client_did_wrong_is_told_as_it_was_said(world: World) -> None:
    world.far.scripts = [[plain(400, b'{"error": {"message": "no such field", "code": "bad"}}', JSON)]]
    with pytest.raises(openai.BadRequestError, match="no such field"):
        await world.openai.chat.completions.create(model="chat", messages=ASK)
    assert world.upstream().is_ready


async def test_a_stream_that_breaks_off_outside_ends_with_an_error(world: World) -> None:
    world.far.scripts = [[STREAM, *words("one "), DIE]]
    chunks = await world.openai.chat.completions.create(model="chat", messages=ASK, stream=True)
    assert (await anext(chunks)).choices[0].delta.content == "one "
    with pytest.raises(openai.APIError, match="the upstream far did not answer"):
        await anext(chunks)


@pytest.mark.parametrize("fault", ["nobody vouches", "another name", "no key"])
async def test_a_server_that_is_not_who_it_should_be_gets_nothing(world: World, fault: str, tmp_path: Path) -> None:
    match fault:
        case "nobody vouches":
            world.upstream(ca_file=None)
        case "another name":
            other = a_certificate(tmp_path, "other")
            assert world.far.tls is not None
            world.far.tls.load_cert_chain(other.chain, other.key)
            world.upstream(ca_file=other.chain)
        case "no key":
            world.upstream(key_file=tmp_path / "nothing")
    assert (await world.chat()).status_code == 502
    assert not world.far.asked


async def test_outside_not_all_paths_are_known(world: World) -> None:
    response = await world.chat(path="/v1/messages", max_tokens=5)
    assert response.status_code == 400
    assert response.json()["error"]["details"]["error_code"] == "not_supported_outside"
    with pytest.raises(openai.BadRequestError, match="there are /v1/chat/completions and /v1/completions"):
        await world.openai.responses.create(model="chat", input="hi")


async def test_of_two_arms_the_group_answers_what_outside_cannot_and_what_outside_fails(world: World) -> None:
    world.gateway.names.splits = {"chat": Split(name="chat", weights={"far": 1e6, "near": 1e-6})}
    world.far.scripts = [[answer()]]
    assert (await world.chat()).json()["choices"][0]["message"]["content"] == "far"
    world.group.scripts = [FROM_A_GROUP, FROM_A_GROUP]
    assert (await world.chat(path="/v1/responses", input="hi", stream=True)).text.startswith("data: near")
    upstream = world.gateway.names.upstreams["far"]
    for _ in range(3):
        upstream.fail("it is gone")
    assert (await world.chat(stream=True)).text.startswith("data: near")


async def test_who_waits_too_long_for_a_group_is_answered_outside(world: World) -> None:
    world.near.replace([])
    world.near.overflow = Overflow(world.upstream(), after_s=0.05)
    world.far.scripts = [[STREAM, *words("far"), *LAST]]
    chunks = [
        chunk.choices[0].delta.content
        async for chunk in await world.openai.chat.completions.create(model="near", messages=ASK, stream=True)
    ]
    assert chunks == ["far"]
    assert world.counted("near") == 5


async def test_who_is_not_answered_outside_goes_on_waiting_for_a_group(world: World) -> None:
    world.near.replace([])
    world.near.overflow = Overflow(world.upstream(), after_s=0.0)
    world.far.scripts = [[plain(500, b"")]]
    asked = asyncio.create_task(world.chat("near", stream=True))
    async with asyncio.timeout(DEADLINE_S):
        while not (world.far.asked and world.near.demand.num_held):  # noqa: ASYNC110 - nothing tells a test
            await asyncio.sleep(0.01)
    world.group.scripts = [FROM_A_GROUP]
    world.near.replace([member("g0", world.group.port)])
    assert "data: near" in (await asked).text
    assert len(world.far.asked) == 1


async def test_a_name_that_leads_back_to_its_gateway_ends_after_a_few_rounds(world: World) -> None:
    key = world.folder / "own-key"
    key.write_text("glm-alice")
    url = f"{world.http.base_url}/v1".replace("//v1", "/v1")
    back = Upstream(UpstreamConfig(name="far", url=url, model="chat", key_file=key))
    world.gateway.names.upstreams = {"far": back}
    response = await world.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (508, "loop_detected")
    assert back.is_ready
    told = world.gateway.telemetry.exposition().decode()
    assert f'glm_gateway_requests_total{{api="openai",model="far",outcome="failed"}} {MAX_PASSES + 1}.0' in told


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_what_has_gone_round_is_refused_in_the_words_of_its_api(world: World, path: str) -> None:
    world.http.headers["via"] = ", ".join(["1.1 glm-gateway"] * (MAX_PASSES + 1))
    response = await world.chat("near", path)
    assert response.status_code == 508
    error = response.json()["error"]
    assert "leads back" in error["message"]
    assert (error["type"], error.get("code", error.get("details"))) in (
        ("upstream_error", "loop_detected"),
        ("api_error", {"error_code": "loop_detected"}),
    )
    assert not world.group.asked


async def test_who_hangs_up_while_a_server_outside_has_the_request_has_used_the_prompt(world: World) -> None:
    metering = world.gateway.metering
    metering.quotas = QuotasConfig.model_validate({"default": {"monthlyBudget": {"tokens": 10_000}}})
    asking = asyncio.create_task(world.chat())
    async with asyncio.timeout(DEADLINE_S):
        while not world.far.asked:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        scopes = metering.quotas.scopes("alice", None, "far")
        while (counters := (await metering.store.counters(scopes))["key alice"]).num_running:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    num_bytes = len(json.dumps({"model": "chat", "messages": ASK, "priority": 1}, separators=(",", ":")))
    assert counters.spent == -(-num_bytes // 4)


STREAMED = {"model": "near", "messages": ASK, "stream": True}
ALICE = {"authorization": "Bearer glm-alice"}


async def test_a_stream_that_a_group_has_begun_goes_to_no_server_outside(world: World) -> None:
    world.near.overflow = Overflow(world.upstream(), after_s=0.0)
    is_late, got = asyncio.Event(), b""
    world.group.scripts = [
        [FRAMES_HEAD, opened(), said("near", 1), is_late, DIE],
        [FRAMES_HEAD, opened(), said("more", 2), closed()],
    ]
    async with world.http.stream("POST", "/v1/chat/completions", json=STREAMED, headers=ALICE) as response:
        async for data in response.aiter_raw():
            got += data
            if b"near" in got and not is_late.is_set():
                world.near.replace([])
                is_late.set()
            elif is_late.is_set():  # it is told that it waits
                world.near.replace([member("g0", world.group.port)])
    assert world.far.asked == []
    assert b"more" in got


async def test_a_stream_that_waited_once_waits_as_long_again_when_its_group_is_lost(world: World) -> None:
    hold_s, is_late, got = 0.5, asyncio.Event(), b""
    world.near.bound(Bounds(timeout_s=hold_s))
    world.near.replace([])
    world.group.scripts = [
        [FRAMES_HEAD, opened(), said("near", 1), is_late, DIE],
        [FRAMES_HEAD, opened(), said("more", 2), closed()],
    ]

    async def read() -> None:
        nonlocal got
        async with world.http.stream("POST", "/v1/chat/completions", json=STREAMED, headers=ALICE) as response:
            async for data in response.aiter_raw():
                got += data

    async def until(is_so: Callable[[], bool]) -> None:
        deadline_s = loop.time() + DEADLINE_S
        while not is_so():
            assert loop.time() < deadline_s and not reader.done(), got  # noqa: PT018
            await asyncio.sleep(0.01)

    loop = asyncio.get_running_loop()
    reader, began_s = asyncio.create_task(read()), loop.time()
    await until(lambda: len(world.near.room) == 1)
    world.near.replace([member("g0", world.group.port)])
    await until(lambda: b"near" in got and loop.time() > began_s + 2 * hold_s)
    world.near.replace([])
    is_late.set()
    await until(lambda: len(world.near.room) == 1)
    world.near.replace([member("g0", world.group.port)])
    await asyncio.wait_for(reader, DEADLINE_S)
    assert b"more" in got
