"""The load of a group as its supervisor tells it: nothing without a listener, never a zero for what is not known."""

import asyncio
import contextlib

import msgspec
import pytest

from glm_worker.messages import LoadChanged
from glm_worker.server.load import LoadTeller
from glm_worker.server.metrics.prefill_speed import HORIZON_S, PrefillSpeed
from glm_worker.supervisor.management import load as board_module
from glm_worker.supervisor.management.load import AGAIN_S, LOOK_S, MAX_LISTENERS, Line, LoadBoard, line_of
from glm_worker.supervisor.management.load_stream import LoadStream

DEADLINE_S = 30.0
LOAD = LoadChanged(
    in_flight_tokens=7,
    tokens_to_prefill=3,
    oldest_waiting_s=0.5,
    max_running=4,
    max_model_len=2048,
    num_waiting=1,
    num_running=None,
    kv_usage=None,
    kv_tokens=None,
    prefill_tokens_per_s=None,
    fingerprint="f",
    model="m",
)


def a_line(tokens: int | None = None) -> Line:
    return Line(ready=True, leaving=False, incarnation="i-1", in_flight_tokens=tokens)


class Group:
    """What a board looks at."""

    def __init__(self) -> None:
        self.line = a_line(1)
        self.num_looks = 0
        self.watched: list[bool] = []
        self.board = LoadBoard(self.look, self.watched.append)

    def look(self) -> Line:
        self.num_looks += 1
        return self.line


def test_what_the_server_says_is_in_the_line_and_what_it_does_not_know_is_null() -> None:
    line = line_of(LOAD, ready=True, leaving=False, incarnation="i-1", revision="r", start_s=None)
    said = msgspec.to_builtins(line)
    assert (said["in_flight_tokens"], said["tokens_to_prefill"], said["revision"]) == (7, 3, "r")
    unknown = {name for name, value in said.items() if value is None}
    assert unknown == {"num_running", "kv_usage", "kv_tokens", "prefill_tokens_per_s", "start_s"}


def test_without_a_server_all_that_it_would_know_is_null() -> None:
    said = msgspec.to_builtins(
        line_of(None, ready=False, leaving=True, incarnation="i-1", revision="", start_s=12.34567)
    )
    known = {name: value for name, value in said.items() if value is not None}
    assert known == {"ready": False, "leaving": True, "incarnation": "i-1", "start_s": 12.346}


async def test_nobody_looks_while_nobody_listens_and_the_server_is_told_of_the_first_and_the_last() -> None:
    group = Group()
    async with asyncio.timeout(DEADLINE_S):
        async with group.board.listen() as first, group.board.listen() as second:
            assert first is not None
            assert second is not None
            assert await anext(first) == await anext(second)
            assert group.watched == [True]
        assert group.watched == [True, False]
        assert not group.board.is_watched
        num_looks = group.num_looks
        async with group.board.listen() as lines:
            assert lines is not None
            await anext(lines)
    assert group.num_looks == num_looks + 1
    assert group.watched == [True, False, True, False]


async def test_a_line_comes_at_once_then_each_second_and_a_change_sooner() -> None:
    group, clock = Group(), asyncio.get_running_loop().time
    async with asyncio.timeout(DEADLINE_S), group.board.listen() as lines:
        assert lines is not None
        began = clock()
        first = await anext(lines)
        assert await anext(lines) == first
        assert clock() - began >= AGAIN_S
        group.line = a_line(2)
        assert msgspec.json.decode(await anext(lines))["in_flight_tokens"] == 2


async def test_changes_are_told_ten_times_a_second_at_most() -> None:
    group, clock = Group(), asyncio.get_running_loop().time
    seen = iter(range(10**9))
    group.board = LoadBoard(lambda: a_line(next(seen)), group.watched.append)
    async with asyncio.timeout(DEADLINE_S), group.board.listen() as lines:
        assert lines is not None
        began, told = clock(), []
        async for line in lines:
            told.append(msgspec.json.decode(line)["in_flight_tokens"])
            if len(told) == 6:
                break
        assert told == list(range(6))
        assert clock() - began >= 5 * LOOK_S * 0.99


