"""What is written down of requests, in traces and in the audit log: to whom it is told, and that no text is in it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.audit.config import AuditConfig
from glm_gateway.audit.log import AuditLog
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.reserve import Reservation
from glm_gateway.limits.store import StoreGone
from glm_gateway.traces.config import TraceConfig
from glm_gateway.traces.traces import Traces
from integration.free_ports import free_port
from integration.gateway_world import TOKEN, a_gateway, member
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, a_server, token_ids

CANARY = "xylophone-of-the-canary"
ALICE, BOB = {"authorization": "Bearer glm-alice"}, {"x-api-key": "glm-bob"}


@dataclass
class World:
    engine: ScriptedEngine
    http: httpx.AsyncClient
    audit: AuditLog
    file: Path

    async def answer(self, headers: dict[str, str], **fields: Any) -> httpx.Response:
        """Ask as somebody, and let the engine write."""
        body = {"model": MODEL, "prompt": CANARY, **fields}
        asked = asyncio.create_task(self.http.post("/v1/completions", json=body, headers=headers))
        await self.engine.say(await self.engine.next_request(), f" {CANARY}", end="<|user|>")
        return await asked

    async def trace(self, request_id: str, headers: dict[str, str]) -> httpx.Response:
        return await self.http.get(f"/v1/traces/{request_id}", headers=headers)

    async def over(self, request_id: str, headers: dict[str, str]) -> dict[str, Any]:
        """Return a trace when its request has ended, which is a moment after its client has the reply."""
        async with asyncio.timeout(DEADLINE_S):
            while not (told := (await self.trace(request_id, headers)).json())["is_over"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return dict(told)

    async def lines(self, number: int) -> list[dict[str, Any]]:
        """Return the lines of the audit log when there are as many; there must not be more."""
        async with asyncio.timeout(DEADLINE_S):
            while self.file.read_text().count("\n") < number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        self.audit.close()
        assert CANARY not in self.file.read_text()
        assert "glm-alice" not in self.file.read_text()
        return [json.loads(line) for line in self.file.read_text().splitlines()]


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(a_server(tmp_path, gateway_token=TOKEN, group="chat-g0"))
        engine = await server.serve()
        now = datetime.now(UTC)
        keyring = Keyring(
            {name: new_key(f"glm-{name}", now, group=None, role=None, expires=None) for name in ("alice", "bob")}
        )
        audit = AuditLog.opened(AuditConfig(file=tmp_path / "audit.jsonl", requests=True))
        stack.callback(audit.close)
        quotas = QuotasConfig.model_validate({"keys": {"bob": {"requestsPerMinute": 0}}})
        url, _ = await stack.enter_async_context(
            a_gateway(
                MODEL,
                [member("chat-g0", server.port)],
                gate=Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring),
                metering=Metering(quotas=quotas),
                audit=audit,
                traces=Traces(TraceConfig(enabled=True)),
            )
        )
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS))
        yield World(engine, http, audit, tmp_path / "audit.jsonl")


async def test_a_trace_tells_its_owner_the_way_of_a_request(world: World) -> None:
    reply = await world.answer(ALICE)
    told = await world.over(reply.headers["x-request-id"], ALICE)
    assert [event["what"] for event in told["events"]] == [
        "arrived",
        "reserved",
        "chosen",
        "taken",
        "first_token",
        "ended",
    ]
    chosen, ended = told["events"][2], told["events"][-1]
    assert (chosen["group"], chosen["why"]) == ("chat-g0", "only")
    assert (ended["status"], ended["outcome"], ended["continuations"]) == (200, "finished", 0)
    usage = reply.json()["usage"]
    assert (ended["tokens"]["prompt"], ended["tokens"]["answer"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    moments = [event["at_s"] for event in told["events"]]
    assert moments == sorted(moments)
    assert CANARY not in json.dumps(told)


async def test_a_trace_is_unknown_to_every_other_key_as_is_one_that_never_was(world: World) -> None:
    reply = await world.answer(ALICE | {"x-request-id": "a/b?c"})
    assert reply.headers["x-request-id"] == "a/b?c"
    assert (await world.trace("a%2Fb%3Fc", ALICE)).status_code == 200
    others = await world.trace("a%2Fb%3Fc", BOB)
    never = await world.trace("never", BOB)
    assert (others.status_code, never.status_code) == (404, 404)
    assert others.json()["error"]["code"] == never.json()["error"]["code"]
    assert (await world.http.get("/v1/traces/a%2Fb%3Fc")).status_code == 401


async def test_a_request_that_was_refused_or_left_has_a_trace_as_well(world: World) -> None:
    refused = await world.http.post("/v1/completions", json={"model": MODEL, "prompt": CANARY}, headers=BOB)
    assert refused.status_code == 429
    told = await world.over(refused.headers["x-request-id"], BOB)
    assert [event["what"] for event in told["events"]] == ["arrived", "ended"]
    assert told["events"][-1]["status"] == 429
    body = {"model": MODEL, "prompt": CANARY, "stream": True}
    headers = ALICE | {"x-request-id": "left"}
    async with world.http.stream("POST", "/v1/completions", json=body, headers=headers) as response:
        request = await world.engine.next_request()
        await world.engine.say(request, " 4")
        await anext(response.aiter_raw())
        assert (await world.trace("left", ALICE)).json()["is_over"] is False
    told = await world.over("left", ALICE)
    assert told["events"][-1]["outcome"] == "cancelled"
    assert told["events"][-1]["tokens"]["answer"] == len(token_ids(" 4"))


async def test_requests_are_lines_of_the_audit_log_with_names_and_numbers(world: World) -> None:
    reply = await world.answer(ALICE)
    await world.http.post("/v1/completions", json={"model": MODEL, "prompt": CANARY}, headers=BOB)
    await world.http.post("/v1/completions", json={"model": CANARY, "prompt": CANARY}, headers=ALICE)
    await world.http.post("/v1/completions", json={"model": MODEL}, headers={"x-api-key": "glm-nobody"})
    await world.http.get("/v1/models", headers=ALICE)
    lines = await world.lines(4)
    assert [(line["key"], line["status"], line["outcome"], line["model"]) for line in lines] == [
        ("alice", 200, "finished", MODEL),
        ("bob", 429, "refused", MODEL),
        ("alice", 404, "refused", None),
        (None, 401, "refused", None),
    ]
    first, usage = lines[0], reply.json()["usage"]
    assert (first["event"], first["path"], first["group"]) == ("request", "/v1/completions", "chat-g0")
    assert first["request_id"] == reply.headers["x-request-id"]
    assert (first["prompt_tokens"], first["answer_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert 0 < first["seconds"] < DEADLINE_S


async def test_the_mode_of_thinking_is_told_as_it_was_asked_and_as_it_was_done(world: World) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "thinking": {"type": "disabled"}}
    asked = asyncio.create_task(world.http.post("/v1/chat/completions", json=body, headers=ALICE))
    await world.engine.say(await world.engine.next_request(), CANARY, end="<|user|>")
    await asked
    (line,) = await world.lines(1)
    assert (line["mode"], line["thinking"].partition(";")[0]) == ("disabled", "disabled")


async def test_a_group_that_is_not_there_is_in_the_trace_without_its_address(world: World, tmp_path: Path) -> None:
    traces = Traces(TraceConfig(enabled=True))
    nowhere = member("chat-g9", free_port())
    async with a_gateway(MODEL, [nowhere], traces=traces) as (url, _), httpx.AsyncClient(verify=NO_TLS) as http:
        reply = await http.post(f"{url}/v1/completions", json={"model": MODEL, "prompt": "1"}, timeout=DEADLINE_S)
        told = (await http.get(f"{url}/v1/traces/{reply.headers['x-request-id']}")).json()
    lost = [event for event in told["events"] if event["what"] == "lost"]
    assert lost[0]["group"] == "chat-g9"
    assert lost[0]["reason"] == "no connection"
    assert "127.0.0.1" not in json.dumps(told)
    assert str(nowhere.port) not in json.dumps(told)


class Gone:
    """A store that is gone, and whose deployment says Closed."""

    async def reserve(self, *_: object) -> Any:
        raise StoreGone("it does not answer")

    async def counters(self, *_: object) -> Any:
        raise StoreGone("it does not answer")

    async def settle(self, reservation: Reservation, *_: object) -> Any:
        raise AssertionError("nothing was reserved")

    release = settle


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/messages"])
async def test_requests_are_told_to_come_again_while_limits_cannot_be_counted(path: str) -> None:
    async with (
        a_gateway(MODEL, [], metering=Metering(store=Gone())) as (url, _),
        httpx.AsyncClient(verify=NO_TLS) as http,
    ):
        reply = await http.post(f"{url}{path}", json={"model": MODEL, "prompt": "1"}, timeout=DEADLINE_S)
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert "limits cannot be counted now" in reply.json()["error"]["message"]


async def test_without_traces_nobody_has_one(world: World) -> None:
    async with a_gateway(MODEL, []) as (url, _), httpx.AsyncClient(verify=NO_TLS) as http:
        told = await http.get(f"{url}/v1/traces/r1", timeout=DEADLINE_S)
    assert told.status_code == 404
    assert "trace.enabled" in told.json()["error"]["message"]
