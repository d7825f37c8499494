"""What is kept, for how long, and for whom."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_worker.server.flights.replies import Event
from glm_worker.server.responses.event_log import EventLog
from glm_worker.server.responses.ids import ResponseId
from glm_worker.server.responses.store import Store, StoreLimits

BODY: dict[str, Any] = {"status": "completed", "output": []}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Making:
    """A response that is being made."""

    def __init__(self) -> None:
        self.was_read = asyncio.Event()

    def snapshot(self) -> dict[str, Any]:
        return {"status": "queued", "output": []}

    async def cancel(self) -> None:
        raise AssertionError("nobody asked")


def keep(store: Store, tenant: str = "", size: int = 10) -> ResponseId:
    """Keep a response whose input is of about so many bytes."""
    id_ = ResponseId.new("g")
    store.keep(id_, tenant, [{"id": "x", "text": "y" * size}], BODY)
    return id_


def begin(store: Store, tenant: str = "", log: EventLog | None = None) -> ResponseId:
    id_ = ResponseId.new("g")
    store.begin(id_, tenant, [], Making(), log)
    return id_


def has(store: Store, id_: ResponseId, tenant: str = "") -> bool:
    return store.find(tenant, id_.digits) is not None


def test_what_is_kept_is_found_by_its_tenant_only() -> None:
    store = Store()
    id_ = keep(store, "a")
    assert has(store, id_, "a")
    assert not has(store, id_, "b")
    assert not has(store, id_)
    assert store.drop("b", id_.digits) is None
    assert has(store, id_, "a")


def test_the_time_of_a_response_ends_without_anybody_asking() -> None:
    clock = Clock()
    store = Store(StoreLimits(ttl_s=10), clock)
    first = keep(store)
    clock.now = 9.9
    second = keep(store)
    assert has(store, first)
    clock.now = 10.0
    assert not has(store, first)
    store.sweep()
    assert len(store) == 1
    clock.now = 19.9
    store.sweep()
    assert not has(store, second)
    assert (len(store), store.num_bytes) == (0, 0)


def test_the_time_of_what_is_being_made_begins_when_it_is_complete() -> None:
    clock = Clock()
    store = Store(StoreLimits(ttl_s=10), clock)
    id_ = begin(store)
    clock.now = 100.0
    store.sweep()
    assert has(store, id_)
    store.complete(id_, BODY)
    clock.now = 109.9
    assert has(store, id_)
    clock.now = 110.0
    assert not has(store, id_)


@pytest.mark.parametrize("limits", [StoreLimits(num_responses=3), StoreLimits(num_bytes=3300)])
def test_the_oldest_makes_room(limits: StoreLimits) -> None:
    store = Store(limits)
    ids = [keep(store, size=1000) for _ in range(5)]
    assert [has(store, id_) for id_ in ids] == [False, False, True, True, True]


def test_a_tenant_that_keeps_much_makes_room_itself() -> None:
    store = Store(StoreLimits(num_responses=5))
    quiet = keep(store, "quiet")
    loud = [keep(store, "loud") for _ in range(10)]
    assert has(store, quiet, "quiet")
    assert [has(store, id_, "loud") for id_ in loud] == [False] * 6 + [True] * 4


def test_what_is_being_made_stays_whatever_comes() -> None:
    store = Store(StoreLimits(num_responses=2))
    making = [begin(store) for _ in range(3)]
    last = keep(store)
    assert all(has(store, id_) for id_ in making)
    assert not has(store, last)


def test_the_last_events_of_a_stream_come_after_it_is_counted_and_are_in_the_books() -> None:
    store, log = Store(), EventLog(tells_reasoning=True)
    id_ = begin(store, log=log)
    log.add([Event("one")])
    store.complete(id_, BODY)
    counted = store.num_bytes
    log.add([Event("the whole response once more")])
    assert store.num_bytes == counted > 0
    store.complete(id_, BODY)
    assert store.num_bytes >= counted, "a second end replaces the first"
    store.drop("", id_.digits)
    assert store.num_bytes == 0


def test_what_was_deleted_while_it_was_made_does_not_come_back() -> None:
    store = Store()
    id_ = begin(store)
    assert store.drop("", id_.digits) is not None
    store.complete(id_, BODY)
    assert len(store) == 0


@given(st.lists(st.tuples(st.sampled_from("kbcdts"), st.integers(0, 20), st.sampled_from("ab")), max_size=60))
def test_the_books_balance(steps: list[tuple[str, int, str]]) -> None:
    clock = Clock()
    limits = StoreLimits(num_responses=4, num_bytes=400, ttl_s=50)
    store = Store(limits, clock)
    known: list[tuple[ResponseId, str]] = []
    for step, number, tenant in steps:
        of = known[number % len(known)] if known else None
        match step:
            case "k":
                known.append((keep(store, tenant, size=number * 10), tenant))
            case "b":
                known.append((begin(store, tenant), tenant))
            case "c" if of is not None:
                if (kept := store.find(of[1], of[0].digits)) is not None and kept.response is None:
                    store.complete(of[0], BODY)
            case "d" if of is not None:
                store.drop(of[1], of[0].digits)
            case "t":
                clock.now += number
            case _:
                store.sweep()
        found = [kept for id_, whose in known if (kept := store.find(whose, id_.digits)) is not None]
        complete = [kept for kept in found if kept.response is not None]
        store.sweep()
        assert len(store) == len(found)
        assert store.num_bytes == sum(kept.num_bytes for kept in complete) <= limits.num_bytes
        assert len(complete) <= limits.num_responses
