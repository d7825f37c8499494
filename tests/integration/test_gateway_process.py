"""`glm-gateway` as a process before a real server: it finds its groups in a file, answers, tells, and drains."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from glm_gateway.access.keys import item_of, new_key
from integration.gateway_process import TOKEN, GatewayProcess, a_gateway_process, model_of, write_groups
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server

KEY = "glm-alice"


@dataclass
class World:
    gateway: GatewayProcess
    server: ServerWorld
    engine: ScriptedEngine
    openai: openai.AsyncOpenAI

    @property
    def folder(self) -> Path:
        return self.gateway.folder

    def find_server(self) -> None:
        """Let the gateway find the server in its file of groups."""
        write_groups(self.folder / "groups.json", {"chat-g0": self.server.port})


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    (tmp_path / "keys").mkdir()
    key = new_key(KEY, datetime.now(UTC), group=None, role=None, expires=None)
    (tmp_path / "keys" / "alice").write_bytes(item_of(key))
    write_groups(tmp_path / "groups.json", {})
    config = {
        "auth": {"mode": "Keys", "keysFolder": str(tmp_path / "keys")},
        "models": [model_of(MODEL, tmp_path / "groups.json")],
        "usage": {"folder": str(tmp_path / "usage")},
    }
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0") as server:
        engine = await server.serve()
        async with a_gateway_process(tmp_path, **config) as gateway:
            client = openai.AsyncOpenAI(
                base_url=f"{gateway.url}/v1",
                api_key=KEY,
                max_retries=0,
                timeout=DEADLINE_S,
                http_client=httpx.AsyncClient(verify=NO_TLS),
            )
            yield World(gateway, server, engine, client)
            await client.close()


async def test_a_request_waits_for_a_group_that_the_file_names_later(world: World) -> None:
    asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1"))
    await world.gateway.until("/demand", '"held":1')
    world.find_server()
    request = await world.engine.next_request()
    await world.engine.say(request, " 2", end="<|user|>")
    assert (await asked).choices[0].text == " 2"
    await world.gateway.until_value('glm_gateway_requests_total{api="openai",outcome="finished"}', 1.0)
    assert await world.gateway.values(f'glm_gateway_groups_ready{{model="{MODEL}"}}') == [1.0]


async def test_a_key_that_is_revoked_is_refused_within_five_seconds(world: World) -> None:
    assert [model.id async for model in world.openai.models.list()] == [MODEL]
    (world.folder / "keys" / "alice").unlink()
    async with asyncio.timeout(5):
        while True:
            try:
                await world.openai.models.list()
            except openai.AuthenticationError:
                break
            await asyncio.sleep(0.1)


async def test_told_to_stop_it_finishes_what_is_under_way_and_writes_down_what_was_used(world: World) -> None:
    world.find_server()
    stream = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1", stream=True))
    request = await world.engine.next_request()
    await world.engine.say(request, " 2")
    chunks: Any = await stream
    first = await anext(chunks)
    world.gateway.tell()
    await world.gateway.until("/readyz", "it stops")
    await world.engine.say(request, " 3", end="<|user|>")
    text = first.choices[0].text + "".join([chunk.choices[0].text async for chunk in chunks])
    assert text == " 2 3"
    assert await world.gateway.ended() == 0
    (journal,) = (world.folder / "usage").glob("*.jsonl")
    (entry,) = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (entry["key"], entry["outcome"], entry["model"]) == ("alice", "finished", MODEL)


GOOD = "auth: {mode: None}\nmodels: [{name: chat, groups: {file: /g}}]"


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("auth: {}", 2, "auth.mode"),
        (None, 1, "No such file"),
        (GOOD, 2, "GLM_GATEWAY_TOKEN is missing"),
    ],
)
def test_a_file_that_is_wrong_is_told_before_anything_is_served(
    tmp_path: Path, text: str | None, status: int, said: str
) -> None:
    path = tmp_path / "gateway.yaml"
    if text is not None:
        path.write_text(text)
    command = [sys.executable, "-m", "glm_gateway.main", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == status
    assert said in done.stderr
