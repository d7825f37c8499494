"""`glm-gateway` as a process before a real server: it finds its groups in a file, answers, tells, and drains."""

import asyncio
import contextlib
import json
import os
import signal
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
from integration.no_tls import NO_TLS
from integration.server_world import DEADLINE_S, MODEL, ScriptedEngine, ServerWorld, a_server, free_port

TOKEN = "token-of-the-gateway"
SECRET = "0f" * 16
KEY = "glm-alice"


@dataclass
class World:
    process: subprocess.Popen[bytes]
    url: str
    management: str
    server: ServerWorld
    engine: ScriptedEngine
    folder: Path
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI

    async def until(self, path: str, sign: str) -> str:
        """Wait until a page of the management port has a sign in it."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    told = (await self.http.get(f"{self.management}{path}")).text
                    if sign in told:
                        return told
                await asyncio.sleep(0.05)


def write_groups(folder: Path, *ports: int) -> None:
    groups = [{"name": f"chat-g{number}", "host": "127.0.0.1", "port": port} for number, port in enumerate(ports)]
    part = folder / "groups.part"
    part.write_text(json.dumps({"groups": groups}))
    part.rename(folder / "groups.json")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    port, management = free_port(), free_port()
    (tmp_path / "keys").mkdir()
    key = new_key(KEY, datetime.now(UTC), group=None, role=None, expires=None)
    (tmp_path / "keys" / "alice").write_bytes(item_of(key))
    write_groups(tmp_path)
    config = {
        "host": "127.0.0.1",
        "port": port,
        "managementPort": management,
        "auth": {"mode": "Keys", "keysFolder": str(tmp_path / "keys")},
        "models": [{"name": MODEL, "groups": {"file": str(tmp_path / "groups.json")}}],
        "usage": {"folder": str(tmp_path / "usage")},
    }
    (tmp_path / "gateway.json").write_text(json.dumps(config))
    async with a_server(tmp_path, gateway_token=TOKEN, group="chat-g0") as server:
        engine = await server.serve()
        command = [sys.executable, "-m", "glm_gateway.main", "--config", str(tmp_path / "gateway.json")]
        log = (tmp_path / "gateway.log").open("wb")
        environment = {**os.environ, "GLM_GATEWAY_TOKEN": TOKEN, "GLM_GATEWAY_SECRET": SECRET}
        process = subprocess.Popen(  # noqa: ASYNC220 - lives as long as this
            command, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        url, private = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{management}"
        async with httpx.AsyncClient(timeout=DEADLINE_S, verify=NO_TLS) as http:
            client = openai.AsyncOpenAI(
                base_url=f"{url}/v1",
                api_key=KEY,
                max_retries=0,
                timeout=DEADLINE_S,
                http_client=httpx.AsyncClient(verify=NO_TLS),
            )
            world = World(process, url, private, server, engine, tmp_path, http, client)
            try:
                await world.until("/readyz", "ok")
                yield world
            finally:
                process.kill()
                process.wait()
                log.close()
                await client.close()


async def test_a_request_waits_for_a_group_that_the_file_names_later(world: World) -> None:
    asked = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1"))
    await world.until("/demand", '"held":1')
    write_groups(world.folder, world.server.port)
    request = await world.engine.next_request()
    await world.engine.say(request, " 2", end="<|user|>")
    assert (await asked).choices[0].text == " 2"
    told = await world.until("/metrics", 'outcome="finished"} 1.0')
    assert f'glm_gateway_groups_ready{{model="{MODEL}"}} 1.0' in told


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
    write_groups(world.folder, world.server.port)
    stream = asyncio.create_task(world.openai.completions.create(model=MODEL, prompt="1", stream=True))
    request = await world.engine.next_request()
    await world.engine.say(request, " 2")
    chunks: Any = await stream
    first = await anext(chunks)
    world.process.send_signal(signal.SIGTERM)
    await world.until("/readyz", "it stops")
    await world.engine.say(request, " 3", end="<|user|>")
    text = first.choices[0].text + "".join([chunk.choices[0].text async for chunk in chunks])
    assert text == " 2 3"
    await asyncio.to_thread(world.process.wait, DEADLINE_S)
    assert world.process.returncode == 0
    (journal,) = (world.folder / "usage").glob("*.jsonl")
    (entry,) = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (entry["key"], entry["outcome"], entry["model"]) == ("alice", "finished", MODEL)


@pytest.mark.parametrize(("text", "status", "said"), [("auth: {}", 2, "auth.mode"), (None, 1, "No such file")])
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
