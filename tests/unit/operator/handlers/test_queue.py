"""A queue that coalesces, keeps passes of one deployment apart, and lets failures wait by themselves."""

import asyncio

import pytest

from glm_operator.handlers.queue import BACKOFF_BASE_S, BACKOFF_MAX_S, Key, Queue

A, B = Key("models", "a"), Key("models", "b")


@pytest.fixture
async def queue() -> Queue:
    return Queue(jitter=lambda: 1.0)


async def is_idle(queue: Queue) -> bool:
    """Tell whether nothing can be taken now."""
    task = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if task.done():
        return False
    task.cancel()
    return True


async def test_ten_events_are_one_pass(queue: Queue) -> None:
    for _ in range(10):
        queue.add(A)
    assert await queue.take() == A
    queue.done(A)
    assert await is_idle(queue)


async def test_keys_are_taken_in_order_of_arrival(queue: Queue) -> None:
    queue.add(B)
    queue.add(A)
    assert [await queue.take(), await queue.take()] == [B, A]


async def test_an_event_during_a_pass_brings_another_after_it(queue: Queue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert await is_idle(queue)
    queue.done(A)
    assert await queue.take() == A


async def test_a_failure_waits_longer_each_time_up_to_a_limit(queue: Queue) -> None:
    delays = []
    for _ in range(20):
        queue.add(A, urgent=True)
        delays.append(queue.retry(await queue.take()))
    assert delays[:3] == [BACKOFF_BASE_S, 2 * BACKOFF_BASE_S, 4 * BACKOFF_BASE_S]
    assert delays[-1] == BACKOFF_MAX_S


async def test_jitter_spreads_a_wait_over_its_second_half() -> None:
    queue = Queue(jitter=lambda: 0.0)
    queue.add(A)
    assert queue.retry(await queue.take()) == BACKOFF_BASE_S / 2


async def test_events_do_not_shorten_the_wait_of_a_failure(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(A)
    assert await is_idle(queue)


async def test_an_edit_does(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(A, urgent=True)
    assert await queue.take() == A


async def test_an_edit_during_a_pass_that_fails_is_due_at_once(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(A, urgent=True)
    key = await queue.take()
    queue.add(A, urgent=True)
    assert queue.retry(key) == 0.0
    assert queue.retry(await queue.take()) == 4 * BACKOFF_BASE_S, "the next one waits again"
    assert await is_idle(queue)


async def test_a_failure_does_not_hold_up_another_deployment(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(B)
    assert await queue.take() == B


async def test_a_success_forgets_the_failures_before(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(A, urgent=True)
    queue.done(await queue.take())
    queue.add(A)
    assert queue.retry(await queue.take()) == BACKOFF_BASE_S


async def test_what_is_put_off_comes_back_by_itself(queue: Queue) -> None:
    queue.add_later(A, 60)
    assert await is_idle(queue)
    queue.add_later(A, 0)
    async with asyncio.timeout(10):
        assert await queue.take() == A


async def test_of_two_times_the_earlier_counts(queue: Queue) -> None:
    queue.add_later(A, 1000)
    queue.add_later(A, 0.01)
    queue.add_later(A, 1000)
    async with asyncio.timeout(10):
        assert await queue.take() == A


async def test_a_deployment_that_is_gone_does_not_come_back(queue: Queue) -> None:
    queue.add(A)
    key = await queue.take()
    queue.add_later(A, 0.001)
    queue.forget(key)
    queue.add_later(B, 0.01)
    async with asyncio.timeout(10):
        assert await queue.take() == B
    assert len(queue) == 0
