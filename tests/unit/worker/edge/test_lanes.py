"""Large bodies are read one after the other, but not behind bodies of megabytes."""

import asyncio
import threading

import pytest

from glm_worker.server.edge.lanes import HUGE_BYTES, Lanes
from glm_worker.server.edge.memory import LARGE_BYTES, Memory

DEADLINE_S = 60.0


@pytest.mark.parametrize("num_bytes", [LARGE_BYTES, HUGE_BYTES + 1])
async def test_bodies_of_one_size_are_read_one_after_the_other(num_bytes: int) -> None:
    lanes, threads, order = Lanes(), set[int](), list[int]()

    def work(number: int) -> int:
        threads.add(threading.get_ident())
        order.append(number)
        return number

    done = await asyncio.gather(*(lanes.run(lambda number=number: work(number), num_bytes) for number in range(20)))
    assert done == order == list(range(20))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


async def test_a_large_body_does_not_wait_for_a_huge_one() -> None:
    lanes, go_on = Lanes(), threading.Event()
    huge = asyncio.create_task(lanes.run(lambda: go_on.wait(DEADLINE_S), HUGE_BYTES + 1))
    assert await asyncio.wait_for(lanes.run(lambda: "read", HUGE_BYTES), DEADLINE_S) == "read"
    assert not huge.done()
    go_on.set()
    assert await huge


async def test_what_the_work_raises_is_raised_and_its_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.server.edge.memory._TRIM_AFTER_S", 0.0)
    loop, trimmed = asyncio.get_running_loop(), asyncio.Event()
    lanes = Lanes(Memory(lambda: loop.call_soon_threadsafe(trimmed.set)))
    with pytest.raises(ZeroDivisionError):
        await lanes.run(lambda: 1 // 0, LARGE_BYTES)
    await asyncio.wait_for(trimmed.wait(), DEADLINE_S)
