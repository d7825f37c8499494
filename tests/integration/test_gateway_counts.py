"""What costs a group work takes of the limits of who asks: requests that count tokens, and who hangs up early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from glm_gateway.access.decide import Mode
from glm_gateway.access.keys import Keyring, new_key
from glm_gateway.admission.gate import Gate
from glm_gateway.admission.metering import Metering
from glm_gateway.app import Gateway
from glm_gateway.exchange.destination import Destination
from glm_gateway.limits.config import QuotasConfig
from glm_gateway.limits.counters import Counters
from integration.gateway_world import a_gateway, member
from integration.no_tls import NO_TLS
from integration.scripted_groups import DIE, FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, plain, said, serving
from integration.server_world import DEADLINE_S, MODEL

NOW = datetime(2026, 11, 15, 12, tzinfo=UTC)
COUNTED = plain(200, b'{"count": 3}', b"content-type: application/json")
BUSY = plain(503, b"{}", b"retry-after: 1")
COUNTS: dict[str, dict[str, Any]] = {
    "/tokenize": {"model": MODEL, "prompt": "1 2 3"},
    "/detokenize": {"model": MODEL, "tokens": [1, 2]},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
}
ASK = {"model": MODEL, "prompt": "x" * 400, "max_tokens": 50}


@dataclass
class World:
    gateway: Gateway
    http: httpx.AsyncClient
    group: ScriptedGroup
    used: list[Any] = field(default_factory=list)

    async def counters(self) -> Counters:
        metering = self.gateway.metering
        scopes = metering.quotas.scopes("alice", None, MODEL)
        return (await metering.store.counters(scopes))["key alice"]

    async def leave(self, asking: "asyncio.Task[httpx.Response]") -> None:
        """Have a client hang up, and wait until its request is over."""
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(DEADLINE_S):
            while (await self.counters()).num_running:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)

    async def until_asked(self, number: int = 1) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.group.asked) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def world(*scripts: Any, **limits: Any) -> AsyncIterator[World]:
    group = ScriptedGroup("g0", list(scripts))
    keyring = Keyring({"alice": new_key("glm-alice", NOW, group=None, role=None, expires=None)})
    metering = Metering(quotas=QuotasConfig.model_validate({"default": limits}), clock=NOW.timestamp)
    gate = Gate(mode=Mode.KEYS, tenant_secret=b"0" * 16, keyring=lambda: keyring)
    async with (
        serving(group),
        a_gateway(MODEL, [member("g0", group.port)], gate=gate, metering=metering) as (url, gateway),
        httpx.AsyncClient(
            base_url=url, timeout=DEADLINE_S, verify=NO_TLS, headers={"authorization": "Bearer glm-alice"}
        ) as http,
    ):
        yield World(gateway, http, group)


@pytest.mark.parametrize("path", COUNTS)
async def test_who_has_tokens_counted_takes_a_request_a_minute_and_no_tokens(path: str) -> None:
    limits = {"requestsPerMinute": 2, "promptTokensPerMinute": 1, "monthlyBudget": {"tokens": 1}, "contextTokens": 1}
    async with world([COUNTED], [COUNTED], [COUNTED], **limits) as found:
        replies = [await found.http.post(path, json=COUNTS[path]) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert len(found.group.asked) == 2
        assert replies[2].headers["retry-after"] == "30"
        is_anthropic = path.startswith("/v1/messages")
        name = "anthropic-ratelimit-requests-remaining" if is_anthropic else "x-ratelimit-remaining-requests"
        assert [reply.headers[name] for reply in replies] == ["1", "0", "0"]
        assert replies[2].json()["error"]["type"] == ("rate_limit_error" if is_anthropic else "requests")
        counters = await found.counters()
        assert (counters.num_running, counters.spent) == (0, 0)


async def test_who_has_tokens_counted_runs_a_request() -> None:
    async with world([STALL], [COUNTED], concurrency=1) as found:
        first = asyncio.create_task(found.http.post("/tokenize", json=COUNTS["/tokenize"]))
        await found.until_asked()
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code == 429
        await found.leave(first)
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code == 200


async def test_a_count_that_no_group_took_is_no_request() -> None:
    async with world([COUNTED], requestsPerMinute=1) as found:
        found.gateway.models[MODEL].replace([])
        waiting = asyncio.create_task(found.http.post("/tokenize", json=COUNTS["/tokenize"]))
        async with asyncio.timeout(DEADLINE_S):
            while not found.gateway.models[MODEL].demand.num_held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await found.leave(waiting)
        found.gateway.models[MODEL].replace([member("g0", found.group.port)])
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code == 200


@pytest.mark.parametrize("reply", [BUSY, plain(400, b"{}"), plain(500, b"{}")], ids=["busy", "refused", "broken"])
async def test_a_count_that_a_group_did_not_do_is_no_request(reply: bytes) -> None:
    async with world([reply], [COUNTED], requestsPerMinute=1) as found:
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code >= 400
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code == 200


async def test_a_key_whose_budget_is_spent_may_have_tokens_counted() -> None:
    async with world(
        [FRAMES_HEAD, opened(), said("one", 1), closed()], [COUNTED], monthlyBudget={"tokens": 1000}
    ) as found:
        assert (await found.http.post("/v1/completions", json=ASK)).status_code == 200
        found.gateway.metering.quotas = QuotasConfig.model_validate({"default": {"monthlyBudget": {"tokens": 1}}})
        assert (await found.http.post("/v1/completions", json=ASK)).json()["error"]["code"] == "insufficient_quota"
        assert (await found.http.post("/tokenize", json=COUNTS["/tokenize"])).status_code == 200


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
async def test_a_mistake_of_the_gateway_keeps_nothing_that_was_reserved(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def wrong(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    limits = {"concurrency": 1, "requestsPerMinute": 1, "monthlyBudget": {"tokens": 1000}}
    async with world([COUNTED], **limits) as found:
        with monkeypatch.context() as patched:
            patched.setattr(Destination, "placing", wrong)
            assert [(await found.http.post(path, json=ASK)).status_code for _ in range(2)] == [500, 500]
        assert (await found.http.post(path, json=ASK)).status_code == 200


@pytest.mark.parametrize("streams", [True, False])
async def test_who_hangs_up_while_a_group_computes_its_prompt_has_used_that(streams: bool) -> None:
    async with world([STALL], monthlyBudget={"tokens": 10_000}) as found:
        asking = asyncio.create_task(found.http.post("/v1/completions", json={**ASK, "stream": streams}))
        await found.until_asked()
        num_bytes = len(found.group.asked[0].body)
        await found.leave(asking)
        assert (await found.counters()).spent == -(-num_bytes // 4)


async def test_who_hangs_up_while_no_group_has_its_request_has_used_nothing() -> None:
    async with world([DIE], [BUSY], monthlyBudget={"tokens": 10_000}) as found:
        model = found.gateway.models[MODEL]
        asking = asyncio.create_task(found.http.post("/v1/completions", json=ASK))
        await found.until_asked()
        model.replace([])
        await found.leave(asking)
        assert (await found.counters()).spent == 0
        waiting = asyncio.create_task(found.http.post("/v1/completions", json=ASK))
        async with asyncio.timeout(DEADLINE_S):
            while not model.demand.num_held:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await found.leave(waiting)
        assert (await found.counters()).spent == 0


async def test_a_request_that_is_whole_only_after_the_cut_of_a_drain_is_told_so_and_reaches_no_group() -> None:
    async with world([COUNTED], concurrency=1, monthlyBudget={"tokens": 1000}) as found:
        found.gateway.cut()
        for path in ("/v1/completions", "/tokenize"):
            reply = await found.http.post(path, json=ASK)
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "gateway_stopped")
        counters = await found.counters()
        assert (found.group.asked, counters.num_running, counters.spent) == ([], 0, 0)
