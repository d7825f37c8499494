"""A gateway that is killed in the middle of replies: what they had used is counted, once, by whoever comes next."""

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from glm_gateway.access.keys import item_of, new_key
from glm_gateway.usage.entry import entry_in
from integration.gateway_process import GatewayProcess, a_gateway_process, model_of, write_groups
from integration.scripted_groups import FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S, free_port
from integration.valkey_world import Valkey

WHOLE = [FRAMES_HEAD, opened(), said("one", 1), said("two", 2), closed()]
STALLS = [FRAMES_HEAD, opened(), said("one", 1, 2, 3, 4), said("two", 5), STALL]
ASK = {"model": "chat", "prompt": "1", "stream": True, "max_tokens": 50}
HEADERS = {"Authorization": "Bearer glm-alice"}

PROMPT, CACHED, DONE_ANSWER, CUT_ANSWER = 3, 1, 2, 5
"""Tokens of each prompt, of a reply that has ended, of one that has not."""


@contextlib.asynccontextmanager
async def a_gateway(folder: Path, name: str, **config: Any) -> AsyncIterator[GatewayProcess]:
    """Run a gateway with the one folder of usage that all of a test have."""
    (folder / name).mkdir()
    (folder / "keys").mkdir(exist_ok=True)
    key = new_key("glm-alice", datetime.now(UTC), group="research", role=None, expires=None)
    (folder / "keys" / "alice").write_bytes(item_of(key))
    fields = {
        "auth": {"mode": "Keys", "keysFolder": str(folder / "keys")},
        "models": [model_of("chat", folder / "groups.json")],
        "usage": {"folder": str(folder / "usage")},
        **config,
    }
    async with a_gateway_process(folder / name, **fields) as gateway:
        yield gateway


async def used(gateway: GatewayProcess) -> tuple[int, int, int, int]:
    """Return the key's requests, and tokens of prompts and answers, and how many have failed."""
    told = (await gateway.http.get(f"{gateway.url}/v1/usage", headers=HEADERS)).json()["total"]
    return told["requests"], told["prompt_tokens"], told["answer_tokens"] + told["thinking_tokens"], told["failed"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.05)


def under_way(folder: Path) -> int:
    """Return how many tokens of answers are on disk of requests that have not ended."""
    lines = b"".join(path.read_bytes() for path in (folder / "usage").glob("under-way-*.jsonl"))
    return sum(entry.answer + entry.thinking for line in lines.splitlines(keepends=True) if (entry := entry_in(line)))


@contextlib.asynccontextmanager
async def killed(folder: Path, gateway: GatewayProcess) -> AsyncIterator[None]:
    """Kill a gateway that has ended one reply, and is in the middle of another one whose tokens are known."""
    whole = await gateway.http.post(f"{gateway.url}/v1/completions", json=ASK, headers=HEADERS)
    assert whole.text.endswith("[DONE]\n\n")
    url = f"{gateway.url}/v1/completions"
    async with gateway.http.stream("POST", url, json=ASK, headers=HEADERS) as reply:
        events = reply.aiter_lines()
        while "two" not in await anext(events):
            pass
        await until(lambda: under_way(folder) == CUT_ANSWER)
        gateway.tell(signal.SIGKILL)
        await gateway.ended()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(line async for line in events if "[DONE]" in line)
    yield


async def test_what_a_killed_gateway_had_under_way_counts_once_in_the_next_one(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [WHOLE, STALLS])
    write_groups(tmp_path / "groups.json", {})
    async with serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first") as first, killed(tmp_path, first):
            pass
        expected = 2, 2 * PROMPT, DONE_ANSWER + CUT_ANSWER, 1
        for name in ("second", "third"):
            async with a_gateway(tmp_path, name) as gateway:
                assert await used(gateway) == expected
                assert under_way(tmp_path) == 0
                gateway.tell(signal.SIGKILL)
                await gateway.ended()


async def test_a_replica_with_the_same_volume_takes_over_what_a_killed_one_had_under_way(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [WHOLE, STALLS])
    async with serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first") as first, a_gateway(tmp_path, "second") as second:
            async with killed(tmp_path, first):
                await second.until_log("a gateway has died")
            async with asyncio.timeout(DEADLINE_S):
                while await used(second) != (2, 2 * PROMPT, DONE_ANSWER + CUT_ANSWER, 1):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)


