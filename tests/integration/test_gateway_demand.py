"""The stream of demand over a real socket: what the operator lifts a deployment from zero by."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from integration.gateway_process import GatewayProcess, a_gateway_process, write_groups
from integration.server_world import DEADLINE_S

SOON_S = 1.0
"""Far less than the two seconds after which a line comes anyway, and far more than a machine under load takes."""

ASK = {"model": "chat", "prompt": "1"}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def demand(gateway: GatewayProcess) -> AsyncIterator[AsyncIterator[str]]:
    async with gateway.http.stream("GET", f"{gateway.management}/demand?stream=1") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        yield answer.aiter_lines()


async def next_of(lines: AsyncIterator[str], seconds: float) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        told: dict[str, Any] = json.loads(await anext(lines))["models"]["chat"]
    return told


async def test_a_request_that_waits_is_told_at_once_and_its_end_as_well(gateway: GatewayProcess) -> None:
    async with demand(gateway) as lines:
        assert (await next_of(lines, DEADLINE_S))["idle_s"] is None
        asking = asyncio.create_task(gateway.http.post(f"{gateway.url}/v1/completions", json=ASK))
        told = await next_of(lines, SOON_S)
        assert (told["held"], told["idle_s"]) == (1, 0.0)
        asking.cancel()
        told = await next_of(lines, SOON_S)
        assert (told["held"], told["oldest_s"]) == (0, 0.0)
        assert told["idle_s"] < SOON_S


async def test_a_line_comes_every_two_seconds_where_nothing_happens(gateway: GatewayProcess) -> None:
    async with demand(gateway) as lines:
        for _ in range(3):
            assert (await next_of(lines, 2.0 + SOON_S))["held"] == 0


async def test_who_stops_reading_is_no_listener_any_more(gateway: GatewayProcess) -> None:
    for _ in range(40):  # far more than may listen at once
        async with demand(gateway) as lines:
            await next_of(lines, DEADLINE_S)
