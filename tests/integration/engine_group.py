"""The ranks of one generation for tests of the engine: real processes, gloo and ZMQ; the test stands for the server.

Ranks are forked as the product's are: by a process of one thread that has torch and has computed nothing. This one may
have the threads of whatever ran in it before, and a rank would wait for ever for a lock that one of them held.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
import psutil
import zmq

from glm_worker.assignment import RankAssignment
from glm_worker.engine.rank import run_rank
from glm_worker.heartbeat import Phase, RankSlot, create_slots
from glm_worker.messages import Cancel, EngineReady, FromEngine, StepBegins, StepDone, Submit, ToEngine, TokenLogprobs
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.settings import WorkerSettings
from glm_worker.supervisor.children.environment import zygote_environment
from integration.free_ports import free_port
from integration.listening import listening

GENERATION = "test-1"
DEADLINE_S = 120.0
GREEDY = SamplingParams(temperature=0)
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["glm_worker.engine.rank"])


def a_request(
    request_id: str,
    prompt: Sequence[int],
    max_tokens: int = 12,
    sampling: SamplingParams = GREEDY,
    stop_token_ids: Sequence[int] = (),
) -> EngineRequest:
    return EngineRequest(
        request_id=request_id,
        prompt_token_ids=list(prompt),
        max_tokens=max_tokens,
        stop_token_ids=list(stop_token_ids),
        sampling=sampling,
    )


@dataclass
class Answer:
    """What came out for one request."""

    token_ids: list[int] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class EngineGroup:
    """The server's end: submit, cancel, and what came back."""

    def __init__(
        self,
        server: zmq.Socket[bytes],
        slots: list[RankSlot],
        processes: list[BaseProcess],
        ports: tuple[int, int],
    ) -> None:
        self._server = server
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._processes = processes
        self.slots = slots
        self.ports = ports  # of the store and of the step channel, if there are several pods
        self.answers: dict[str, Answer] = {}
        self.steps: list[StepDone] = []

    def send(self, message: ToEngine) -> None:
        self._server.send(msgspec.msgpack.encode(message))

    def submit(self, *requests: EngineRequest) -> None:
        """Submit requests. Several come together: the engine stands still until all are sent, so none ends before."""
        with self._still() if len(requests) > 1 else nullcontext():
            for request in requests:
                self.answers[request.request_id] = Answer()
                self.send(Submit(GENERATION, request))

    @contextmanager
    def _still(self) -> Iterator[None]:
        leader = psutil.Process(self._processes[0].pid)
        leader.suspend()
        try:
            yield
        finally:
            leader.resume()

    def cancel(self, request_id: str) -> None:
        self.send(Cancel(GENERATION, request_id))

    def listening(self) -> list[set[tuple[str, int]]]:
        """Return where each rank can be reached over the network."""
        return [listening(process.pid) for process in self._processes]

    def has_message(self, within_ms: int) -> bool:
        return bool(self._server.poll(within_ms))

    def receive(self) -> FromEngine:
        """Return the next message, within the deadline and only while all ranks live."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.has_message(within_ms=200):
            dead = [i for i, process in enumerate(self._processes) if not process.is_alive()]
            assert not dead, f"ranks {dead} died: {[self.slots[i].snapshot().message for i in dead]}"
            assert time.monotonic() < deadline, "the engine says nothing"
        return self._decoder.decode(self._server.recv())

    def receive_until(self, condition: Callable[[], bool]) -> None:
        """Take in steps until the condition holds."""
        while not condition():
            step = self.receive()
            if isinstance(step, StepBegins):
                continue
            assert isinstance(step, StepDone)
            self.steps.append(step)
            for output in step.outputs:
                answer = self.answers[output.request_id]
                assert not answer.endings, "a finished request is never named again"
                answer.token_ids += output.token_ids
                answer.logprobs += output.logprobs
                answer.errors += [output.error] if output.error else []
                answer.endings += [output.finish_reason] if output.finish_reason else []

    def answer(self, *requests: EngineRequest) -> list[Answer]:
        """Submit requests together and return their answers when all have ended."""
        self.submit(*requests)
        answers = [self.answers[request.request_id] for request in requests]
        self.receive_until(lambda: all(answer.endings for answer in answers))
        return answers


def as_they_are() -> None:
    """Change nothing in a rank."""


@contextmanager
def engine_group(
    folder: Path,
    world_size: int = 1,
    *,
    num_pods: int = 1,
    host: str = "127.0.0.1",
    changed: Callable[[], None] = as_they_are,
    **settings: object,
) -> Iterator[tuple[EngineGroup, EngineReady]]:
    """Start the ranks, wait until they serve, and kill them in the end.

    host: where those of several pods meet. changed: a function of a module, called in each rank before it begins.
    """
    run_dir = Path(tempfile.mkdtemp(prefix="glm-"))  # short: the path of an ipc socket has 107 bytes at most
    all_settings = WorkerSettings(
        model=str(folder), host=host, num_pods=num_pods, ranks_per_pod=world_size // num_pods, **settings
    )  # type: ignore[arg-type]
    slots_path, endpoint = run_dir / "slots", f"ipc://{run_dir}/engine"
    create_slots(slots_path, world_size)
    ports = free_port(), free_port()
    environment = zygote_environment(all_settings, os.environ)
    processes: list[BaseProcess] = []
    for rank in range(world_size):
        assignment = RankAssignment(
            rank=rank,
            local_rank=rank,
            world_size=world_size,
            generation=GENERATION,
            secret="a secret",
            meeting_dir=str(run_dir) if num_pods == 1 else None,
            leader_host=host,
            store_port=ports[0],
            channel_port=ports[1],
            server_endpoint=endpoint if rank == 0 else None,
            slots_path=str(slots_path),
            num_local_slots=world_size,
        )
        process = FORKING.Process(target=_rank_main, args=(all_settings, assignment, environment, changed))
        process.start()
        processes.append(process)
    slots = [RankSlot.open(slots_path, rank) for rank in range(world_size)]
    context = zmq.Context()
    server = context.socket(zmq.PAIR)
    server.setsockopt(zmq.LINGER, 0)
    server.bind(endpoint)
    group = EngineGroup(server, slots, processes, ports)
    try:
        ready = group.receive()
        assert isinstance(ready, EngineReady)
        yield group, ready
    finally:
        for process in processes:
            process.kill()
            process.join()
            process.close()
        for slot in slots:
            slot.close()
        context.destroy()
        shutil.rmtree(run_dir)


def _rank_main(
    settings: WorkerSettings, assignment: RankAssignment, environment: dict[str, str], changed: Callable[[], None]
) -> None:
    os.environ.clear()  # it is that of the process that forks, from when that began
    os.environ.update(environment)
    changed()
    slot = RankSlot.open(assignment.slots_path, assignment.local_rank)
    slot.begin()
    try:
        run_rank(settings, assignment, slot)
    except BaseException as error:  # noqa: BLE001 - the outermost frame of the process; the test shows the slot
        slot.fail(f"{type(error).__name__}: {error}")
        os._exit(1)


def all_ready(slots: list[RankSlot]) -> bool:
    return all(slot.snapshot().phase == Phase.ready for slot in slots)
