"""A request goes to a group at once, or waits in its turn; nobody who waits is forgotten, and no place is lost."""

import asyncio
import math
from typing import Any

import pytest

from glm_edge.errors.failure import Failure
from glm_gateway.groups.directory import Directory, Member
from glm_gateway.hold.room import Bounds
from glm_gateway.ladder.ladder import Ladder, Rung
from glm_gateway.models import placement
from glm_gateway.models.model import Model, Overflow
from glm_gateway.models.only import ToGroup
from glm_gateway.models.placement import Placement
from glm_gateway.routing.arms import Split
from glm_gateway.routing.book import Load
from glm_gateway.routing.classes import Place
from glm_gateway.routing.ejection import FAILURES
from glm_gateway.routing.pick import SILENCE_S, Choice, Group, Request
from glm_gateway.routing.router import Splits
from glm_gateway.upstreams.config import UpstreamConfig
from glm_gateway.upstreams.upstream import Upstream

DEADLINE_S = 10.0


def member(name: str, *, deployment: str = "", is_ready: bool = True) -> Member:
    return Member(Group(name=name, is_ready=is_ready, deployment=deployment), "127.0.0.1", 1)


def model(*members: Member, splits: Splits | None = None, **bounds: float) -> Model:
    found = Model("chat", Directory(), splits or Splits(), bounds=Bounds(**bounds))  # type: ignore[arg-type]
    found.replace(members)
    return found


def asks(
    found: Model, priority: int = 0, sticky: str = "", tell: placement.Tell | None = None, **fields: Any
) -> Placement:
    number = next(found.numbers)
    request = Request(key=str(number), prompt_tokens=10, sticky=sticky)
    arrived_s = asyncio.get_running_loop().time()
    place = Place(fields.pop("class_priority", 0), priority, math.inf, arrived_s, number)
    return Placement(found, request, place, num_bytes=1, tell=tell, **fields)


def on(rung: Rung, *members: Member, **bounds: float) -> Model:
    """Return a model that stands on a rung, and whose groups run one request at once."""
    found = model(*members, **bounds)
    found.overload.ladder = Ladder(found.overload.ladder.steps, rung)
    for each in members:
        found.hear_running(each.group.name, 1)
    return found


def upstream() -> Upstream:
    return Upstream(UpstreamConfig(name="far", url="https://127.0.0.1:1/v1", model="m"))


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


async def test_who_comes_while_others_wait_for_an_arm_without_a_group_goes_to_the_other_arm_at_once() -> None:
    splits = Splits(deployments=Split(name="ab", weights={"a": 1.0, "b": 1.0}, may_fall=False))
    found = on(Rung.SHED, member("g0", deployment="a"), member("g1", deployment="b", is_ready=False), max_held=8)
    found.router.splits = splits
    keys = [str(number) for number in range(16)]
    on_b = [key for key in keys if found.route(Request(key=key, prompt_tokens=1, sticky=key)) is None]
    assert 0 < len(on_b) < 16
    found = on(Rung.SHED, member("g0", deployment="a"), member("g1", deployment="b", is_ready=False), max_held=8)
    found.router.splits = splits
    waiting = asyncio.create_task(placed(asks(found, sticky=on_b[0])))
    await settle(found, 1)
    choice = await placed(asks(found, sticky=next(key for key in keys if key not in on_b)))
    assert choice.group == "g0"
    found.end(choice)
    waiting.cancel()
    await asyncio.wait([waiting])
    check(found)


async def test_who_waits_for_a_group_that_failed_is_placed_once_it_may_be_tried_though_nobody_else_comes() -> None:
    split = Splits(deployments=Split(name="ab", weights={"a": 1}, may_fall=False))
    found = model(member("a-g0", deployment="a"), member("b-g0", deployment="b"), splits=split)
    for _ in range(FAILURES):
        choice = await placed(asks(found))
        found.router.fail(choice, asyncio.get_running_loop().time())
        found.end(choice)
    waiting = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    async with asyncio.timeout(DEADLINE_S):
        assert (await waiting).group == "a-g0"


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


async def test_in_turn_a_full_group_gets_nothing_though_it_knows_the_prompt_best() -> None:
    found = on(Rung.IN_TURN, member("g0"), member("g1"))
    first, second = await placed(asks(found)), await placed(asks(found))
    assert {first.group, second.group} == {"g0", "g1"}
    third = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    found.end(first)
    assert (await third).group == first.group
    found.end(second)
    found.end(await third)
    check(found)


async def test_in_turn_a_group_where_others_wait_gets_nothing_until_they_do_not() -> None:
    found = on(Rung.IN_TURN, member("g0"))
    now = asyncio.get_running_loop().time()
    found.hear("g0", Load(oldest_wait_s=2.0), now)
    waiting = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    found.hear("g0", Load(oldest_wait_s=0.0), now)
    found.end(await waiting)
    found.hear("g0", Load(oldest_wait_s=2.0), now - SILENCE_S - 1)  # a word of long ago holds nobody up
    found.end(await placed(asks(found)))
    check(found)


async def test_on_the_last_rung_the_line_grows_no_longer_and_the_lowest_gives_way() -> None:
    found = on(Rung.SHED, member("g0"))
    running = await placed(asks(found))
    low = asyncio.create_task(asks(found, class_priority=5).place(frozenset()))
    await settle(found, 1)
    equal = await asks(found, class_priority=5).place(frozenset())
    assert isinstance(equal, Failure)
    assert (equal.status, equal.code, equal.retry_after_s) == (503, "overloaded", 30)
    high = asyncio.create_task(placed(asks(found, class_priority=1)))
    shed = await low
    assert isinstance(shed, Failure)
    assert shed.code == "overloaded"
    assert len(found.room) == 1
    assert found.overload.num_shed == {"default": 2}
    found.end(running)
    found.end(await high)
    check(found)


