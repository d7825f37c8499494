"""Ranks without torch for the tests of the supervisor: real processes, real collectives over TCP, no model.

Each function is a rank target: run_rank(settings, assignment, slot). Rank 0 says EngineReady to the server as the real
one does. A collective here is a gather to rank 0 and an answer to all.
"""

import itertools
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from glm_worker.assignment import RankAssignment
from glm_worker.engine.server_link import ServerLink
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.heartbeat import RankSlot
from glm_worker.messages import EngineLimits, EngineReady, RequestOutput, StepDone, Submit
from glm_worker.settings import WorkerSettings

_CONNECT_LIMIT_S = 60.0
_TOKEN = 100  # any that is text


class Ring:
    """The connections of one rank: rank 0 holds one to each other rank, the others one to rank 0."""

    def __init__(self, assignment: RankAssignment, slot: RankSlot) -> None:
        self._slot = slot
        self._is_root = assignment.rank == 0
        address = (assignment.leader_host, assignment.store_port)
        if self._is_root:
            with socket.create_server(address) as server:
                server.settimeout(_CONNECT_LIMIT_S)
                self._peers = [server.accept()[0] for _ in range(assignment.world_size - 1)]
        else:
            self._peers = [_connect(address)]

    def collective(self) -> None:
        """Wait for every rank."""
        self._slot.enter_collective()
        if not self._is_root:
            self._send_all()
        self._receive_all()
        if self._is_root:
            self._send_all()
        self._slot.leave_collective()

    def _receive_all(self) -> None:
        """Receive from every peer in the order in which they come: one that is silent hides no other's death.

        Nor does one that has spoken: before the answer it says nothing more, but its connection may end.
        """
        waiting = set(self._peers)
        while waiting:
            readable, _, _ = select.select(self._peers, [], [])
            for peer in readable:
                try:
                    data = peer.recv(1)
                except ConnectionError as error:
                    raise EngineFailed(f"lost a peer: {error}") from error
                if not data:
                    raise EngineFailed("lost a peer: its connection ended")
            waiting.difference_update(readable)

    def _send_all(self) -> None:
        for peer in self._peers:
            try:
                peer.send(b"x")
            except ConnectionError as error:
                raise EngineFailed(f"lost a peer: {error}") from error


def compute(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Step after step with a collective in each, as a rank under load."""

    def step(ring: Ring, number: int) -> None:
        slot.beat(number)
        time.sleep(0.01)  # the work of a step, outside of collectives
        ring.collective()

    _serve(assignment, slot, step)


def rest(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Never a step: as a group without requests."""

    def step(ring: Ring, number: int) -> None:
        slot.idle()
        time.sleep(0.1)

    _serve(assignment, slot, step)


def whisper(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Write the generation's secret where only the test looks, and rest."""
    Path(settings.model, f"{assignment.generation}.{assignment.rank}").write_text(assignment.secret)
    rest(settings, assignment, slot)


def answer(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Answer each request with one token a step until it has max_tokens, as an engine of one rank."""
    assert assignment.server_endpoint is not None
    server = ServerLink(assignment.server_endpoint, assignment.generation, slot)
    limits = EngineLimits(max_model_len=4096, num_blocks=512, block_size=16, max_num_seqs=8)
    server.send(EngineReady(generation=assignment.generation, limits=limits, load_seconds=0.0))
    slot.ready()
    left: dict[str, int] = {}  # tokens to come, by request
    for number in itertools.count(1):
        began_s = time.monotonic()
        slot.idle()
        scheduled = []
        for command in server.receive(0.005 if left else 0.02):
            if isinstance(command, Submit):
                left[command.request.request_id] = command.request.max_tokens
                scheduled.append(command.request.request_id)
            else:
                left.pop(command.request_id, None)
        outputs = [RequestOutput(name, [_TOKEN], "length" if count == 1 else None) for name, count in left.items()]
        left = {name: count - 1 for name, count in left.items() if count > 1}
        done = StepDone(
            generation=assignment.generation,
            outputs=outputs,
            step=number,
            began_s=began_s,
            num_running=len(left),
            num_waiting=0,
            num_tokens_waiting=0,
            kv_blocks_used=len(left),
            num_preemptions=0,
            scheduled=scheduled,
        )
        if outputs:
            server.send(done)


def refuse(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Fail at once as with a model folder that cannot be."""
    raise ConfigError(f"no model in {settings.model}")


def crash_in_load(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Read half of the weights, then fail with an error of Python on the last rank; the others wait for it."""
    slot.loading(50, 100)
    if assignment.rank == assignment.world_size - 1:
        raise ZeroDivisionError("half of nothing")
    threading.Event().wait()


def linger_after_the_last_word(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Fail on the last rank, whose connections end while it still lives, as in a slow teardown; the others lose it."""
    ring = Ring(assignment, slot)
    if assignment.rank == assignment.world_size - 1:
        slot.fail("half of nothing")
        del ring
        threading.Event().wait()
    ring.collective()


def die_when_told(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Serve, and fail as soon as there is a file `die` in the run folder."""

    def step(ring: Ring, number: int) -> None:
        slot.idle()
        if (settings.run_dir / "die").exists():
            raise ZeroDivisionError("half of nothing")
        time.sleep(0.02)

    _serve(assignment, slot, step)


def leave_orphans(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Start a process that ends at once and one that does not, as a library of the engine might, then serve."""
    for command in (["true"], ["sleep", "3600"]):
        subprocess.Popen(command)  # nobody waits for them
    rest(settings, assignment, slot)


def load_for_ever(settings: WorkerSettings, assignment: RankAssignment, slot: RankSlot) -> None:
    """Read half of the weights and stay there."""
    slot.loading(50, 100)
    threading.Event().wait()


def _serve(assignment: RankAssignment, slot: RankSlot, step: Callable[[Ring, int], None]) -> None:
    slot.loading(0, 100)
    ring = Ring(assignment, slot)
    slot.loading(100, 100)
    ring.collective()
    server: ServerLink | None = None
    if assignment.server_endpoint is not None:
        server = ServerLink(assignment.server_endpoint, assignment.generation, slot)
        limits = EngineLimits(max_model_len=16, num_blocks=1, block_size=16)
        server.send(EngineReady(generation=assignment.generation, limits=limits, load_seconds=0.0))
    slot.ready()
    number = 0
    while True:
        number += 1
        if server is not None:
            server.receive(0)
        step(ring, number)


def _connect(address: tuple[str, int]) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_LIMIT_S
    while True:
        try:
            sock = socket.create_connection(address, timeout=1.0)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            sock.settimeout(None)
            return sock
