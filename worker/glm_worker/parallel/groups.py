"""The collectives of one rank, over torch.distributed: gloo between CPU ranks, NCCL between GPUs.

Every collective must be called by all ranks of its axis, in the same order, with equal shapes. The watch is told when
one begins and ends: that is how a rank that hangs is told apart from the ranks that wait for it. torch's own timeouts
are set out of the way for the same reason. CPU ranks of one pod exchange fp32 through memory that they share.
A lost peer raises EngineFailed. One rank needs no process group; it tells the watch all the same that it moves on, or a
long step would look like a hang.
"""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from glm_worker.errors import EngineFailed
from glm_worker.kernels.cpu.exchange import Exchange, RankLost, SharedMemory
from glm_worker.kernels.cpu.library import KernelsUnavailable
from glm_worker.parallel.mesh import Axis, Mesh

if TYPE_CHECKING:
    from glm_worker.assignment import RankAssignment

logger = logging.getLogger(__name__)

LOOK_S = 0.01
SHARED = Path("/dev/shm")  # noqa: S108 - no disk, whose writing back holds up who writes; names are nobody else's
CONNECT_LIMIT_S = 2.0  # an address that does not answer is tried again
TIMEOUT = timedelta(days=7)  # never the first to notice: start_limit_s ends who does not meet, heartbeats who hangs


class Watch(Protocol):
    """Told about collectives; the rank's heartbeat slot is one."""

    def alive(self) -> None: ...
    def enter_collective(self) -> None: ...
    def leave_collective(self) -> None: ...


class Communicator:
    """The collectives of one rank. Built by connect, or by single for a model on one rank."""

    def __init__(self, mesh: Mesh, watch: Watch | None, groups: dict[Axis, dist.ProcessGroup]) -> None:
        self.mesh = mesh
        self._watch = watch
        self._groups = groups  # none for an axis of size 1
        self._exchanges: dict[Axis, Exchange] = {}  # where all ranks of the axis share memory

    @classmethod
    def single(cls) -> "Communicator":
        """Return the communicator of a rank that is alone: nothing is ever sent."""
        return cls(Mesh(), None, {})

    @classmethod
    def connect(cls, assignment: "RankAssignment", mesh: Mesh, device: torch.device, watch: Watch) -> "Communicator":
        """Meet the other ranks of the generation and return the communicator.

        Collective over all ranks. Ranks of two generations never meet, even at one store: their keys differ. Raises
        EngineFailed if the ranks cannot meet.
        """
        if mesh.world_size == 1:
            return cls(mesh, watch, {})
        place = assignment.meeting_dir or f"{assignment.leader_host}:{assignment.store_port}"
        with _bracket(watch, f"meeting at {place}"):
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=_store(assignment),
                rank=mesh.rank,
                world_size=mesh.world_size,
                timeout=TIMEOUT,
                device_id=device if device.type == "cuda" else None,
            )
            world = dist.group.WORLD
            assert world is not None
            groups = {Axis.EP: world}
            if mesh.tensor_parallel == mesh.world_size:
                groups[Axis.TP] = world
            elif mesh.tensor_parallel > 1:
                # Every rank must create every group, in the same order
                made = [dist.new_group(list(ranks), timeout=TIMEOUT) for ranks in mesh.tp_groups]
                own = made[mesh.tp_groups.index(mesh.tp_group)]
                assert isinstance(own, dist.ProcessGroup), "this rank is in its own group"
                groups[Axis.TP] = own
            comm = cls(mesh, watch, groups)
            if device.type == "cpu" and assignment.meeting_dir is not None:
                comm._share_memory(f"glm-{_digest(assignment, assignment.meeting_dir)[:32]}")
        return comm

    def all_reduce(self, x: Tensor, axis: Axis) -> Tensor:
        """Return x summed over the ranks of axis, in place, the same bits on each of them."""
        group = self._groups.get(axis)
        if group is None or x.numel() == 0:  # shapes are equal everywhere, so all ranks skip together
            self._say_alive()
            return x
        with _bracket(self._watch, f"all_reduce over {axis}"):
            if axis in self._exchanges and Exchange.takes(x):
                self._exchanges[axis].add_up(x)
            elif x.device.type == "cpu" and self.mesh.size(axis) > 2:
                _all_reduce_in_order(x, group, self.mesh.size(axis))
            else:
                dist.all_reduce(x, group=group)
        return x

    def all_gather(self, x: Tensor, axis: Axis) -> Tensor:
        """Return the x of every rank of axis, joined in rank order along the last dim."""
        group = self._groups.get(axis)
        if group is None or x.numel() == 0:
            self._say_alive()
            return x if group is None else x.repeat_interleave(self.mesh.size(axis), dim=-1)
        with _bracket(self._watch, f"all_gather over {axis}"):
            if axis in self._exchanges and Exchange.takes(x) and x.dim() == 2:
                return self._exchanges[axis].join(x)
            parts = [torch.empty_like(x) for _ in range(self.mesh.size(axis))]
            dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts, dim=-1)

    def settle(self, device: torch.device, done: torch.cuda.Event | None = None) -> None:
        """Return when the device has done all that it was given, or all before `done`. Collective in effect: on a GPU
        peers are waited for.

        NCCL's calls return when the work is queued. Without this a rank would look idle while its GPU waits for a peer.
        """
        if device.type == "cuda":
            with _bracket(self._watch, f"work on {device}"):
                torch.cuda.synchronize(device) if done is None else done.synchronize()

    def close(self) -> None:
        """Leave the groups. For an orderly end only: a rank of a failed generation just exits."""
        for exchange in {*self._exchanges.values()}:
            exchange.close()
        self._exchanges = {}
        if self._groups:
            dist.destroy_process_group()
            self._groups = {}

    def _share_memory(self, name: str) -> None:
        """Exchange fp32 through shared memory from now on, if every rank can. Collective over all ranks.

        name: of files that no other generation has.
        """
        made: dict[tuple[int, ...], Exchange] = {}
        for axis, group in self._groups.items():
            ranks = tuple(dist.get_process_group_ranks(group))
            if ranks not in made:
                place = ranks.index(self.mesh.rank)
                path = SHARED / f"{name}-{ranks[0]}-{len(ranks)}"
                exchange = _shared_exchange(path, place, len(ranks), group)
                if exchange is None:
                    continue
                made[ranks] = exchange
            self._exchanges[axis] = made[ranks]

    def _say_alive(self) -> None:
        if self._watch is not None:
            self._watch.alive()


