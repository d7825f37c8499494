"""The file of a gateway changes while it serves: what can change does, for the next request, and nothing breaks."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio

from integration.gateway_process import GatewayProcess, a_gateway_process, model_of, write_groups
from integration.scripted_groups import FRAMES_HEAD, ScriptedGroup, closed, opened, plain, said, serving
from integration.server_world import DEADLINE_S

STREAM = {"prompt": "1", "stream": True}
WHOLE = [FRAMES_HEAD, opened(), said("one", 1), closed()]


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[GatewayProcess]:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path) as found:
        yield found


async def taken(gateway: GatewayProcess) -> dict[str, Any]:
    """Wait until all of the file as it is now is in use."""
    digest = hashlib.sha256((gateway.folder / "gateway.json").read_bytes()).hexdigest()
    return await gateway.until_state(lambda told: told["config_digest"] == digest and told["config_fault"] is None)


async def ask(gateway: GatewayProcess, model: str = "chat", **fields: Any) -> httpx.Response:
    return await gateway.http.post(f"{gateway.url}/v1/completions", json={"model": model, **STREAM, **fields})


async def test_a_model_comes_and_one_goes_while_a_request_to_it_ends_as_it_began(gateway: GatewayProcess) -> None:
    group, other = ScriptedGroup("g0", []), ScriptedGroup("o0", [WHOLE])
    async with serving(group, other):
        write_groups(gateway.folder / "others.json", {"o0": other.port})
        held = asyncio.create_task(ask(gateway))
        await gateway.until("/demand", '"held":1')
        gateway.write(models=[model_of("other", gateway.folder / "others.json")])
        told = await taken(gateway)
        assert set(told["models"]) == {"chat", "other"}, "chat has a request that waits"
        assert (await ask(gateway)).status_code == 404
        assert (await ask(gateway, "other")).text.startswith("data: one")
        group.scripts.append(WHOLE)
        write_groups(gateway.folder / "groups.json", {"g0": group.port})
        assert "data: one" in (await held).text
        await gateway.until_state(lambda told: set(told["models"]) == {"other"})
        assert await gateway.values('glm_gateway_requests_total{model="chat"}') == []
        assert await gateway.values('glm_gateway_groups_ready{model="chat"}') == []
        assert await gateway.values('glm_gateway_requests_total{api="openai",model="other",outcome="finished"}') == [
            1.0
        ]


async def test_a_model_that_comes_back_is_served_by_the_groups_that_it_has_then(gateway: GatewayProcess) -> None:
    group = ScriptedGroup("g1", [WHOLE])
    async with serving(group):
        write_groups(gateway.folder / "later.json", {"g1": group.port})
        gateway.write(models=[model_of("other", gateway.folder / "groups.json")])
        await taken(gateway)
        gateway.write(models=[model_of("chat", gateway.folder / "later.json")])
        await taken(gateway)
        assert (await ask(gateway)).text.startswith("data: one")


def off(gateway: GatewayProcess, *, awaits: bool) -> None:
    gateway.write(models=[model_of("chat", gateway.folder / "groups.json", awaitsGroups=awaits)])


async def test_where_no_group_is_asked_for_nobody_waits_for_one(gateway: GatewayProcess) -> None:
    waiting = asyncio.create_task(ask(gateway, stream=False))
    await gateway.until("/demand", '"held":1')
    off(gateway, awaits=False)
    refused = await waiting
    assert refused.status_code == 503, "who waits already is told as well"
    for answer in (refused, await ask(gateway, stream=False)):
        error = answer.json()["error"]
        assert (error["code"], answer.headers["retry-after"].isdigit()) == ("no_group_ready", True)
        assert error["message"] == ("chat is switched off: its deployment asks for no group, and nothing scales it up")
    group = ScriptedGroup("g0", [WHOLE, WHOLE])
    async with serving(group):
        write_groups(gateway.folder / "groups.json", {"g0": group.port})  # as it goes, or comes
        await gateway.until("/state", '"g0"')
        assert "data: one" in (await ask(gateway)).text
        write_groups(gateway.folder / "groups.json", {})
        await gateway.until_state(lambda told: not told["models"]["chat"]["groups"])
        off(gateway, awaits=True)
        await taken(gateway)
        again = asyncio.create_task(ask(gateway))
        await gateway.until("/demand", '"held":1')
        write_groups(gateway.folder / "groups.json", {"g0": group.port})
        assert "data: one" in (await again).text


async def test_what_may_wait_and_what_a_key_may_ask_change_for_the_next_request(gateway: GatewayProcess) -> None:
    waiting = asyncio.create_task(ask(gateway))
    await gateway.until("/demand", '"held":1')
    gateway.write(hold={"maxHeld": 1})
    await taken(gateway)
    refused = await ask(gateway)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_group_ready")
    gateway.write(hold={"maxHeld": 10}, quotas={"default": {"requestsPerMinute": 0}})
    await taken(gateway)
    assert (await ask(gateway)).status_code == 429
    assert not waiting.done(), "who waits goes on as it began"
    waiting.cancel()


async def test_a_bad_file_is_told_and_the_last_good_one_holds_on(gateway: GatewayProcess) -> None:
    good = json.loads(await gateway.page("/state"))
    assert (good["config_fault"], len(good["config_digest"])) == (None, 64)
    gateway.write_text('{"models": []')
    told = await gateway.until_state(lambda told: told["config_fault"] is not None)
    assert told["config_digest"] == good["config_digest"]
    assert "neither JSON nor YAML" in told["config_fault"]
    await gateway.until_value("glm_gateway_config_is_current", 0.0)
    assert await gateway.page("/readyz") == "ok\n"
    models = (await gateway.http.get(f"{gateway.url}/v1/models")).json()
    assert [each["id"] for each in models["data"]] == ["chat"]
    (gateway.folder / "gateway.json").unlink()
    await gateway.until_state(lambda told: "No such file" in (told["config_fault"] or ""))
    gateway.write()
    assert await gateway.until_state(lambda told: told["config_fault"] is None) == good
    await gateway.until_value("glm_gateway_config_is_current", 1.0)


async def test_what_needs_a_new_start_is_named_and_the_rest_holds(gateway: GatewayProcess) -> None:
    port = gateway.config["port"]
    gateway.write(port=1, hold={"maxHeld": 0})
    told = await gateway.until_state(lambda told: told["config_fault"] is not None)
    assert told["config_fault"] == "port: cannot change while it runs; start it anew"
    assert (await ask(gateway)).status_code == 503
    assert "port: cannot change" in gateway.log
    gateway.write(port=port)
    await gateway.until_state(lambda told: told["config_fault"] is None)


async def test_a_config_map_whose_link_is_moved_is_read_again(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.json", {})
    async with a_gateway_process(tmp_path) as gateway:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            config = {**gateway.config, "hold": {"maxHeld": 0 if name == "second" else 1}}
            (tmp_path / name / "gateway.json").write_text(json.dumps(config))
        move_link(tmp_path, "first")
        (tmp_path / "gateway.json").unlink()
        (tmp_path / "gateway.json").symlink_to("..data/gateway.json")
        await taken(gateway)
        move_link(tmp_path, "second")
        await taken(gateway)
        assert (await ask(gateway)).status_code == 503


async def test_a_group_that_answers_without_frames_is_told_to_be_plain(gateway: GatewayProcess) -> None:
    group = ScriptedGroup("g0", [[plain(200, b"data: one\n\n", b"content-type: text/event-stream")]])
    async with serving(group):
        write_groups(gateway.folder / "groups.json", {"g0": group.port})
        async with asyncio.timeout(DEADLINE_S):
            await ask(gateway)
        plain_group = {"ready": True, "leaving": False, "plain": True, "in_flight": 0}  # which counts a moment longer
        await gateway.until_state(lambda told: told["models"]["chat"]["groups"] == {"g0": plain_group})
        await gateway.until_value('glm_gateway_groups_plain{model="chat"}', 1.0)


def move_link(folder: Path, target: str) -> None:
    """Let the folder's data be another one, at once, as the kubelet does."""
    new = folder / "..new"
    new.symlink_to(target)
    new.rename(folder / "..data")


