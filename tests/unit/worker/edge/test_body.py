"""All bodies together have a bound; short ones never meet it, and those that stand still give way."""

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import Message

from glm_worker.errors import Overloaded, RequestRefused
from glm_worker.server.edge.body import read_body
from glm_worker.server.edge.body_room import FREE_BYTES, MOST_WAITING, STALLED_S, BodyRoom
from glm_worker.server.edge.pace import LONGEST_S, Pace
from unit.worker.server_builders import checkpoint


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """Sends what it is told to, part by part."""

    def __init__(self, room: BodyRoom, length: int = 0) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.reading = room.reading(length)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> bytes:
        with self.reading:
            return await read_body(self.sent.get, checkpoint(), self.reading)

    async def send(self, num_bytes: int, *, more: bool = True) -> None:
        self.sent.put_nowait({"type": "http.request", "body": b"x" * num_bytes, "more_body": more})
        await until(lambda: self.sent.empty())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)


async def test_the_first_bytes_of_a_body_count_for_nothing() -> None:
    room = BodyRoom(num_bytes=0)
    clients = [Client(room) for _ in range(50)]
    for client in clients:
        await client.send(FREE_BYTES, more=False)
    assert [len(await client.task) for client in clients] == [FREE_BYTES] * 50
    assert room.num_bytes == 0


async def test_long_bodies_are_taken_in_at_one_pace_and_short_ones_at_once() -> None:
    clock, rests = Clock(), list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(round(seconds, 3))

    room = BodyRoom(clock=clock, pace=Pace(2000, clock, sleep))
    short, *long = [Client(room) for _ in range(3)]
    await short.send(FREE_BYTES)
    assert rests == []
    for client in long:
        await client.send(FREE_BYTES + 100)
        await client.send(100 if client is long[0] else 50)
    assert rests == [0.05, 0.1, 0.15, 0.175], "each part waits for those that came before it, whose ever they are"
    clock.now += 10
    await long[0].send(50)
    assert rests[4:] == [0.025], "time in which nothing came is not saved up"
    for _ in range(3):
        await long[1].send(300)
    assert rests[5:] == [0.175, LONGEST_S, LONGEST_S], "no part waits for long, whatever came before it"


async def test_a_body_that_waits_for_its_pace_is_not_taken_for_one_that_stands_still() -> None:
    clock, goes_on = Clock(), asyncio.Event()

    async def sleep(_: float) -> None:
        await goes_on.wait()

    room = BodyRoom(num_bytes=1000, clock=clock, pace=Pace(1000, clock, sleep))
    first, second = Client(room), Client(room)
    await first.send(FREE_BYTES + 600)
    clock.now += STALLED_S + 1
    await second.send(FREE_BYTES + 500)
    with pytest.raises(Overloaded):
        await second.task
    goes_on.set()
    await first.send(0, more=False)
    assert len(await first.task) == FREE_BYTES + 600


async def test_what_is_thrown_away_is_paced_too() -> None:
    rests = list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    client = Client(BodyRoom(pace=Pace(sleep=sleep)))
    for _ in range(3):
        await client.send(16 * 2**20)
    assert len(rests) == 3
    await client.send(0, more=False)
    with pytest.raises(RequestRefused):
        await client.task


async def test_what_is_past_the_bound_of_all_bodies_is_told_to_come_again() -> None:
    room = BodyRoom(num_bytes=1000)
    first, second = Client(room), Client(room)
    await first.send(FREE_BYTES + 600)
    await second.send(FREE_BYTES + 500)
    with pytest.raises(Overloaded) as error:
        await second.task
    assert error.value.retry_after_s > 0
    assert room.num_bytes == 600
    await first.send(0, more=False)
    assert len(await first.task) == FREE_BYTES + 600
    assert room.num_bytes == 0


async def test_bodies_that_say_their_length_wait_for_their_turn_and_all_are_read() -> None:
    room = BodyRoom(num_bytes=1000)
    clients = [Client(room, FREE_BYTES + 600) for _ in range(5)]
    for client in clients:
        await client.send(FREE_BYTES + 600)
    for client in clients:
        await client.send(0, more=False)
    assert [len(await client.task) for client in clients] == [FREE_BYTES + 600] * 5
    assert room.num_bytes == 0


async def test_a_turn_comes_when_who_was_first_is_done_with_not_when_it_is_read() -> None:
    room = BodyRoom(num_bytes=1000)
    with room.reading(FREE_BYTES + 600) as first:
        await first.expect(FREE_BYTES + 600)
        first.grow(FREE_BYTES + 600)
        second = Client(room, FREE_BYTES + 600)
        await second.send(FREE_BYTES + 600, more=False)
        assert not second.task.done()
    assert len(await second.task) == FREE_BYTES + 600


async def test_who_has_waited_for_long_takes_what_room_there_is() -> None:
    room = BodyRoom(num_bytes=1000, wait_s=0.0)
    idle, other = Client(room, FREE_BYTES + 1000), Client(room, FREE_BYTES + 600)
    await idle.send(FREE_BYTES + 1)  # it claims all and sends little
    await other.send(FREE_BYTES + 600, more=False)
    assert len(await other.task) == FREE_BYTES + 600
    idle.task.cancel()


async def test_no_more_than_some_bodies_wait_and_the_others_are_told_at_once() -> None:
    room = BodyRoom(num_bytes=1000)
    clients = [Client(room, FREE_BYTES + 600) for _ in range(MOST_WAITING + 2)]
    await clients[0].send(FREE_BYTES + 600)
    for client in clients[1:]:
        await client.send(FREE_BYTES + 600)
    with pytest.raises(Overloaded):
        await clients[-1].task
    assert not any(client.task.done() for client in clients[:-1])
    for client in clients[:-1]:
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    assert room.num_bytes == 0


async def test_who_leaves_while_it_waits_makes_room_for_the_next() -> None:
    room = BodyRoom(num_bytes=1000)
    first, gone, last = (Client(room, FREE_BYTES + 600) for _ in range(3))
    for client in (first, gone, last):
        await client.send(FREE_BYTES + 600)
    gone.task.cancel()
    await first.send(0, more=False)
    await last.send(0, more=False)
    assert [len(await client.task) for client in (first, last)] == [FREE_BYTES + 600] * 2


async def test_who_sends_nothing_for_a_while_gives_way_to_who_sends() -> None:
    clock = Clock()
    room = BodyRoom(num_bytes=1000, clock=clock)
    slow, live = Client(room), Client(room)
    await slow.send(FREE_BYTES + 900)
    clock.now += STALLED_S + 0.1
    await live.send(FREE_BYTES + 800)
    with pytest.raises(Overloaded, match="no part of the body came"):
        await slow.task
    await live.send(0, more=False)
    assert len(await live.task) == FREE_BYTES + 800


async def test_a_body_that_has_all_come_and_waits_for_us_gives_way_to_nobody() -> None:
    clock = Clock()
    room = BodyRoom(num_bytes=1000, clock=clock)
    with room.reading() as waiting:
        waiting.grow(FREE_BYTES + 900)
        waiting.complete()
        clock.now += 100
        late = Client(room)
        await late.send(FREE_BYTES + 900)
        with pytest.raises(Overloaded):
            await late.task
        assert not waiting.gives_way
        assert room.num_bytes == 900


async def test_a_body_that_is_too_long_for_the_model_takes_no_room() -> None:
    room = BodyRoom()
    client = Client(room)
    for _ in range(64):
        await client.send(256 * 2**10)
    assert room.num_bytes == 0
    await client.send(0, more=False)
    with pytest.raises(RequestRefused):
        await client.task
