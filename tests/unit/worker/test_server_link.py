"""Rank 0 and the servers that it meets in one generation: of one that was replaced nothing is obeyed."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq

from glm_worker.assignment import endpoint_of
from glm_worker.engine.server_link import ServerLink
from glm_worker.heartbeat import RankSlot, create_slots
from glm_worker.messages import (
    Cancel,
    EngineLimits,
    EngineReady,
    FromEngine,
    RequestOutput,
    StepBegins,
    StepDone,
    Submit,
)
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence

LIMIT_S = 20.0
READY = EngineReady(
    generation="g-1", limits=EngineLimits(max_model_len=64, num_blocks=4, block_size=16), load_seconds=3.0
)


class Rank:
    """Rank 0 of a generation, and the servers that come and go before it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        create_slots(folder / "slots", 1)
        self.slot = RankSlot.open(folder / "slots", 0)
        self.endpoint = f"ipc://{folder}/engine"
        self._stack = stack
        self.link = ServerLink(self.endpoint, "g-1", self.slot)
        self.link.send(READY)

    def server(self, number: int) -> "zmq.Socket[bytes]":
        """Start a server, of which the supervisor has told in the slot or will."""
        bound = self._stack.enter_context(zmq.Context.instance().socket(zmq.PAIR))
        bound.setsockopt(zmq.LINGER, 0)
        bound.setsockopt(zmq.RCVTIMEO, int(LIMIT_S * 1000))
        bound.bind(endpoint_of(self.endpoint, number))
        return bound


@pytest.fixture
def rank(tmp_path: Path) -> Iterator[Rank]:
    with ExitStack() as stack:
        rank = Rank(tmp_path, stack)
        yield rank
        rank.link.close()


def submitted(name: str) -> bytes:
    request = EngineRequest(request_id=name, prompt_token_ids=[1, 2], max_tokens=3, stop_token_ids=[])
    return msgspec.msgpack.encode(Submit("g-1", request))


def done(*outputs: RequestOutput, num_preemptions: int = 0) -> StepDone:
    return StepDone(
        generation="g-1",
        outputs=list(outputs),
        step=1,
        began_s=0.0,
        num_running=0,
        num_waiting=0,
        num_tokens_waiting=0,
        kv_blocks_used=0,
        num_preemptions=num_preemptions,
    )


def heard(server: "zmq.Socket[bytes]") -> FromEngine:
    message: FromEngine = msgspec.msgpack.decode(server.recv(), type=FromEngine)
    return message


def test_a_server_that_comes_after_another_is_told_what_the_generation_can_do(rank: Rank) -> None:
    assert heard(rank.server(0)) == READY
    rank.slot.meet(1)
    assert rank.link.receive(0) == []
    assert heard(rank.server(1)) == READY


def test_a_rank_that_waits_for_commands_meets_another_server_meanwhile(rank: Rank) -> None:
    assert heard(rank.server(0)) == READY
    threading.Timer(0.2, rank.slot.meet, [1]).start()
    began_s = time.monotonic()
    assert rank.link.receive(LIMIT_S) == []
    assert time.monotonic() - began_s < LIMIT_S / 2
    assert heard(rank.server(1)) == READY


def test_what_a_replaced_server_had_asked_for_is_cancelled_but_what_has_ended(rank: Rank) -> None:
    server = rank.server(0)
    for name in ("a", "b", "c"):
        server.send(submitted(name))
    commands = rank.link.receive(LIMIT_S)
    while len(commands) < 3:
        commands += rank.link.receive(LIMIT_S)
    rank.link.send(done(RequestOutput("b", [5], "stop"), RequestOutput("c", [5])))
    rank.slot.meet(1)
    assert rank.link.receive(0) == [Cancel("g-1", "a"), Cancel("g-1", "c")]


def test_nothing_of_a_replaced_server_is_obeyed(rank: Rank) -> None:
    old = rank.server(0)
    assert heard(old) == READY
    rank.slot.meet(1)
    old.send(submitted("late"))
    assert rank.link.receive(0) == []
    new = rank.server(1)
    assert heard(new) == READY
    new.send(submitted("fresh"))
    (command,) = rank.link.receive(LIMIT_S)
    assert isinstance(command, Submit)
    assert command.request.request_id == "fresh"


def test_a_step_says_whom_it_computes_where_these_are_others_than_before(rank: Rank) -> None:
    server = rank.server(0)
    steps = [
        a_step("a", "b", first=("a", "b")),
        a_step("a", "b"),
        a_step("a", preempted=("b",)),
        a_step("a"),
        a_step("a", "b"),
        a_step("a", "b"),
    ]
    for step in steps:
        rank.link.begin(step)
    rank.link.send(done())
    said = [heard(server) for _ in range(5)]
    assert said == [
        READY,
        StepBegins("g-1", ["a", "b"], []),
        StepBegins("g-1", [], ["b"]),
        StepBegins("g-1", ["b"], []),
        done(),
    ]


def a_step(*names: str, first: tuple[str, ...] = (), preempted: tuple[str, ...] = ()) -> ScheduledBatch:
    sequences = tuple(
        ScheduledSequence(
            request_id=name, start=0, token_ids=[1], block_table=[0], is_sampled=True, sampling=SamplingParams()
        )
        for name in names
    )
    return ScheduledBatch(step=1, sequences=sequences, first_scheduled=first, preempted=preempted)


def test_what_is_sent_before_the_next_server_is_there_reaches_it_in_order(rank: Rank) -> None:
    rank.slot.meet(3)
    rank.link.receive(0)
    rank.link.send(done(num_preemptions=0))
    server = rank.server(3)
    assert heard(server) == READY
    assert isinstance(heard(server), StepDone)


def test_a_server_counts_no_preemption_that_another_has_counted(rank: Rank) -> None:
    first = rank.server(0)
    rank.link.send(done(num_preemptions=5))
    assert [heard(first), heard(first)] == [READY, done(num_preemptions=5)]
    rank.slot.meet(1)
    rank.link.receive(0)
    second = rank.server(1)
    rank.link.send(done(num_preemptions=7))
    assert [heard(second), heard(second)] == [READY, done(num_preemptions=2)]
