"""Real ranks for tests: forked from this process, which has torch imported, and joined by gloo.

Importing torch costs seconds; forking costs milliseconds. A child has only the thread that forked it, so it would lack
torch's thread pool and wait for ever for a lock that another thread held. Here is why neither happens:

- torch is held to one thread before anything runs in it (hold_torch_to_one_thread): there is no pool.
- pytest's faulthandler_timeout has a watchdog thread in C. It holds one lock, which only cancelling it waits for; a
  child never does, because it leaves by os._exit.
- xdist's workers have execnet's receiver thread. It waits for the controller's next message, in Python, with execnet's
  own locks and the pipe's; a child never touches that pipe. The locks of the interpreter itself are renewed by fork.

Python 3.12 and up warn of any such fork; pyproject.toml ignores that warning.
"""

import multiprocessing
import pickle
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TypeVar

import torch

from glm_worker.assignment import RankAssignment
from glm_worker.parallel.device import rank_device
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis, Mesh
from glm_worker.settings import Device
from integration.free_ports import free_port

T = TypeVar("T")


def hold_torch_to_one_thread() -> None:
    """Call before the first operation of torch in the process."""
    torch.set_num_threads(1)


class CountingWatch:
    """A heartbeat slot that only counts."""

    def __init__(self) -> None:
        self.entered = 0
        self.left = 0
        self.alive_signs = 0

    def alive(self) -> None:
        self.alive_signs += 1

    def enter_collective(self) -> None:
        self.entered += 1

    def leave_collective(self) -> None:
        self.left += 1


@dataclass(frozen=True)
class Rank:
    """What a function that runs as a rank is given."""

    mesh: Mesh
    comm: Communicator
    watch: CountingWatch
    device: torch.device


class RankFailedError(AssertionError):
    """A rank raised or died; the message holds its traceback."""


def run_ranks(
    function: Callable[[Rank], T],
    world_size: int,
    tensor_parallel: int = 1,
    *,
    device: Device = "cpu",
    meeting_dir: Path | None = None,
    dying: frozenset[int] = frozenset(),
    deadline_s: float = 180,
) -> list[T]:
    """Return what function returns on each rank, in rank order. It may be a closure; its result must pickle.

    One rank runs in this process. Several are forked and connected, by files of meeting_dir if it is given, else at a
    port; the first failure or the deadline kills them all.
    On cuda they are spawned instead, because CUDA does not survive a fork: then function must pickle too.
    Ranks named in dying are expected to die in function: their place in the result stays None.
    """
    meshes = [Mesh(world_size, tensor_parallel, rank) for rank in range(world_size)]
    place = (str(meeting_dir) if meeting_dir else None, free_port())
    if world_size == 1:
        return [function(_connect(meshes[0], place, device))]
    context = multiprocessing.get_context("fork" if device == "cpu" else "spawn")
    processes = []
    pending: dict[Connection, int] = {}
    for mesh in meshes:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (function, mesh, place, device, sender, not dying)
        process = context.Process(target=_rank_main, args=arguments, daemon=True)
        process.start()
        sender.close()
        processes.append(process)
        pending[receiver] = mesh.rank
    try:
        return _collect(pending, world_size, dying, time.monotonic() + deadline_s)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _collect(pending: dict[Connection, int], world_size: int, dying: frozenset[int], deadline: float) -> list:
    results: list = [None] * world_size
    while pending:
        ready = wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            raise RankFailedError(f"ranks {sorted(pending.values())} did not finish in time")
        for connection in ready:
            rank = pending.pop(connection)
            try:
                is_result, payload = pickle.loads(connection.recv_bytes())
            except EOFError as error:
                if rank in dying:
                    continue
                raise RankFailedError(f"rank {rank} died without a word") from error
            if not is_result:
                raise RankFailedError(f"rank {rank} failed:\n{payload}")
            results[rank] = payload
    return results


def _rank_main(
    function: Callable[[Rank], object],
    mesh: Mesh,
    place: tuple[str | None, int],
    device: Device,
    sender: Connection,
    leave_together: bool,
) -> None:
    try:
        rank = _connect(mesh, place, device)
        message = (True, function(rank))
        if leave_together:  # or gloo reports the first that leaves as an error
            rank.comm.all_reduce(torch.zeros(1, device=rank.device), Axis.EP)
            rank.comm.close()
    except BaseException:  # noqa: BLE001 - whatever it was, the test shows it
        message = (False, traceback.format_exc())
    sender.send_bytes(pickle.dumps(message))


def an_assignment(
    mesh: Mesh, port: int, *, meeting_dir: str | None = None, secret: str = "the secret of test-1"
) -> RankAssignment:
    """Return what a rank is told of its generation: to meet the others in a folder, or at a port of this machine."""
    return RankAssignment(
        rank=mesh.rank,
        local_rank=mesh.rank,
        world_size=mesh.world_size,
        generation="test-1",
        secret=secret,
        meeting_dir=meeting_dir,
        leader_host="127.0.0.1",
        store_port=port,
        channel_port=port,
        server_endpoint=None,
        slots_path="",
        num_local_slots=mesh.world_size,
    )


def _connect(mesh: Mesh, place: tuple[str | None, int], kind: Device) -> Rank:
    device = rank_device(kind, mesh.rank)
    meeting_dir, port = place
    assignment = an_assignment(mesh, port, meeting_dir=meeting_dir)
    watch = CountingWatch()
    return Rank(mesh, Communicator.connect(assignment, mesh, device, watch), watch, device)
