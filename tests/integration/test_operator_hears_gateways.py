"""What gateways say on their management ports, over real HTTP, and what becomes of those that do not."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from glm_operator.autoscale.zero.asked import Asked
from glm_operator.cluster import gateways as client
from glm_operator.cluster.gateways import DEMAND_PATH, SILENT_S, Address, Gateways
from integration.gateway_port import GatewayPort, a_model, serving
from integration.gateway_process import a_gateway_process, model_of, write_groups

NAMESPACE = "models"


async def until(is_so: Callable[[], bool], limit_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not happen"
        await asyncio.sleep(0.005)


@dataclass
class World:
    """One gateway, who listens to it, and a clock beside the real one."""

    port: GatewayPort
    gateways: Gateways = field(init=False)
    calls: list[tuple[str, str]] = field(default_factory=list)
    skipped_s: float = 0.0
    address: Address = field(init=False)

    def __post_init__(self) -> None:
        self.gateways = Gateways(clock=lambda: time.monotonic() + self.skipped_s)
        self.address = Address(NAMESPACE, "chat", "chat-gateway-a", "uid-a", self.port.url)

    def follow(self, *addresses: Address) -> None:
        self.gateways.follow(addresses, self.calls.append)

    def asked(self, deployment: str = "chat", **changes: Any) -> Asked:
        return self.gateways.asked(deployment, [replace(self.address, **changes)])

    async def heard(self, deployment: str = "chat") -> Asked:
        await until(lambda: self.asked(deployment).is_known)
        return self.asked(deployment)


@contextlib.asynccontextmanager
async def a_world(port: GatewayPort | None = None) -> AsyncIterator[World]:
    async with serving(port or GatewayPort()) as served:
        world = World(served)
        try:
            world.follow(world.address)
            yield world
        finally:
            await world.gateways.close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


async def test_what_it_says_is_known_and_grows_older(world: World) -> None:
    await world.port.say(idle_s=10.0)
    found = await world.heard()
    assert (found.held, found.running) == (0.0, 0.0)

    await until(lambda: (world.asked().quiet_s or 0.0) < 20.0)
    world.skipped_s += 3.0
    quiet_s = world.asked().quiet_s
    assert quiet_s is not None
    assert 13.0 <= quiet_s < 20.0


async def test_a_request_that_begins_to_wait_is_told_once_and_at_once(world: World) -> None:
    await world.heard()
    began_s = time.monotonic()
    await world.port.say(held=1, oldest_s=0.01, idle_s=0.0)
    await until(lambda: world.calls == [(NAMESPACE, "chat")])
    assert time.monotonic() - began_s < 0.5

    for held in (2, 5, 1):
        await world.port.say(held=held)
        await until(lambda held=held: world.asked().held == held)  # type: ignore[misc]
    assert len(world.calls) == 1

    await world.port.say(held=0)
    await until(lambda: world.asked().held == 0.0)
    await world.port.say(held=1)
    await until(lambda: len(world.calls) == 2)


async def test_what_is_held_before_the_stream_began_is_told(world: World) -> None:
    async with serving(GatewayPort(models={"glm-nano": a_model(held=3)})) as other:
        world.follow(world.address, Address(NAMESPACE, "chat", "chat-gateway-b", "uid-b", other.url))
        await until(lambda: world.calls == [(NAMESPACE, "chat")])


async def test_silence_is_unknown_and_no_zero(world: World) -> None:
    await world.heard()
    world.port.is_silent = True
    world.skipped_s += SILENT_S + 0.1
    assert world.asked().silent == ("chat-gateway-a",)
    assert world.asked().quiet_s is None


async def test_a_stream_that_says_nothing_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENT_S", 0.3)
    async with a_world(GatewayPort(is_silent=True)) as world:
        await until(lambda: world.port.num_streams >= 2)
        world.port.is_silent = False
        await world.heard()


async def test_a_stream_that_breaks_is_begun_anew_soon(world: World) -> None:
    await world.heard()
    began_s = time.monotonic()
    await world.port.cut()
    await until(lambda: world.port.num_streams == 2)
    assert time.monotonic() - began_s < 2.0
    world.port.up_s = 0.5
    await world.port.say()
    await until(lambda: (world.asked().quiet_s or 100.0) < 10.0)


async def test_one_that_is_away_for_long_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BACKOFF_S", (0.01, 0.01, 0.01))
    caplog.set_level(logging.INFO, logger=client.__name__)
    async with a_world(GatewayPort(status=503)) as world:
        await until(lambda: len(caplog.records) > 0)
        asked = world.port.num_asked
        await until(lambda: world.port.num_asked >= asked + 10)
        (told,) = caplog.records
        assert told.getMessage().startswith("gateway models/chat-gateway-a does not say what it is asked: http://")
        assert told.getMessage().endswith("answers 503")
        assert not world.asked().is_known
        world.port.status = 200
        await world.heard()
        assert caplog.records[-1].getMessage() == "gateway models/chat-gateway-a says what it is asked again"


@pytest.mark.parametrize(
    "said",
    [
        b"<html>\n",
        b"[]\n",
        b"{}\n",
        json.dumps({"models": {"m": {"held": 1}}, "up_s": 1.0}).encode() + b"\n",
        json.dumps({"models": {"m": a_model(held=-1)}, "up_s": 1.0}).encode() + b"\n",
        b'{"models": {}, "up_s": NaN}\n',
        b"x" * (client.MAX_LINE_BYTES + 1),
    ],
    ids=["page", "list", "nothing", "half", "negative", "NaN", "endless"],
)
async def test_what_is_no_page_is_not_believed_and_the_stream_is_begun_anew(world: World, said: bytes) -> None:
    await world.heard()
    streams = world.port.num_streams
    await world.port.send(said)
    await until(lambda: world.port.num_streams > streams)
    await world.heard()


async def test_a_gateway_that_never_stops_talking_is_read_no_faster_than_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "LEAST_GAP_S", 0.05)
    taken: list[float] = []
    monkeypatch.setattr(Gateways, "_take", lambda *_: taken.append(time.monotonic()))
    async with a_world() as world:
        await until(lambda: len(taken) == 1)
        await world.port.send(world.port.line() * 2000)
        await until(lambda: len(taken) >= 6)
        assert taken[5] - taken[0] >= 5 * 0.05


async def test_one_that_is_not_followed_any_more_is_forgotten(world: World) -> None:
    await world.heard()
    world.follow()
    assert not world.asked().is_known
    await until(lambda: not world.port.streams)


async def test_a_container_that_was_started_anew_at_another_address_is_another_gateway(world: World) -> None:
    await world.heard()
    async with serving(GatewayPort(up_s=1.0)) as other:
        moved = replace(world.address, url=other.url)
        world.follow(moved)
        assert not world.gateways.asked("chat", [moved]).is_known
        await until(lambda: world.gateways.asked("chat", [moved]).is_known)


# -- whose requests they are


async def test_several_models_of_a_deployment_are_added_up() -> None:
    models = {"a": a_model(held=1, idle_s=0.0), "b": a_model(running=2, idle_s=3.0), "c": a_model("other", idle_s=9.0)}
    async with a_world(GatewayPort(models=models)) as world:
        found = await world.heard()
        assert (found.held, found.running) == (1.0, 2.0)
        assert (await world.heard("other")).held == 0.0


async def test_the_tokens_that_wait_are_added_up_and_where_one_model_lacks_them_nobody_says_them() -> None:
    models = {"a": a_model(held=1, held_tokens=40), "b": a_model(held=2, held_tokens=300), "c": a_model("old", held=3)}
    async with a_world(GatewayPort(models=models)) as world:
        assert (await world.heard()).held_tokens(mean_prompt=7.0) == 340.0
        assert (await world.heard("old")).held_tokens(mean_prompt=7.0) == 21.0
        models["b"].pop("held_tokens")
        await world.port.send(world.port.line())
        await until(lambda: world.asked().held_tokens(mean_prompt=7.0) == 21.0)


async def test_without_a_deployment_the_name_of_the_model_counts() -> None:
    async with a_world(GatewayPort(models={"chat": a_model(None, running=4)})) as world:
        assert (await world.heard()).running == 4.0


async def test_of_its_own_gateway_that_does_not_name_it_nothing_is_known(world: World) -> None:
    world.port.models = {"glm-nano": a_model("other")}
    await world.port.say()
    await until(lambda: world.asked("other").is_known)
    assert world.asked().silent == ("chat-gateway-a",)


async def test_anothers_gateway_that_does_not_serve_it_is_none_of_its_own(world: World) -> None:
    await world.heard()
    assert world.asked("third").gateways == ()
    assert world.asked("third", owner="third").silent == ("chat-gateway-a",)


async def test_anothers_gateway_that_does_not_say_whose_models_they_are_is_unknown() -> None:
    async with a_world(GatewayPort(models={"glm-nano": a_model(None)})) as world:
        await world.heard("glm-nano")
        found = world.gateways.asked("third", [world.address])
        assert found.silent == ("chat-gateway-a",)


async def test_one_that_leaves_counts_while_it_says_something_and_no_longer(world: World) -> None:
    await world.heard()
    await world.port.say(running=1)
    await until(lambda: world.asked(is_leaving=True).running == 1.0)
    assert not world.asked(is_leaving=True).gateways[0].is_ready
    world.skipped_s += SILENT_S + 0.1
    assert world.asked(is_leaving=True).gateways == ()
    assert world.asked().silent == ("chat-gateway-a",)


# -- the gateway itself


async def test_a_gateway_says_whose_requests_it_holds_and_since_when_nobody_asks(tmp_path: Path) -> None:
    write_groups(tmp_path / "groups.json", {})
    model = model_of("glm-nano", tmp_path / "groups.json", deployment="chat")
    gateways, calls = Gateways(), list[tuple[str, str]]()
    async with a_gateway_process(tmp_path, models=[model]) as gateway:
        address = Address(NAMESPACE, "chat", "chat-gateway-a", "uid-a", f"{gateway.management}{DEMAND_PATH}")
        gateways.follow([address], calls.append)

        def asked(deployment: str = "chat") -> Asked:
            return gateways.asked(deployment, [address])

        try:
            await until(lambda: asked().is_known)
            said = asked().gateways[0].said
            assert said is not None
            assert (said.idle_s, calls) == (None, [])
            assert asked("third").gateways == (), "it names whom it serves"

            body = {"model": "glm-nano", "messages": [{"role": "user", "content": "hello"}]}
            began_s = time.monotonic()
            waiting = asyncio.create_task(gateway.http.post(f"{gateway.url}/v1/chat/completions", json=body))
            await until(lambda: calls == [(NAMESPACE, "chat")])
            assert time.monotonic() - began_s < 1.0
            assert asked().held == 1.0
            assert 1.0 <= asked().held_tokens(mean_prompt=1e6) <= 20.0, "about as many as the prompt has"

            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await until(lambda: asked().held == 0.0)
            assert (asked().quiet_s or 0.0) < 10.0
        finally:
            await gateways.close()
