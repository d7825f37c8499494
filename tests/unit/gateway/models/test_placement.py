"""A request goes to a group at once, or waits in its turn; nobody who waits is forgotten, and no place is lost."""

import asyncio
import math

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Bounds
from glm_gateway.models import placement
from glm_gateway.models.model import Model
from glm_gateway.models.only import ToGroup
from glm_gateway.models.placement import Placement
from glm_gateway.routing.arms import Split
from glm_gateway.routing.classes import Place
from glm_gateway.routing.pick import Choice, Group, Request
from glm_gateway.routing.router import Splits

DEADLINE_S = 10.0


def member(name: str, *, deployment: str = "", is_ready: bool = True) -> Member:
    return Member(Group(name=name, is_ready=is_ready, deployment=deployment), "127.0.0.1", 1)


def model(*members: Member, splits: Splits | None = None, **bounds: float) -> Model:
    found = Model("chat", Directory(), splits or Splits(), bounds=Bounds(**bounds))  # type: ignore[arg-type]
    found.replace(members)
    return found


def asks(found: Model, priority: int = 0, sticky: str = "", tell: placement.Tell | None = None) -> Placement:
    number = next(found.numbers)
    request = Request(key=str(number), prompt_tokens=10, sticky=sticky)
    return Placement(found, request, Place(0, priority, math.inf, 0.0, number), num_bytes=1, tell=tell)


async def placed(found: Placement) -> Choice:
    async with asyncio.timeout(DEADLINE_S):
        choice = await found.place(frozenset())
    assert isinstance(choice, Choice), choice
    return choice


async def settle(found: Model, num_waiting: int) -> None:
    for _ in range(50):  # nothing here waits for anything but its turn in the loop
        await asyncio.sleep(0)
    assert len(found.room) == num_waiting


def check(found: Model) -> None:
    found.router.book.check()
    assert not found.room
    assert not found._calls
    assert found.router.book.num_charges == sum(found._num_running.values())


async def test_a_request_goes_to_a_ready_group_at_once() -> None:
    found = model(member("g0"))
    choice = await placed(asks(found))
    assert choice.group == "g0"
    found.end(choice)
    check(found)


async def test_requests_wait_for_a_group_and_go_by_priority_as_many_as_it_runs() -> None:
    found = model()
    waiting = [asyncio.create_task(placed(asks(found, priority))) for priority in (5, 1, 3)]
    await settle(found, 3)
    assert found.demand.num_held == 3
    found._max_running["g0"] = 2
    found.replace([member("g0")])
    await settle(found, 1)
    first = [await task for task in (waiting[1], waiting[2])]
    assert not waiting[0].done()
    found.end(first[0])
    found.end(first[1])
    found.end(await waiting[0])
    check(found)


async def test_a_newcomer_goes_behind_those_that_wait() -> None:
    found = model()
    early = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    late = asyncio.create_task(placed(asks(found)))
    await settle(found, 2)
    found._max_running["g0"] = 1
    found.replace([member("g0")])
    choice = await early
    assert not late.done()
    found.end(choice)
    found.end(await late)
    check(found)


async def test_in_turn_no_group_gets_more_than_it_runs() -> None:
    found = model(member("g0"))
    found.in_turn = True
    found.hear_running("g0", 1)
    first = await placed(asks(found))
    second = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    found.end(first)
    found.end(await second)
    check(found)


async def test_who_waits_for_an_arm_without_a_group_holds_nobody_up() -> None:
    splits = Splits(deployments=Split(name="ab", weights={"a": 1.0, "b": 1.0}, may_fall=False))
    found = model(splits=splits)
    waiting = {key: asyncio.create_task(placed(asks(found, sticky=key))) for key in map(str, range(8))}
    await settle(found, 8)
    found.replace([member("g0", deployment="a")])
    num_on_b = len(found.room)
    assert 0 < num_on_b < 8
    found.replace([member("g0", deployment="a"), member("g1", deployment="b")])
    choices = [await task for task in waiting.values()]
    assert sum(choice.group == "g1" for choice in choices) == num_on_b
    for choice in choices:
        found.end(choice)
    check(found)


async def test_who_has_waited_too_long_is_told_when_to_come_again() -> None:
    found = model(timeout_s=0.01)
    failure = await asks(found).place(frozenset())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code, failure.retry_after_s) == (503, "no_group_ready", 60)
    check(found)


async def test_a_full_room_turns_away_at_once() -> None:
    found = model(max_held=1)
    first = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    assert isinstance(await asks(found).place(frozenset()), Failure)
    first.cancel()
    await asyncio.wait([first])
    check(found)


@pytest.mark.parametrize("is_placed", [False, True])
async def test_a_client_that_goes_away_leaves_no_place_taken(is_placed: bool) -> None:
    found = model()
    waiting = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    if is_placed:  # at the very moment
        found.replace([member("g0")])
    waiting.cancel()
    await asyncio.wait([waiting])
    check(found)
    assert found.router.book.num_charges == 0


async def test_a_stream_that_waits_is_told_for_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "FIRST_TOLD_S", 0.01)
    monkeypatch.setattr(placement, "TOLD_S", 0.01)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    found = model()
    waiting = asyncio.create_task(placed(asks(found, tell=told.put)))
    async with asyncio.timeout(DEADLINE_S):
        assert (await told.get()).startswith(b": waiting 0 s for a group of chat to start")
        await told.get()
    found.replace([member("g0")])
    found.end(await waiting)
    check(found)


async def test_what_a_group_keeps_is_lost_with_the_group_and_not_because_it_was_busy() -> None:
    found = model(member("g0", is_ready=False))
    keeper = ToGroup(found, "g0")
    for avoid in (frozenset(), frozenset({"g0"})):
        choice = await keeper.place(avoid)
        assert isinstance(choice, Choice)
        keeper.end(choice)
    found.replace([])
    failure = await keeper.place(frozenset())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (404, "group_lost")
    check(found)


async def test_a_group_that_is_gone_is_forgotten_and_its_charges_are_released_by_their_requests() -> None:
    found = model(member("g0"), member("g1"))
    choice = await placed(asks(found))
    found.replace([member("g1" if choice.group == "g0" else "g0")])
    found.end(choice)
    check(found)