@pytest.mark.parametrize("left", [0, 1])
async def test_a_budget_counts_what_a_killed_gateway_had_under_way(tmp_path: Path, left: int) -> None:
    group = ScriptedGroup("g0", [WHOLE, STALLS, WHOLE])
    spent = 2 * PROMPT + DONE_ANSWER + CUT_ANSWER
    async with serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first") as first, killed(tmp_path, first):
            pass
        asked = {"model": "chat", "prompt": "1", "max_tokens": 1}
        least = -(-len(httpx.Request("POST", "http://x", json=asked).content) // 4) + 1
        quotas = {"groups": {"research": {"monthlyBudget": {"tokens": spent + least - 1 + left}}}}
        async with a_gateway(tmp_path, "second", quotas=quotas) as second:
            reply = await second.http.post(f"{second.url}/v1/completions", json=asked, headers=HEADERS)
            assert reply.status_code == (200 if left else 429)


@contextlib.asynccontextmanager
async def a_store() -> AsyncIterator[tuple[dict[str, Any], Callable[[], Awaitable[int]]]]:
    """Run one; yield what a gateway's file says of it, and what tells the tokens spent of the budget there."""
    port = free_port()
    config: dict[str, Any] = {
        "store": {"url": f"redis://127.0.0.1:{port}/0"},
        "quotas": {"groups": {"research": {"monthlyBudget": {"tokens": 10_000}}}},
    }
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        server = Valkey(Path(folder), ("--port", str(port)))
        server.begin()
        try:
            await server.until_ready()
            client = server.client()

            async def spent() -> int:
                (name,) = await client.keys("glm:spent:*group research")
                return int(await client.hget(name, "tokens_low"))

            yield config, spent
            await client.aclose()
        finally:
            server.end()


async def test_a_store_is_told_what_a_killed_gateway_could_not_settle(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [WHOLE, STALLS])
    async with a_store() as (config, spent), serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first", **config) as first, killed(tmp_path, first):
            pass
        assert await spent() > 2 * PROMPT + DONE_ANSWER + CUT_ANSWER, "with what the dead one had reserved"
        for name in ("second", "third"):
            async with a_gateway(tmp_path, name, **config) as gateway:
                await gateway.until("/metrics", "glm_gateway_store_is_up 1.0")
                async with asyncio.timeout(DEADLINE_S):
                    while await spent() != 2 * PROMPT + DONE_ANSWER + CUT_ANSWER:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)


async def test_a_store_that_was_told_what_a_request_used_is_not_told_again(tmp_path: Path) -> None:
    """Its end is in the store, and in no file yet, when its gateway dies."""
    ends = asyncio.Event()
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1, 2, 3, 4), said("two", 5), ends, closed()]])
    async with a_store() as (config, spent), serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first", **config) as first:
            url = f"{first.url}/v1/completions"
            async with first.http.stream("POST", url, json=ASK, headers=HEADERS) as reply:
                await until(lambda: under_way(tmp_path) == CUT_ANSWER)
                ends.set()
                await reply.aread()
            first.tell(signal.SIGKILL)
            await first.ended()
        before = await spent()
        assert before == PROMPT + DONE_ANSWER
        async with a_gateway(tmp_path, "second", **config) as gateway:
            assert (await used(gateway))[:2] == (1, PROMPT)
            gateway.tell()
            assert await gateway.ended() == 0
        assert await spent() == before


async def test_a_gateway_that_ends_well_leaves_nothing_under_way(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [STALLS])
    async with serving(group):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with a_gateway(tmp_path, "first", drainSeconds=0.1) as gateway:
            url = f"{gateway.url}/v1/completions"
            async with gateway.http.stream("POST", url, json=ASK, headers=HEADERS) as reply:
                await until(lambda: under_way(tmp_path) == CUT_ANSWER)
                gateway.tell()
                await reply.aread()
                assert await gateway.ended() == 0
        assert list((tmp_path / "usage").glob("under-way-*")) == []
        async with a_gateway(tmp_path, "second") as second:
            assert (await used(second))[:3] == (1, PROMPT, CUT_ANSWER)