async def test_no_request_notices_that_the_file_changes_again_and_again(gateway: GatewayProcess) -> None:
    slow = [FRAMES_HEAD, opened(), said("one", 1), said("two", 2), closed()]
    group = ScriptedGroup("g0", [slow] * 20_000)
    groups = gateway.folder / "groups.json"
    is_over = asyncio.Event()
    num_asked = 0

    async def go_on_asking() -> None:
        nonlocal num_asked
        while not is_over.is_set():
            answer = await ask(gateway)
            assert answer.text == "data: one\n\ndata: two\n\ndata: [DONE]\n\n"
            num_asked += 1

    async with serving(group):
        write_groups(groups, {"g0": group.port})
        asking = [asyncio.create_task(go_on_asking()) for _ in range(8)]
        for number in range(4):
            others = [model_of(f"other-{number}-{each}", groups) for each in range(3)]
            gateway.write(models=[model_of("chat", groups), *others], hold={"maxHeld": number})
            told = await taken(gateway)
            assert f"other-{number}-0" in told["models"]
            gateway.write_text("{")
            await gateway.until_state(lambda told: told["config_fault"] is not None)
        is_over.set()
        await asyncio.gather(*asking)
    assert num_asked > 100
    finished = 'glm_gateway_requests_total{api="openai",model="chat",outcome="finished"}'
    assert await gateway.values(finished) == [num_asked]
