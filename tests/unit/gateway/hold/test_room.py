"""The waiting room is bounded, nobody is forgotten in it, and who waits is told for what."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from glm_gateway.hold.room import Bounds, Demand, Ticket, TurnedAway, WaitingRoom
from glm_gateway.hold.telling import Start, comment
from glm_gateway.routing.classes import Place

NUMBERS = itertools.count()


def place(priority: int = 0) -> Place:
    return Place(0, priority, math.inf, 0.0, next(NUMBERS))


def entered(room: WaitingRoom, num_bytes: int = 1, priority: int = 0, now: float = 0.0) -> Ticket:
    ticket = room.enter(num_bytes, place(priority), now)
    assert isinstance(ticket, Ticket)
    return ticket


def test_the_most_urgent_goes_first_and_equals_in_order_of_arrival() -> None:
    room = WaitingRoom()
    late, first, second = entered(room, priority=5), entered(room, priority=1), entered(room, priority=1)
    assert list(room) == [first, second, late]


def test_a_full_room_turns_away_and_says_what_fills_it() -> None:
    room = WaitingRoom(Bounds(max_held=1, max_bytes=10))
    entered(room, num_bytes=4)
    assert room.enter(1, place(), 0.0) == TurnedAway("1 requests wait for a group, 1 may")
    room = WaitingRoom(Bounds(max_bytes=10))
    entered(room, num_bytes=4)
    found = room.enter(7, place(), 0.0)
    assert isinstance(found, TurnedAway)
    assert "4 bytes wait" in found.reason
    assert "this one has 7" in found.reason


def test_demand_tells_the_prompt_tokens_of_all_that_wait() -> None:
    room = WaitingRoom()
    tickets = [room.enter(1, place(), 0.0, tokens) for tokens in (40, 300)]
    assert room.demand(0.0).num_tokens == 340
    assert isinstance(tickets[0], Ticket)
    room.leave(tickets[0])
    assert room.demand(0.0).num_tokens == 300


def test_demand_tells_how_many_wait_and_how_long_the_first_has() -> None:
    room = WaitingRoom()
    assert room.demand(3.0) == Demand(0, 0.0)
    entered(room, priority=9, now=1.0)
    entered(room, now=2.0)
    assert room.demand(3.0) == Demand(2, 2.0)


class Rooms(RuleBasedStateMachine):
    """Whoever enters leaves once, and the books of bytes are right after any schedule."""

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom(Bounds(max_held=4, max_bytes=40))
        self.inside: list[Ticket] = []
        self.now = 0.0

    @rule(num_bytes=st.integers(0, 20), priority=st.integers(-2, 2))
    def enter(self, num_bytes: int, priority: int) -> None:
        found = self.room.enter(num_bytes, place(priority), self.now)
        if isinstance(found, Ticket):
            self.inside.append(found)
        else:
            assert len(self.inside) == 4 or sum(each.num_bytes for each in self.inside) + num_bytes > 40

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.inside))
        self.room.leave(ticket)
        self.room.leave(ticket)
        self.inside.remove(ticket)

    @rule(passed=st.floats(0, 9))
    def wait(self, passed: float) -> None:
        self.now += passed

    @invariant()
    def is_balanced(self) -> None:
        assert list(self.room) == sorted(self.inside)
        assert len(self.room) == self.room.demand(self.now).num_held == len(self.inside)
        assert sum(each.num_bytes for each in self.inside) <= 40


TestRooms = Rooms.TestCase


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (Start(None, None), b"no start was measured yet\n\n"),
        (Start(45.0, None), b"a start takes 45 s\n\n"),
        (Start(45.0, 90.0), b"a start takes 45 s, about 35 s from now\n\n"),
        (Start(45.0, 0.0), b"a start takes 45 s, about 1 s from now\n\n"),
    ],
)
def test_the_comment_says_what_is_awaited_and_how_long_it_usually_takes(start: Start, said: bytes) -> None:
    assert comment("chat", start, 12.0, now=100.0) == b": waiting 12 s for a group of chat to start; " + said


@given(st.none() | st.floats(0, 1e4), st.none() | st.floats(0, 1e4), st.floats(0, 1e4))
def test_who_is_sent_away_is_told_at_least_a_second_of_a_start_that_runs(
    usual: float | None, began: float | None, now: float
) -> None:
    found = Start(usual, began).retry_after_s(now)
    assert found >= (1 if began is not None else 0)