def _store(assignment: "RankAssignment") -> dist.Store:  # type: ignore[name-defined]  # public, but not in the stubs
    """Return torch's store of a generation: a file of the pod that has all ranks, or hosted by rank 0 at a port.

    NOTE: torch hosts it on every address of the machine, whatever leader_host is, and lets anyone in. So a rank may
    reach a store of other ranks; the generation's secret tells its keys from theirs. In them stands only its digest,
    because whoever reaches the store can list them, and the step channel relies on the secret.
    """
    store = _file_store(assignment, assignment.meeting_dir) if assignment.meeting_dir else _tcp_store(assignment)
    return dist.PrefixStore(_digest(assignment), store)  # type: ignore[attr-defined]


def _digest(assignment: "RankAssignment", place: str = "") -> str:
    """Return what shows that somebody knows the generation's secret, and not the secret. place: where it is shown."""
    return hashlib.sha256(f"{assignment.secret}{place}".encode()).hexdigest()


def _shared_exchange(path: Path, rank: int, num_ranks: int, group: dist.ProcessGroup) -> Exchange | None:
    """Return this rank's end of exchanges in a file; None: one of the ranks cannot. Collective over the group.

    rank: its place in the group.
    """
    try:
        memory = SharedMemory(path, num_ranks)
    except (KernelsUnavailable, OSError) as error:
        logger.warning("ranks exchange over sockets, not in shared memory: %s", error)
        memory = None
    pids = [torch.zeros(1, dtype=torch.int64) for _ in range(num_ranks)]
    dist.all_gather(pids, torch.tensor([os.getpid() if memory is not None else 0]), group=group)
    path.unlink(missing_ok=True)  # all have it who can
    if memory is None or any(pid == 0 for pid in pids):
        return None
    return Exchange(memory, rank, [int(pid) for pid in pids])


def _file_store(assignment: "RankAssignment", folder: str) -> dist.Store:  # type: ignore[name-defined]
    store = dist.FileStore(f"{folder}/store", assignment.world_size)  # type: ignore[attr-defined]
    store.set_timeout(TIMEOUT)
    return store


def _tcp_store(assignment: "RankAssignment") -> dist.Store:  # type: ignore[name-defined]
    if assignment.rank != 0:
        _wait_for_port(assignment.leader_host, assignment.store_port)
    return dist.TCPStore(  # type: ignore[attr-defined]
        assignment.leader_host,
        assignment.store_port,
        assignment.world_size,
        is_master=assignment.rank == 0,
        timeout=TIMEOUT,
        wait_for_workers=False,
    )


def _wait_for_port(host: str, port: int) -> None:
    """Return when somebody listens there. torch, if it comes a moment too early, waits half a second to look again."""
    while True:
        try:
            socket.create_connection((host, port), timeout=CONNECT_LIMIT_S).close()
        except OSError:  # nobody yet, or no such name yet; start_limit_s ends who waits for ever
            time.sleep(LOOK_S)
        else:
            return


def _all_reduce_in_order(x: Tensor, group: dist.ProcessGroup, num_ranks: int) -> None:
    """Sum over ranks in the order of ranks. gloo's order depends on where an element stands, so on who shares the step.

    Two ranks have one order.
    """
    parts = [torch.empty_like(x) for _ in range(num_ranks)]
    dist.all_gather(parts, x.contiguous(), group=group)
    x.copy_(parts[0])
    for part in parts[1:]:
        x += part


@contextmanager
def _bracket(watch: Watch | None, what: str) -> Iterator[None]:
    if watch is not None:
        watch.enter_collective()
    try:
        yield
    except (RuntimeError, ValueError, OSError, RankLost) as error:  # dist.DistError and its kin are RuntimeErrors
        raise EngineFailed(f"{what} failed: {error}") from error
    finally:
        if watch is not None:
            watch.leave_collective()