async def test_who_hurries_is_told_before_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_module, "LOOK_S", 3600.0)
    group = Group()
    async with asyncio.timeout(DEADLINE_S), group.board.listen() as lines:
        assert lines is not None
        assert await anext(lines) == msgspec.json.encode(a_line(1)) + b"\n"
        for tokens in (2, 3):
            group.line = a_line(tokens)
            group.board.hurry()
            assert await anext(lines) == msgspec.json.encode(a_line(tokens)) + b"\n"


async def test_who_reads_slowly_gets_the_newest_line_and_no_more_than_that_is_kept() -> None:
    group = Group()
    async with asyncio.timeout(DEADLINE_S), group.board.listen() as fast, group.board.listen() as slow:
        assert fast is not None
        assert slow is not None
        await anext(fast)
        await anext(slow)
        for tokens in (2, 3, 4):
            group.line = a_line(tokens)
            await anext(fast)
        assert msgspec.json.decode(await anext(slow))["in_flight_tokens"] == 4


async def test_too_many_listeners_are_refused_and_a_place_that_is_left_is_given_again() -> None:
    group = Group()
    async with contextlib.AsyncExitStack() as stack:
        listening = [await stack.enter_async_context(group.board.listen()) for _ in range(MAX_LISTENERS)]
        assert all(lines is not None for lines in listening)
        async with group.board.listen() as more:
            assert more is None
    async with group.board.listen() as lines:
        assert lines is not None


async def test_closing_ends_all_streams_and_begins_no_other() -> None:
    group = Group()
    async with asyncio.timeout(DEADLINE_S):
        async with group.board.listen() as lines:
            assert lines is not None
            await anext(lines)
            group.board.close()
            assert [line async for line in lines] == []
        async with group.board.listen() as lines:
            assert lines is None


async def test_a_listener_that_does_not_read_is_dropped_and_its_place_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glm_worker.supervisor.management.load_stream.WRITE_LIMIT_S", 0.05)
    group = Group()

    async def send(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> object:
        return await asyncio.Event().wait()

    async with asyncio.timeout(DEADLINE_S):
        await LoadStream(lambda: group.board)({"type": "http"}, receive, send)  # type: ignore[arg-type]
    assert not group.board.is_watched


async def test_a_server_tells_a_change_and_says_the_same_again_only_after_a_while() -> None:
    told: asyncio.Queue[LoadChanged] = asyncio.Queue()
    now = LOAD
    teller, clock = LoadTeller(lambda: now, told.put), asyncio.get_running_loop().time
    teller.watch(is_on=True)
    teller.watch(is_on=True)
    try:
        async with asyncio.timeout(DEADLINE_S):
            began = clock()
            assert await told.get() == await told.get() == LOAD
            assert clock() - began >= board_module.AGAIN_S - 0.01
            now = msgspec.structs.replace(LOAD, in_flight_tokens=8)
            assert (await told.get()).in_flight_tokens == 8
    finally:
        teller.watch(is_on=False)
    assert told.empty()


def test_the_speed_of_prompts_does_not_age_while_none_are_computed() -> None:
    speed = PrefillSpeed()
    assert speed.tokens_per_s is None
    speed.add(0, 0.5)  # a step of answers
    assert speed.tokens_per_s is None
    speed.add(1000, 0.5)
    assert speed.tokens_per_s == 2000
    for _ in range(1000):
        speed.add(0, 0.0)
    assert speed.tokens_per_s == 2000


def test_the_speed_of_prompts_follows_what_is_measured_now() -> None:
    speed = PrefillSpeed()
    for _ in range(100):
        speed.add(400, 0.1)
    for _ in range(round(5 * HORIZON_S / 0.1)):
        speed.add(100, 0.1)
    assert speed.tokens_per_s == pytest.approx(1000, rel=0.05)
