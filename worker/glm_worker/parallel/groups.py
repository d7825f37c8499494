"""The collectives of one rank, over torch.distributed: gloo between CPU ranks, NCCL between GPUs.

Every collective must be called by all ranks of its axis, in the same order, with equal shapes. The watch is told when
one begins and ends: that is how a rank that hangs is told apart from the ranks that wait for it. torch's own timeouts
are set out of the way for the same reason. A lost peer raises EngineFailed. One rank needs no process group.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from glm_worker.errors import EngineFailed
from glm_worker.parallel.mesh import Axis, Mesh

if TYPE_CHECKING:
    from glm_worker.assignment import RankAssignment

STORE_TIMEOUT = timedelta(minutes=10)  # to meet; the supervisor ends a generation that does not start much earlier
COLLECTIVE_TIMEOUT = timedelta(days=7)  # never the first to notice: heartbeats are


class Watch(Protocol):
    """Told about collectives; the rank's heartbeat slot is one."""

    def enter_collective(self) -> None: ...
    def leave_collective(self) -> None: ...


class Communicator:
    """The collectives of one rank. Built by connect, or by single for a model on one rank."""

    def __init__(
        self, mesh: Mesh, device: torch.device, watch: Watch | None, groups: dict[Axis, dist.ProcessGroup]
    ) -> None:
        self.mesh = mesh
        self._device = device
        self._watch = watch
        self._groups = groups  # none for an axis of size 1

    @classmethod
    def single(cls, device: torch.device | None = None) -> "Communicator":
        """Return the communicator of a rank that is alone: nothing is ever sent."""
        return cls(Mesh(), device or torch.device("cpu"), None, {})

    @classmethod
    def connect(cls, assignment: "RankAssignment", mesh: Mesh, device: torch.device, watch: Watch) -> "Communicator":
        """Meet the other ranks of the generation and return the communicator.

        Collective over all ranks. Rank 0 hosts the store at leader_host:store_port; a generation has a port of its own,
        so ranks of two generations never meet. Raises EngineFailed if the ranks cannot meet.
        """
        if mesh.world_size == 1:
            return cls(mesh, device, watch, {})
        with _bracket(watch, f"meeting at {assignment.leader_host}:{assignment.store_port}"):
            store = dist.TCPStore(  # type: ignore[attr-defined]  # public, but not in the stubs
                assignment.leader_host,
                assignment.store_port,
                mesh.world_size,
                is_master=mesh.rank == 0,
                timeout=STORE_TIMEOUT,
                wait_for_workers=False,
            )
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=mesh.rank,
                world_size=mesh.world_size,
                timeout=COLLECTIVE_TIMEOUT,
                device_id=device if device.type == "cuda" else None,
            )
            world = dist.group.WORLD
            assert world is not None
            groups = {Axis.EP: world}
            if mesh.tensor_parallel == mesh.world_size:
                groups[Axis.TP] = world
            elif mesh.tensor_parallel > 1:
                # Every rank must create every group, in the same order
                made = [dist.new_group(list(ranks), timeout=COLLECTIVE_TIMEOUT) for ranks in mesh.tp_groups]
                own = made[mesh.tp_groups.index(mesh.tp_group)]
                assert isinstance(own, dist.ProcessGroup), "this rank is in its own group"
                groups[Axis.TP] = own
        return cls(mesh, device, watch, groups)

    def all_reduce(self, x: Tensor, axis: Axis) -> Tensor:
        """Return x summed over the ranks of axis, in place, the same bits on each of them."""
        group = self._groups.get(axis)
        if group is None or x.numel() == 0:  # shapes are equal everywhere, so all ranks skip together
            return x
        with _bracket(self._watch, f"all_reduce over {axis}"):
            dist.all_reduce(x, group=group)
        return x

    def all_gather(self, x: Tensor, axis: Axis) -> Tensor:
        """Return the x of every rank of axis, joined in rank order along the last dim."""
        group = self._groups.get(axis)
        if group is None or x.numel() == 0:
            return x if group is None else x.repeat_interleave(self.mesh.size(axis), dim=-1)
        parts = [torch.empty_like(x) for _ in range(self.mesh.size(axis))]
        with _bracket(self._watch, f"all_gather over {axis}"):
            dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts, dim=-1)

    def all_reduce_min(self, value: int) -> int:
        """Return the least value of all ranks."""
        group = self._groups.get(Axis.EP)
        if group is None:
            return value
        least = torch.tensor(value, dtype=torch.int64, device=self._device)
        with _bracket(self._watch, "all_reduce_min"):
            dist.all_reduce(least, op=dist.ReduceOp.MIN, group=group)
            return int(least.item())

    def close(self) -> None:
        """Leave the groups. For an orderly end only: a rank of a failed generation just exits."""
        if self._groups:
            dist.destroy_process_group()
            self._groups = {}


@contextmanager
def _bracket(watch: Watch | None, what: str) -> Iterator[None]:
    if watch is not None:
        watch.enter_collective()
    try:
        yield
    except (RuntimeError, ValueError) as error:  # dist.DistError and its kin are RuntimeErrors
        raise EngineFailed(f"{what} failed: {error}") from error
    finally:
        if watch is not None:
            watch.leave_collective()
