"""The ladder is climbed for what requests wait: here or at their group, of those that are promised something."""

import pytest

from glm_gateway.ladder.ladder import Rung, Steps
from glm_gateway.models.overload import LOOK_S, Overload


class World:
    """A model's groups, as a test says they are."""

    def __init__(self) -> None:
        self.waits: dict[str, float] = {}
        self.able = True
        self.overload = Overload("chat", lambda group: self.waits.get(group, 0.0), lambda: self.able)

    def rung(self, now: float) -> Rung:
        self.overload.look(now)
        return self.overload.rung


@pytest.fixture
def world() -> World:
    found = World()
    assert found.rung(0.0) is Rung.NONE
    return found


def test_who_waits_here_past_its_promise_climbs_the_ladder(world: World) -> None:
    pending = world.overload.enter(1.0, promise_s=2.0)
    assert world.rung(2.9) is Rung.NONE
    assert world.rung(3.0) is Rung.SHORT_THOUGHTS
    assert world.rung(5.0) is Rung.IN_TURN
    assert world.overload.easing.for_client == ((b"x-glm-overload", b"in-turn"),)
    world.overload.leave(pending)
    world.overload.leave(pending)
    assert world.overload.has_work  # until the ground is reached again
    for now in range(6, 60):
        world.rung(float(now))
    assert world.overload.rung is Rung.NONE
    assert not world.overload.has_work


def test_nothing_promised_is_no_pressure(world: World) -> None:
    assert world.overload.enter(0.0, promise_s=None) is None
    assert world.rung(1000.0) is Rung.NONE


def test_what_waits_at_its_group_counts_as_long_as_others_wait_there(world: World) -> None:
    pending = world.overload.enter(0.0, promise_s=2.0)
    assert pending is not None
    pending.group, pending.sent_s = "g0", 0.0
    assert world.rung(10.0) is Rung.NONE  # it is computed, however long that takes
    world.waits["g0"] = 2.5
    assert world.rung(11.0) is Rung.SHORT_THOUGHTS  # 2.5 s of 2: nobody there waits longer than the oldest
    world.waits["g0"] = 30.0
    assert world.rung(12.0) is Rung.SHED  # and this one no longer than since it came


def test_a_wait_for_a_start_is_no_overload(world: World) -> None:
    world.able = False
    world.overload.enter(0.0, promise_s=1.0)
    assert world.rung(60.0) is Rung.NONE
    world.able = True
    assert world.rung(100.0) is Rung.NONE
    assert world.rung(100.9) is Rung.NONE
    assert world.rung(101.1) is Rung.SHORT_THOUGHTS  # a second since there is a group


def test_looks_are_not_too_many(world: World) -> None:
    world.overload.enter(0.0, promise_s=1.0)
    assert world.rung(5.0) is Rung.SHED
    again = world.overload.enter(0.0, promise_s=1.0)
    world.overload.leave(again)
    assert not world.overload.look(5.0 + LOOK_S / 2)


def test_a_ladder_that_is_switched_off_is_left_at_once(world: World) -> None:
    world.overload.enter(0.0, promise_s=1.0)
    assert world.rung(5.0) is Rung.SHED
    world.overload.set_steps(Steps(), is_enabled=False)
    assert world.rung(5.0) is Rung.NONE
    world.overload.set_steps(Steps(shed=100.0), is_enabled=True)
    assert world.rung(6.0) is Rung.IN_TURN