async def test_nobody_is_shed_whose_reply_has_begun() -> None:
    found = on(Rung.SHED, member("g0"))
    begun = asks(found, class_priority=5)
    choice = await placed(begun)
    begun.succeed(choice, 10)
    begun.end(choice)
    running = await placed(asks(found))
    goes_on = asyncio.create_task(placed(begun))
    await settle(found, 1)
    high = asyncio.create_task(placed(asks(found, class_priority=1)))
    await settle(found, 2)
    found.end(running)
    found.end(await high)
    found.end(await goes_on)
    check(found)


async def test_on_the_last_rung_who_can_be_answered_at_once_is() -> None:
    found = on(Rung.SHED, member("g0"))
    found.end(await placed(asks(found)))
    check(found)


async def test_nobody_is_shed_while_groups_start() -> None:
    found = on(Rung.SHED, member("g0", is_ready=False))
    waiting = [asyncio.create_task(placed(asks(found))) for _ in range(2)]
    await settle(found, 2)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    check(found)


async def test_what_is_eased_stays_so_for_all_tries_of_a_request() -> None:
    found = on(Rung.NO_THOUGHTS, member("g0"))
    request = asks(found)
    found.end(await placed(request))
    assert dict(request.easing.for_worker) == {b"x-glm-max-thinking": b"512", b"x-glm-auto-thinking": b"off"}
    found.overload.ladder.rung = Rung.NONE
    found.end(await placed(request))
    assert dict(request.easing.for_client) == {b"x-glm-overload": b"no-thoughts"}
    assert asks(found).easing.for_client == ()
    found.overload.ladder.rung = Rung.NO_THOUGHTS
    assert asks(found, writes=False).easing.for_worker == ()


async def test_the_first_token_ends_a_wait_and_a_plain_reply_does_at_its_head() -> None:
    found = model(member("g0"))
    framed, plain, gone = (asks(found, promise_s=1.0) for _ in range(3))
    choices = [await placed(each) for each in (framed, plain, gone)]
    framed.succeed(choices[0], 10)
    assert len(found.overload._pending) == 3  # opened is not begun
    owed = found.router.book.account("g0").owed
    framed.grow(choices[0], 1)
    assert found.router.book.account("g0").owed == owed - 10, "and is owed until then"
    plain.succeed(choices[1], None)
    gone.close()
    assert not found.overload._pending
    for choice in choices:
        found.end(choice)
    assert found.overload.throughput.mean_tokens == (11 + 10 + 10) / 3
    check(found)


async def test_who_waits_too_long_goes_outside_once() -> None:
    found = model()
    found.overflow = Overflow(upstream(), after_s=0.01)
    request = asks(found, may_go_outside=True)
    assert await request.place(frozenset()) is found.overflow.upstream
    again = asyncio.create_task(placed(request))
    await settle(found, 1)
    found.replace([member("g0")])
    found.end(await again)
    check(found)


async def test_who_cannot_be_answered_outside_or_would_be_in_vain_goes_on_waiting() -> None:
    found = model(timeout_s=0.05)
    found.overflow = Overflow(upstream(), after_s=0.01)
    stays = await asks(found).place(frozenset())
    for _ in range(3):
        found.overflow.upstream.fail("it is gone")
    in_vain = await asks(found, may_go_outside=True).place(frozenset())
    for each in (stays, in_vain):
        assert isinstance(each, Failure)
        assert each.code == "no_group_ready"
    check(found)


async def test_who_would_be_shed_or_finds_no_place_goes_outside_at_once() -> None:
    shedding = on(Rung.SHED, member("g0"))
    shedding.overflow = Overflow(upstream(), after_s=60.0)
    running = await placed(asks(shedding))
    waiting = asyncio.create_task(placed(asks(shedding)))
    await settle(shedding, 1)
    assert await asks(shedding, may_go_outside=True).place(frozenset()) is shedding.overflow.upstream
    assert not shedding.overload.num_shed
    shedding.end(running)
    shedding.end(await waiting)
    full = model(max_held=0)
    full.overflow = shedding.overflow
    assert await asks(full, may_go_outside=True).place(frozenset()) is full.overflow.upstream


async def test_a_request_waits_no_longer_than_its_own_deadline() -> None:
    found = model()
    failure = await asks(found, deadline_s=0.01).place(frozenset())
    assert isinstance(failure, Failure)
    assert (failure.status, failure.code) == (504, "deadline_passed")
    check(found)


async def test_who_waits_in_turn_is_told_how_many_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "FIRST_TOLD_S", 0.01)
    told: asyncio.Queue[bytes] = asyncio.Queue()
    found = on(Rung.IN_TURN, member("g0"))
    running = await placed(asks(found))
    before = asyncio.create_task(placed(asks(found)))
    await settle(found, 1)
    waiting = asyncio.create_task(placed(asks(found, tell=told.put)))
    async with asyncio.timeout(DEADLINE_S):
        assert await told.get() == b": waiting 0 s for a turn at chat; requests that go first: 1\n\n"
    found.end(running)
    found.end(await before)
    found.end(await waiting)
    check(found)


async def test_a_start_is_told_from_what_starts_took_and_since_when_it_is_under_way() -> None:
    found = model()
    assert found.retry_after_s == 60
    found.hear_start(300.0)
    assert found.retry_after_s == 300
    found.replace([member("g0", is_ready=False)])
    began = found.start.began
    assert began is not None
    found.replace([member("g0", is_ready=False), member("g1", is_ready=False)])
    assert found.start.began == began
    found.replace([member("g0")])
    assert found.start.began is None
    found.replace([])
    assert (found.start.usual_s, found.start.began) == (300.0, None)
