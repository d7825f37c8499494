"""Sums and joins of fp32 tensors over the ranks of one pod, through a file that all of them map (exchange.c)."""

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from glm_worker.kernels.cpu.library import of_any_isa

NUM_FLOATS = 2**16
"""Exchanged at a time: rows of a decode step fit; those of a long step are in the caches still when they are read."""


class RankLost(Exception):
    """A rank died before it had given its part, or gave one of another size: the ranks are not together any more."""


class SharedMemory:
    """The file, mapped. Every rank opens it, the first one creates it; once all have, any may unlink it."""

    def __init__(self, path: Path, num_ranks: int) -> None:
        """Raises KernelsUnavailable without the library, OSError where the file, or a pidfd, cannot be."""
        self.num_ranks = num_ranks
        num_bytes = of_any_isa().glm_exchange_bytes(num_ranks, NUM_FLOATS)
        if not hasattr(os, "pidfd_open"):
            raise OSError("this Python was built without pidfd_open")
        os.close(os.pidfd_open(os.getpid()))  # kernels before 5.3 have none, and some sandboxes
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(file, 0, num_bytes)  # or a full disk would end a rank in the middle of a step
            self.map = mmap.mmap(file, num_bytes)
        finally:
            os.close(file)


class Exchange:
    """A rank's end of exchanges. All are collective: every rank calls the same, with equal shapes."""

    def __init__(self, memory: SharedMemory, rank: int, pids: Sequence[int]) -> None:
        """pids: of all ranks. Raises OSError for one that is no more."""
        self._memory, self._functions = memory, of_any_isa()
        self._pidfds = [os.pidfd_open(pid) for pid in pids]
        shared = ctypes.addressof(ctypes.c_char.from_buffer(memory.map))
        pidfds = (ctypes.c_int * len(pids))(*self._pidfds)
        self._exchange = self._functions.glm_exchange_new(shared, memory.num_ranks, rank, NUM_FLOATS, pidfds)
        if not self._exchange:
            raise MemoryError("no memory for exchanges between ranks")

    @staticmethod
    def takes(x: Tensor) -> bool:
        """Tell whether a tensor can be exchanged here: fp32 of the CPU."""
        return x.dtype is torch.float32 and x.device.type == "cpu"

    def add_up(self, x: Tensor) -> None:
        """Sum x over all ranks, in place, the same bits on each. Raises RankLost."""
        packed = x.contiguous()
        _check(self._functions.glm_exchange_sum(self._exchange, packed.data_ptr(), packed.numel()))
        if packed is not x:
            x.copy_(packed)

    def join(self, x: Tensor) -> Tensor:
        """Return the x (S, V) of all ranks, in their order, joined along V. Raises RankLost."""
        x, (rows, cols) = x.contiguous(), x.shape
        out = x.new_empty(rows, self._memory.num_ranks * cols)
        _check(self._functions.glm_exchange_join(self._exchange, x.data_ptr(), rows, cols, out.data_ptr()))
        return out

    def close(self) -> None:
        """End the use of it. For an orderly end only; the memory goes with the last process that has it mapped."""
        self._functions.glm_exchange_free(self._exchange)
        for pidfd in self._pidfds:
            os.close(pidfd)
        self._pidfds, self._exchange = [], None


def _check(wrong: int) -> None:
    if wrong > 0:
        raise RankLost(f"rank {wrong - 1} of those that exchange has died")
    if wrong < 0:
        raise RankLost(f"rank {-wrong - 1} of those that exchange gave another number of values")
