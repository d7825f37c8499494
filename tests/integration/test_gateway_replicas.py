"""Replicas of a gateway as processes: they share limits by a real store, and say what happened to them."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from glm_gateway.access.keys import item_of, new_key
from integration.free_ports import free_port
from integration.gateway_process import GatewayProcess, a_gateway_process, model_of, write_groups
from integration.scripted_groups import FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S
from integration.valkey_world import Valkey

WHOLE = [FRAMES_HEAD, opened(), said("one", 1), closed()]
STALLS = [FRAMES_HEAD, opened(), said("one", 1), STALL]
ASK = {"model": "chat", "prompt": "1", "stream": True}


@pytest.fixture
def store() -> Iterator[tuple[Valkey, str]]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="v") as folder:
        server = Valkey(Path(folder), ("--port", str(port), "--appendonly", "yes", "--appendfsync", "always"))
        server.begin()
        yield server, f"redis://127.0.0.1:{port}/0"
        server.end()


@contextlib.asynccontextmanager
async def replicas(
    folder: Path, *, with_one_claim: bool = False, **config: Any
) -> AsyncIterator[tuple[GatewayProcess, GatewayProcess]]:
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            models = [model_of("chat", folder / "groups.json")]
            usage = {"folder": str((folder if with_one_claim else folder / name) / "usage")}
            found.append(
                await stack.enter_async_context(a_gateway_process(folder / name, models=models, usage=usage, **config))
            )
        yield found[0], found[1]


async def ask(gateway: GatewayProcess) -> httpx.Response:
    return await gateway.http.post(f"{gateway.url}/v1/completions", json=ASK)


async def test_replicas_share_a_limit_and_go_on_without_their_store(tmp_path: Path, store: tuple[Valkey, str]) -> None:
    server, url = store
    await server.until_ready()
    group = ScriptedGroup("g0", [STALLS, STALLS, WHOLE, WHOLE])
    write_groups(tmp_path / "groups.json", {"g0": group.port})
    quotas = {"default": {"concurrency": 2}}
    async with serving(group), replicas(tmp_path, store={"url": url}, quotas=quotas) as (one, two):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        async with contextlib.AsyncExitStack() as streams:
            for gateway in (one, two):
                await gateway.until("/metrics", "glm_gateway_store_is_up 1.0")
                reply = await streams.enter_async_context(
                    gateway.http.stream("POST", f"{gateway.url}/v1/completions", json=ASK)
                )
                assert reply.status_code == 200
            assert [(await ask(gateway)).status_code for gateway in (one, two)] == [429, 429]
            server.end()
            assert (await ask(one)).status_code == 200
            metrics = await one.page("/metrics")
            assert "glm_gateway_store_is_up 0.0" in metrics
            assert "glm_gateway_requests_counted_here_total 1.0" in metrics
            server.begin()
            for gateway in (one, two):
                await gateway.until("/metrics", "glm_gateway_store_is_up 1.0")
            assert (await ask(one)).status_code == 429, "both streams go on, and are known to"
        async with asyncio.timeout(DEADLINE_S):
            while (await ask(two)).status_code != 200:  # noqa: ASYNC110 - nothing tells of the end of a stream
                await asyncio.sleep(0.02)


async def test_closed_replicas_answer_503_while_their_store_is_gone(tmp_path: Path, store: tuple[Valkey, str]) -> None:
    server, url = store
    await server.until_ready()
    async with a_gateway_process(tmp_path, store={"url": url, "onFailure": "Closed"}) as gateway:
        server.end()
        reply = await ask(gateway)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert gateway.log.count("is gone") == 1
        assert (await gateway.http.get(f"{gateway.url}/v1/models")).status_code == 200


async def usage_of(gateway: GatewayProcess, key: str) -> dict[str, Any]:
    reply = await gateway.http.get(f"{gateway.url}/v1/usage", headers={"authorization": f"Bearer {key}"})
    told: dict[str, Any] = reply.json()
    return told


async def until_used(gateway: GatewayProcess, num_requests: int, key: str) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE_S):
        while (told := await usage_of(gateway, key))["total"]["requests"] != num_requests:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return told


async def test_replicas_with_one_claim_tell_one_usage_and_bring_back_all_of_it_to_a_store_that_lost_it(
    tmp_path: Path, store: tuple[Valkey, str]
) -> None:
    server, url = store
    await server.until_ready()
    (tmp_path / "keys").mkdir()
    key = new_key("glm-alice", datetime.now(UTC), group=None, role=None, expires=None)
    (tmp_path / "keys" / "alice").write_bytes(item_of(key))
    group = ScriptedGroup("g0", [WHOLE] * 4)
    config: dict[str, Any] = {
        "store": {"url": url},
        "auth": {"mode": "Keys", "keysFolder": str(tmp_path / "keys")},
        "quotas": {"keys": {"alice": {"monthlyBudget": {"tokens": 10_000}}}},
    }
    headers = {"authorization": "Bearer glm-alice"}

    async def answered(gateway: GatewayProcess) -> httpx.Response:
        return await gateway.http.post(f"{gateway.url}/v1/completions", json=ASK, headers=headers)

    async with serving(group), replicas(tmp_path, with_one_claim=True, **config) as (one, two):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        for gateway in (one, two, two):
            assert (await answered(gateway)).status_code == 200
        told = [await until_used(gateway, 3, "glm-alice") for gateway in (one, two)]
        assert told[0] == told[1]
        assert told[0]["total"]["prompt_tokens"] == 9
        client = server.client()
        await client.flushall()
        assert (await answered(one)).status_code == 200
        await until_used(two, 4, "glm-alice")
        (name,) = await client.keys("glm:spent:*")
        spent = await client.hget(name, "tokens_low")
        await client.aclose()
        assert int(spent) == 4 * 5, "three requests of before, and this one"


async def lines_of(file: Path, is_there: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [json.loads(line) for line in file.read_text().splitlines()]  # noqa: ASYNC240 - a test's own
            if is_there(found):
                return found
            await asyncio.sleep(0.02)


async def test_what_becomes_of_a_gateway_its_keys_and_its_file_is_in_the_audit_log(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    alice = new_key("glm-alice", datetime.now(UTC), group=None, role=None, expires=None)
    (tmp_path / "keys" / "alice").write_bytes(item_of(alice))
    file = tmp_path / "audit.jsonl"
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), STALL]])
    auth = {"mode": "Keys", "keysFolder": str(tmp_path / "keys")}
    async with (
        serving(group),
        a_gateway_process(tmp_path, auth=auth, audit={"file": str(file)}, drainSeconds=0.2) as gateway,
    ):
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        (tmp_path / "keys" / "bob").write_bytes(
            item_of(alice.model_copy(update={"group": "g"})).replace(b'"g"', b'"h"')
        )
        await lines_of(file, lambda found: len(found) >= 3)
        gateway.write(hold={"maxHeld": 7})
        await lines_of(file, lambda found: any(line["event"] == "config_reloaded" for line in found))
        gateway.write_text("no file of a gateway")
        await lines_of(file, lambda found: any(line["event"] == "config_fault" for line in found))
        gateway.tell()
        assert await gateway.ended() == 0
    found = await lines_of(file, lambda found: found[-1]["event"] == "gateway_stopped")
    events = [line["event"] for line in found]
    assert events == [
        "keys_reloaded",
        "gateway_started",
        "keys_reloaded",
        "config_reloaded",
        "config_fault",
        "gateway_draining",
        "gateway_stopped",
    ]
    first, started, second, reloaded, fault, draining, stopped = found
    assert (first["added"], first["num_added"]) == (["alice"], 1)
    assert (second["added"], second["removed"], second["num_mistakes"]) == ([], ["alice"], 1)
    assert len(started["digest"]) == len(reloaded["digest"]) == 64
    assert started["digest"] != reloaded["digest"]
    assert fault["fault"]
    assert (draining["running"], stopped["cut"]) == (0, 0)
    text = file.read_text()
    assert alice.hashes[0].sha256 not in text
    assert "glm-alice" not in text
