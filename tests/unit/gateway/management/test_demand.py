"""Who waits is told at once, at most ten times a second, and at least every two seconds."""

import asyncio
import json
import math
from collections.abc import AsyncGenerator
from typing import Any

from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Ticket
from glm_gateway.management.demand import Demands, Rhythm, demand
from glm_gateway.management.pulse import Pulse
from glm_gateway.models.model import Model
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import Group, Request

DEADLINE_S = 10.0
NEVER_S = 3600.0


def held(model: Model, number: int = 0) -> Ticket:
    """Let a request wait."""
    ticket = model.room.enter(1, Place(0, 0, math.inf, 0.0, number), asyncio.get_running_loop().time(), 100)
    assert isinstance(ticket, Ticket)
    model.arrive()
    return ticket


class World:
    def __init__(self, *, least_s: float, most_s: float = NEVER_S) -> None:
        pulse = Pulse()
        self.model = Model("chat", Directory(), changed=pulse.beat)
        rhythm = Rhythm(least_s=least_s, most_s=most_s)
        self.demands = Demands(lambda: [self.model], pulse, began_s=0.0, rhythm=rhythm)
        self.lines = self.demands.lines()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            told: dict[str, Any] = json.loads(await anext(self.lines))["models"]["chat"]
        return told


async def test_a_model_that_nobody_asked_for_has_no_time_and_one_that_is_asked_is_not_idle() -> None:
    model = Model("chat", Directory())
    now = asyncio.get_running_loop().time()
    assert demand([model], now, now - 5)["up_s"] == 5.0
    told = demand([model], now, now)["models"]["chat"]
    assert (told["held"], told["oldest_s"], told["idle_s"], told["running"]) == (0, 0.0, None, 0)
    model.replace([Member(Group(name="g0"), "127.0.0.1", 1)])
    choice = model.route(Request(key="1", prompt_tokens=1))
    assert choice is not None
    told = demand([model], now + 9, now)["models"]["chat"]
    assert (told["idle_s"], told["running"]) == (0.0, 1)
    model.end(choice)
    assert model.active_s is not None
    assert demand([model], model.active_s + 7, now)["models"]["chat"]["idle_s"] == 7.0


async def test_a_first_request_that_waits_is_told_at_once() -> None:
    world = World(least_s=NEVER_S)
    assert (await world.next())["held"] == 0
    telling = asyncio.create_task(world.next())
    await asyncio.sleep(0)
    held(world.model)
    told = await telling
    assert (told["held"], told["held_tokens"]) == (1, 100)


async def test_what_else_changes_is_told_together() -> None:
    world = World(least_s=0.05)
    held(world.model)
    assert (await world.next())["held"] == 1
    telling = asyncio.create_task(world.next())
    for number in range(1, 5):
        await asyncio.sleep(0)
        held(world.model, number)
    assert (await telling)["held"] == 5


async def test_who_listens_to_many_is_told_less_often_but_of_a_first_request_at_once() -> None:
    world, clock = World(least_s=0.0), asyncio.get_running_loop().time
    lines = world.demands.lines(least_s=0.3)
    async with asyncio.timeout(DEADLINE_S):
        await anext(lines)
        began_s = clock()
        telling = asyncio.create_task(anext(lines))
        await asyncio.sleep(0)
        held(world.model)
        assert b'"held":1' in await telling
        assert clock() - began_s < 0.3
        began_s = clock()
        telling = asyncio.create_task(anext(lines))
        await asyncio.sleep(0)
        held(world.model, 1)
        assert b'"held":2' in await telling
        assert clock() - began_s >= 0.29


async def test_a_line_comes_where_nothing_changes() -> None:
    world = World(least_s=0.001, most_s=0.01)
    for _ in range(3):
        assert (await world.next())["held"] == 0


async def test_many_that_listen_are_all_told_and_who_stops_is_forgotten() -> None:
    world = World(least_s=NEVER_S)
    others: list[AsyncGenerator[bytes, None]] = [world.demands.lines() for _ in range(3)]
    for lines in others:
        await anext(lines)
    telling = [asyncio.create_task(anext(lines)) for lines in others]
    await asyncio.sleep(0)
    telling[0].cancel()
    await asyncio.wait([telling[0]])
    held(world.model)
    async with asyncio.timeout(DEADLINE_S):
        told = await asyncio.gather(*telling[1:])
    assert all(b'"held":1' in line for line in told)


async def test_a_storm_of_changes_is_told_no_oftener_than_is_allowed() -> None:
    world, num_lines, clock = World(least_s=0.05), 0, asyncio.get_running_loop().time
    held(world.model)
    await world.next()
    began_s = clock()
    while clock() - began_s < 0.4:
        telling = asyncio.create_task(world.next())
        while not telling.done():
            world.model.arrive()
            await asyncio.sleep(0)
        num_lines += 1
    assert num_lines <= 1 + (clock() - began_s) / 0.05
