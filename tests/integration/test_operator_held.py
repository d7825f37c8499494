"""Groups that are full and have no backlog, since requests wait at gateways: that is load, and what is not known of it
lowers nothing."""

from collections.abc import AsyncIterator

import pytest

from integration.autoscaler_world import SCALING
from integration.metered_fleet import PERIOD_S
from integration.test_operator_zero import ZeroWorld, a_zero_world

FULL_RPS = 2.5
"""What one group is asked for: its share of the time that is planned for, and nothing waits there."""


@pytest.fixture
async def front() -> AsyncIterator[ZeroWorld]:
    """A deployment that always has a group, behind two gateways."""
    async with a_zero_world(scaling=SCALING) as made:
        yield made


async def busy(front: ZeroWorld, seconds: float = 90.0) -> None:
    """Let time pass in which groups get what they can take."""
    front.ask(running=2, idle_s=0.0)
    front.world.fleet.requests_per_s = FULL_RPS
    await front.run(seconds)
    assert all(group.waiting == 0.0 for group in front.world.fleet.groups.values())


async def test_what_gateways_hold_brings_groups_in_one_look_though_no_worker_has_a_backlog(front: ZeroWorld) -> None:
    await busy(front)
    assert front.replicas == 1
    front.ask("chat-gateway-0x", held=120, held_tokens=120_000, oldest_s=4.0)
    front.ask("chat-gateway-1x", held=120, held_tokens=120_000, oldest_s=3.0, idle_s=0.0)
    await front.run(PERIOD_S)
    assert front.replicas == 4
    assert all(group.waiting == 0.0 for group in front.world.fleet.groups.values())
    scaling = front.world.status["scaling"]
    assert "waits at gateways: 240 requests, 240000 tokens" in scaling["lastScale"]
    signals = {each["name"]: each for each in scaling["signals"]}
    assert signals["held at gateways, requests"]["value"] == "240"
    assert signals["held at gateways, tokens"]["value"] == "240000"
    assert signals["requests waiting"]["value"] == "240"


async def test_a_gateway_of_the_version_before_says_no_tokens_and_its_requests_count_all_the_same(
    front: ZeroWorld,
) -> None:
    await busy(front)
    front.ask(held=240, oldest_s=4.0)
    await front.run(PERIOD_S)
    assert front.replicas == 4


async def test_no_group_goes_while_a_gateway_is_silent(front: ZeroWorld) -> None:
    await busy(front)
    front.ask(held=240, held_tokens=240_000, oldest_s=4.0)
    await front.run(PERIOD_S)
    assert front.replicas == 4
    front.ask(held=0, held_tokens=0)
    front.ports["chat-gateway-1x"].is_silent = True
    front.world.fleet.requests_per_s = 0.2
    await front.run(900)
    assert (front.replicas, front.limited_by) == (4, "GatewayUnknown")
    assert "chat-gateway-1x does not say what it is asked" in front.world.rig.condition("ScalingActive")[2]
    front.ports["chat-gateway-1x"].is_silent = False
    await front.run(900)
    assert front.replicas == 1


async def test_a_silent_gateway_brings_no_group(front: ZeroWorld) -> None:
    front.ports["chat-gateway-1x"].is_silent = True
    await busy(front, 300)
    assert front.replicas == 1


async def test_an_overload_that_waits_at_gateways_brings_all_of_its_groups_within_seconds(front: ZeroWorld) -> None:
    """12 requests a second come, a group takes 4, and what is more waits at a gateway: four groups are needed."""
    await busy(front)
    numbers = []
    front.world.fleet.requests_per_s = 4.0
    for looks in range(1, 7):
        held = looks * PERIOD_S * 8.0
        front.ask(held=held, held_tokens=held * 1000.0, oldest_s=held / 12.0)
        await front.run(PERIOD_S)
        numbers.append(front.replicas)
        front.world.fleet.requests_per_s = 4.0 * len(front.world.serving())
    assert numbers[0] >= 2, numbers
    assert numbers[-1] == 4, numbers
