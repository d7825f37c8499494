"""Bodies are read at once or one after the other, and none behind bodies of another order of size."""

import asyncio
import contextlib
import json
import threading
from typing import Any

import pytest

from glm_worker.errors import Overloaded
from glm_worker.server.edge.lanes import HUGE_BYTES, QUICK_BYTES, SHORT_BYTES, Lanes, is_quick
from glm_worker.server.edge.memory import LARGE_BYTES, Memory

DEADLINE_S = 60.0
SCHEMA = b'{"guided_json": {}}'
LARGE = b" " * LARGE_BYTES
HUGE = b" " * (HUGE_BYTES + 1)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


async def test_a_quick_body_is_read_at_once() -> None:
    reading = asyncio.create_task(Lanes().run(json.dumps(CHAT).encode(), threading.get_ident))
    await asyncio.sleep(0)
    assert reading.done()
    assert reading.result() == threading.get_ident()


@pytest.mark.parametrize("body", [SCHEMA, LARGE, HUGE])
async def test_bodies_of_one_size_are_read_one_after_the_other(body: bytes) -> None:
    lanes, threads, order = Lanes(), set[int](), list[int]()

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        order.append(number)
        return number

    done = await asyncio.gather(*(lanes.run(body, lambda number=number: work(number)) for number in range(20)))  # type: ignore[misc]
    assert done == order == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize(("before", "body"), [(HUGE, LARGE), (LARGE, SCHEMA), (SCHEMA, LARGE)])
async def test_a_body_does_not_wait_for_one_of_another_size(before: bytes, body: bytes) -> None:
    lanes, go_on = Lanes(), threading.Event()
    first = asyncio.create_task(lanes.run(before, lambda: go_on.wait(DEADLINE_S)))
    assert await asyncio.wait_for(lanes.run(body, lambda: "read"), DEADLINE_S) == "read"
    assert not first.done()
    go_on.set()
    assert await first


async def test_what_the_work_raises_is_raised_and_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.server.edge.memory._TRIM_AFTER_S", 0.0)
    loop, trimmed = asyncio.get_running_loop(), asyncio.Event()
    lanes = Lanes(Memory(lambda: loop.call_soon_threadsafe(trimmed.set)))
    with pytest.raises(ZeroDivisionError):
        await lanes.run(LARGE, lambda: 1 // 0)
    await asyncio.wait_for(trimmed.wait(), DEADLINE_S)


@pytest.mark.parametrize(
    ("fields", "quick"),
    [
        ({}, True),
        ({"temperature": 0, "stream": True}, True),
        ({"tools": []}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"structured_outputs": {"regex": "a"}}, False),
        ({"previous_response_id": "resp_1"}, False),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, False),
        ({"unheard_of": 1}, False),
        ({"stop": "x" * QUICK_BYTES}, False),
    ],
)
def test_only_short_bodies_of_plain_fields_are_quick(fields: dict[str, Any], quick: bool) -> None:
    assert is_quick(json.dumps({**CHAT, **fields}).encode()) is quick


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "t\\u006fols": []}',
        b'{"tools": [], "model": "m"',
        b'{"model": "m", "seed": ' + b"1" * 5000 + b', "tools": []}',
        b'{"stop": ' + b"[" * 5000 + b"]" * 5000 + b', "tools": []}',
        '{"model": "m", "tools": []}'.encode("utf-16"),
        b"",
        b"\xff",
    ],
)
def test_a_body_that_hides_its_fields_is_not_quick(body: bytes) -> None:
    assert not is_quick(body)


async def test_who_leaves_before_its_turn_costs_nothing() -> None:
    lanes, begun, go_on, done = Lanes(), threading.Event(), threading.Event(), list[int]()

    def hold() -> None:
        begun.set()
        go_on.wait(10)

    body = b" " * (SHORT_BYTES + 1)
    holding = asyncio.create_task(lanes.run(body, hold))
    await asyncio.to_thread(begun.wait, 10)
    leaving = asyncio.create_task(lanes.run(body, lambda: done.append(1)))
    await asyncio.sleep(0)
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    go_on.set()
    await holding
    await lanes.run(body, lambda: done.append(2))
    assert done == [2]


async def test_more_than_may_wait_in_a_lane_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.server.edge.lanes.MOST_WAITING", 2)
    lanes, go_on = Lanes(), threading.Event()
    body = b" " * (SHORT_BYTES + 1)
    waiting = [asyncio.create_task(lanes.run(body, lambda: go_on.wait(10))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as error:
        await lanes.run(body, lambda: None)
    assert error.value.retry_after_s > 0
    go_on.set()
    await asyncio.gather(*waiting)
    await lanes.run(body, lambda: None)
