"""A queue that coalesces, keeps passes of one deployment apart, and lets failures wait by themselves."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_operator.handlers.queue import BACKOFF_BASE_S, BACKOFF_MAX_S, Key, Queue, Urgency

A, B = Key("models", "a"), Key("models", "b")
OTHERS = [Key("others", name) for name in "xyz"]


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


async def test_edits_come_before_events_and_events_before_resyncs(queue: Queue) -> None:
    resync, event, edit = OTHERS
    queue.add(resync, Urgency.RESYNC)
    queue.add(event, Urgency.EVENT)
    queue.add(edit, Urgency.EDIT)
    assert [await queue.take() for _ in range(3)] == [edit, event, resync]


async def test_what_is_more_urgent_counts_of_two_reasons(queue: Queue) -> None:
    for urgencies in ((Urgency.RESYNC, Urgency.EDIT), (Urgency.EDIT, Urgency.RESYNC)):
        queue.add(B)
        for urgency in urgencies:
            queue.add(A, urgency)
        assert len(queue) == 2
        for key in [await queue.take(), await queue.take()]:
            queue.done(key)
        assert key == B


async def test_namespaces_take_turns(queue: Queue) -> None:
    for number in range(100):
        queue.add(Key("big", str(number)))
    for key in OTHERS:
        queue.add(key)
    taken = [await queue.take() for _ in range(6)]
    assert [key.namespace for key in taken] == ["big", "others"] * 3


async def test_a_namespace_whose_passes_all_run_holds_up_no_other(queue: Queue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A, Urgency.EDIT)
    queue.add(OTHERS[0], Urgency.RESYNC)
    assert await queue.take() == OTHERS[0]


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
        queue.add(A, Urgency.EDIT)
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
    queue.add(A, Urgency.EDIT)
    assert await queue.take() == A


async def test_an_edit_during_a_pass_that_fails_is_due_at_once(queue: Queue) -> None:
    queue.add(A)
    queue.retry(await queue.take())
    queue.add(A, Urgency.EDIT)
    key = await queue.take()
    queue.add(A, Urgency.EDIT)
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
    queue.add(A, Urgency.EDIT)
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


@contextlib.contextmanager
def a_clock() -> Any:
    """Replace the time of the running event loop; yield what moves it on."""
    loop = asyncio.get_running_loop()
    now = [loop.time()]
    original = loop.time
    loop.time = lambda: now[0]

    async def advance(seconds: float) -> None:
        now[0] += seconds
        await asyncio.sleep(0)  # timers that are due are noticed
        await asyncio.sleep(0)  # and run

    try:
        yield advance
    finally:
        loop.time = original


class Story:
    """A queue and what must hold of it: no key is lost, and none is taken twice at once."""

    def __init__(self) -> None:
        self.queue = Queue(jitter=lambda: 1.0)
        self.running: list[Key] = []
        self.owed: set[Key] = set()  # due, now or later, since they were taken last

    async def take(self) -> Key | None:
        task = asyncio.create_task(self.queue.take())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            return None
        key = await task
        assert key not in self.running, "two passes of one deployment at once"
        self.running.append(key)
        self.owed.discard(key)
        return key

    async def perform(self, action: str, key: Key, advance: Callable[[float], Any]) -> None:
        match action:
            case "edit" | "event" | "resync":
                self.queue.add(key, Urgency[action.upper()])
                self.owed.add(key)
            case "later":
                self.queue.add_later(key, 3.0)
                self.owed.add(key)
            case "take":
                await self.take()
            case "done" | "retry" if self.running:
                self.end(action, self.running.pop(0))
            case "wait":
                await advance(1.0)

    def end(self, how: str, key: Key) -> None:
        if how == "retry":
            self.queue.retry(key)
            self.owed.add(key)
        else:
            self.queue.done(key)


actions = st.sampled_from(["edit", "event", "resync", "later", "take", "take", "done", "retry", "wait"])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(actions, st.sampled_from([A, B, OTHERS[0]])), max_size=40))
def test_no_deployment_is_lost_and_none_has_two_passes_at_once(story: list[tuple[str, Key]]) -> None:
    async def tell() -> None:
        told = Story()
        with a_clock() as advance:
            for action, key in story:
                await told.perform(action, key, advance)
            for _ in range(10):
                while told.running:
                    told.end("done", told.running.pop())
                while await told.take() is not None:
                    pass
                await advance(BACKOFF_MAX_S)
        assert not told.owed

    asyncio.run(tell())


async def test_a_worker_for_edits_takes_nothing_else() -> None:
    queue = Queue()
    queue.add(Key("models", "chat"))
    waiting = asyncio.create_task(queue.take(Urgency.EDIT))
    assert await queue.take() == Key("models", "chat")
    assert not waiting.done()
    queue.add(Key("models", "edited"), Urgency.EDIT)
    assert await waiting == Key("models", "edited")


async def test_the_end_of_an_edits_pass_is_told_to_who_makes_way_for_it() -> None:
    queue = Queue()
    queue.add(Key("models", "edited"), Urgency.EDIT)
    edited = await queue.take()
    waiting = asyncio.create_task(queue.without_edits())
    queue.add(Key("models", "chat"))
    await queue.take()
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(edited)
    await waiting
