"""While groups move to another name of the model, each name is answered by whichever group serves, until it is over."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from glm_gateway.app import Gateway
from glm_gateway.groups.directory import Member
from glm_gateway.routing.pick import Group
from integration.gateway_process import GatewayProcess, a_gateway_process, model_of, write_groups
from integration.gateway_world import TOKEN, a_gateway
from integration.no_tls import NO_TLS
from integration.scripted_groups import FRAMES_HEAD, STALL, ScriptedGroup, closed, opened, said, serving
from integration.server_world import DEADLINE_S, ScriptedEngine, ServerWorld, a_server

OLD, NEW = "glm-nano", "nano-2026"
ASK: Any = [{"role": "user", "content": "hi"}]
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": ASK}),
    "message": ("/v1/messages", {"messages": ASK, "max_tokens": 50}),
    "response": ("/v1/responses", {"input": "hi"}),
}


@dataclass
class World:
    """A gateway whose model has a new name, before a group that was moved to it and one that was not."""

    gateway: Gateway
    servers: dict[str, ServerWorld]  # by the name that they serve
    engines: dict[str, ScriptedEngine]
    http: httpx.AsyncClient

    def leave_only(self, name: str) -> None:
        member = Member(Group(name=f"chat-{name}"), "127.0.0.1", self.servers[name].port, served=name)
        self.gateway.models[NEW].replace([member])

    async def ask(self, path: str, model: str, engine: ScriptedEngine, **fields: Any) -> httpx.Response:
        asking = asyncio.create_task(self.http.post(path, json={"model": model, **fields}))
        submitted = asyncio.create_task(engine.next_request())
        await asyncio.wait({asking, submitted}, return_when=asyncio.FIRST_COMPLETED)
        if not submitted.done():
            submitted.cancel()
            return await asking
        await engine.say(submitted.result(), "hello", end="<|user|>")
        return await asking


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folders = {name: tmp_path / name for name in (OLD, NEW)}
    for folder in folders.values():
        folder.mkdir()
    async with (
        a_server(folders[OLD], gateway_token=TOKEN, group=f"chat-{OLD}", served_model_name=OLD) as old,
        a_server(folders[NEW], gateway_token=TOKEN, group=f"chat-{NEW}", served_model_name=NEW) as new,
        a_gateway(NEW, []) as (url, gateway),
        httpx.AsyncClient(base_url=url, timeout=DEADLINE_S, verify=NO_TLS) as http,
    ):
        gateway.names.former = {OLD: NEW}
        servers = {OLD: old, NEW: new}
        yield World(gateway, servers, {name: await server.serve() for name, server in servers.items()}, http)


@pytest.mark.parametrize("name", PATHS)
async def test_both_names_are_answered_by_a_group_of_either(world: World, name: str) -> None:
    path, fields = PATHS[name]
    for at in (OLD, NEW):
        world.leave_only(at)
        for model in (OLD, NEW):
            answer = await world.ask(path, model, world.engines[at], **fields)
            assert answer.status_code == 200, answer.text
            assert answer.json()["model"] == at, "replies name the model as its worker does"


async def test_what_only_counts_knows_both_names(world: World) -> None:
    for at in (OLD, NEW):
        world.leave_only(at)
        for model in (OLD, NEW):
            answer = await world.http.post("/tokenize", json={"model": model, "prompt": "1 2 3"})
            assert answer.status_code == 200, answer.text


async def test_both_names_are_listed_and_the_old_one_is_refused_with_the_new_one_when_it_is_over(world: World) -> None:
    world.leave_only(NEW)
    listed = (await world.http.get("/v1/models")).json()
    assert [each["id"] for each in listed["data"]] == sorted([OLD, NEW])
    world.gateway.names.former = {}
    answer = await world.http.post("/v1/completions", json={"model": OLD, "prompt": "1"})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == f"the model '{OLD}' does not exist here; there are: {NEW}"


async def test_a_response_that_is_kept_is_gone_on_with_under_either_name(world: World) -> None:
    world.leave_only(OLD)
    first = (await world.ask("/v1/responses", OLD, world.engines[OLD], input="hi", store=True)).json()["id"]
    for model in (NEW, OLD):
        answer = await world.ask("/v1/responses", model, world.engines[OLD], input="go on", previous_response_id=first)
        assert answer.status_code == 200, answer.text


async def taken(gateway: GatewayProcess) -> None:
    digest = hashlib.sha256((gateway.folder / "gateway.json").read_bytes()).hexdigest()
    await gateway.until_state(lambda told: told["config_digest"] == digest and told["config_fault"] is None)


async def ask(gateway: GatewayProcess, model: str) -> httpx.Response:
    body = {"model": model, "prompt": "1", "stream": True}
    return await gateway.http.post(f"{gateway.url}/v1/completions", json=body)


async def test_a_gateway_that_serves_takes_the_new_name_and_loses_no_request_of_the_old_one(tmp_path: Path) -> None:
    whole = [FRAMES_HEAD, opened(), said("one", 1), closed()]
    is_over = asyncio.Event()
    group = ScriptedGroup("g0", [[*whole[:3], is_over, closed()], *[whole] * 10])
    async with serving(group), a_gateway_process(tmp_path) as gateway:
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        under_way = asyncio.create_task(ask(gateway, "chat"))
        await gateway.until_state(lambda told: told["running"] == 1)
        gateway.write(models=[model_of("chat-2", tmp_path / "groups.json", formerNames=["chat"])])
        await taken(gateway)
        for name in ("chat", "chat-2"):
            assert "data: one" in (await ask(gateway, name)).text
        is_over.set()
        assert (await under_way).text.endswith("data: [DONE]\n\n")
        gateway.write(models=[model_of("chat-2", tmp_path / "groups.json")])
        await taken(gateway)
        assert (await ask(gateway, "chat")).status_code == 404
        assert "data: one" in (await ask(gateway, "chat-2")).text


async def test_who_waits_under_the_old_name_is_answered_as_well(tmp_path: Path) -> None:
    group = ScriptedGroup("g0", [[FRAMES_HEAD, opened(), said("one", 1), closed()], [STALL]])
    write_groups(tmp_path / "groups.json", {})
    async with serving(group), a_gateway_process(tmp_path) as gateway:
        waiting = asyncio.create_task(ask(gateway, "chat"))
        await gateway.until("/demand", '"held":1')
        gateway.write(models=[model_of("chat-2", tmp_path / "groups.json", formerNames=["chat"])])
        await taken(gateway)
        write_groups(tmp_path / "groups.json", {"g0": group.port})
        assert "data: one" in (await waiting).text
