"""Laws of the line before a model's groups, over any order of requests that come, end and go away."""

import asyncio
import math
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from glm_edge.errors.failure import Failure
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Bounds
from glm_gateway.ladder.ladder import Ladder, Rung
from glm_gateway.models.model import Model
from glm_gateway.models.placement import Placement
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import Choice, Group, Request

MOST = Bounds(max_held=6, max_bytes=20, timeout_s=600.0)
RUNNING = {"g0": 1, "g1": 2}

come = st.tuples(st.just("come"), st.integers(0, 3), st.integers(1, 6))
step = st.one_of(
    *[come] * 4,  # most of what happens
    st.tuples(st.just("end"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("leave"), st.integers(0, 50), st.just(0)),
    st.tuples(st.just("groups"), st.integers(0, 2), st.just(0)),
)


@dataclass
class World:
    model: Model
    waiting: list[tuple[int, asyncio.Task[object]]] = field(default_factory=list)  # by class
    running: list[Choice] = field(default_factory=list)
    num_refused: int = 0

    def groups(self, number: int) -> None:
        """Let so many groups be there."""
        for name, most in RUNNING.items():
            self.model.hear_running(name, most)
        self.model.replace([Member(Group(name=name), "127.0.0.1", 1) for name in list(RUNNING)[:number]])

    def come(self, class_priority: int, num_bytes: int) -> None:
        number = next(self.model.numbers)
        request = Request(key=str(number), prompt_tokens=10)
        place = Place(class_priority, 0, math.inf, float(number), number)
        placement = Placement(self.model, request, place, num_bytes=num_bytes)
        self.waiting.append((class_priority, asyncio.create_task(placement.place(frozenset()))))

    def end(self, index: int) -> None:
        if self.running:
            self.model.end(self.running.pop(index % len(self.running)))

    def leave(self, index: int) -> None:
        if self.waiting:
            self.waiting[index % len(self.waiting)][1].cancel()

    async def settle(self) -> None:
        """Let everything happen that happens by itself, and take what came of it."""
        for _ in range(6):
            await asyncio.sleep(0)
        still = []
        refused = []
        for class_priority, task in self.waiting:
            if not task.done():
                still.append((class_priority, task))
            elif not task.cancelled():
                found = task.result()
                if isinstance(found, Choice):
                    self.running.append(found)
                else:
                    assert isinstance(found, Failure)
                    assert found.status == 503
                    refused.append(class_priority)
        self.waiting = still
        self.num_refused += len(refused)
        if self.model.overload.rung is Rung.SHED and self.model.is_ready:
            for each in refused:
                assert all(other <= each for other, _ in still), "somebody of a higher priority was shed before"

    def check(self) -> None:
        model = self.model
        room = [ticket.place for ticket in model.room]
        assert room == sorted(room)
        assert len(room) == len(self.waiting) <= MOST.max_held
        assert sum(ticket.num_bytes for ticket in model.room) <= MOST.max_bytes
        counts = Counter(choice.group for choice in self.running)
        assert model.in_flight == counts
        assert all(counts[name] <= most for name, most in RUNNING.items()), "a group has more than it runs at once"
        if room:
            able = [group.name for group in model.directory.groups]
            assert all(counts[name] == RUNNING[name] for name in able), "somebody waits though there is room"
        model.router.book.check()


async def play(rung: Rung, steps: list[tuple[str, int, int]]) -> int:
    """Play the steps on a rung, and return how many were refused."""
    model = Model("chat", Directory(), bounds=MOST)
    world = World(model)
    model.overload.ladder = Ladder(model.overload.ladder.steps, rung)
    for what, number, more in steps:
        if what == "come":
            world.come(number, more)
        elif what == "groups":
            world.groups(number)
        else:
            getattr(world, what)(number)
        await world.settle()
        world.check()
    for _, task in world.waiting:
        task.cancel()
    await world.settle()
    while world.running:
        world.end(0)
        await world.settle()
    world.check()
    assert not model.room
    assert not model._calls
    assert model.router.book.num_charges == 0
    return world.num_refused


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([Rung.IN_TURN, Rung.SHED]), st.lists(step, min_size=5, max_size=40))
def test_groups_are_never_overfull_and_the_line_is_kept(rung: Rung, steps: list[tuple[str, int, int]]) -> None:
    asyncio.run(play(rung, [("groups", 1, 0), *steps]))


def test_somebody_is_refused_at_all() -> None:
    """The law above would hold of nothing."""
    steps = [("come", priority, 1) for priority in (2, 1, 2, 1, 0, 3)]
    assert asyncio.run(play(Rung.SHED, [("groups", 1, 0), *steps])) == 4
