"""Bodies are read at once or one after the other, and none behind bodies of another order of size."""

import asyncio
import json
import threading
from typing import Any

import pytest

from glm_worker.server.edge.lanes import HUGE_BYTES, QUICK_BYTES, Lanes, is_quick
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
