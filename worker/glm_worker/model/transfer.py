"""Copying tensors of files into parameters, by several threads, in pieces, each byte touched as rarely as can be.

Where file and parameter agree on the type and the parameter lies in this machine's memory, the system copies straight
into it. Elsewhere a piece goes through a buffer that a lane keeps: small enough to stay in the caches while it is
converted. So loading takes the memory of the parameters, and a buffer a lane.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from glm_worker.model.safetensors_file import SafetensorsFile

DIRECT_BYTES = 4 * 2**20  # few calls, and at the end no thread waits long for the other ones
BUFFER_BYTES = 2**20  # a quarter of it is slower by a fifth, and 16 times it as well
DEVICE_BUFFER_BYTES = 16 * 2**20
_LANES_TO_DEVICE = 2  # one reads while the other one's piece is on its way


class Target:
    """A parameter that is filled, as one row of elements."""

    def __init__(self, parameter: Tensor) -> None:
        assert parameter.is_contiguous(), "parameters are allocated so"
        self.flat = parameter.detach().view(-1)
        self.stride = prod(parameter.shape[1:])  # from one index of the first dim to the next
        self.memory = self.flat.view(torch.uint8).numpy().data if parameter.device.type == "cpu" else None

    @property
    def dtype(self) -> torch.dtype:
        return self.flat.dtype


@dataclass(frozen=True)
class Piece:
    """Runs of one length at bytes `begins` of a file; they fill the target from element `first` on, one by one."""

    file: SafetensorsFile
    dtype: torch.dtype
    begins: range
    run_len: int  # elements
    target: Target
    first: int

    def __post_init__(self) -> None:
        assert self.first + self.num_elements <= len(self.target.flat), "a read ends beyond what it fills"

    @property
    def num_elements(self) -> int:
        return len(self.begins) * self.run_len

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize

    @property
    def is_direct(self) -> bool:
        return self.target.memory is not None and self.target.dtype == self.dtype

    def divided(self) -> Iterator["Piece"]:
        """Yield the same in pieces that a lane takes at once: part of one run, or some runs that are not too long."""
        most = self._most_bytes() // self.dtype.itemsize
        if self.num_elements <= most:
            yield self
        elif len(self.begins) == 1:
            for done in range(0, self.run_len, most):
                begin = self.begins.start + done * self.dtype.itemsize
                yield self._part(range(begin, begin + 1), min(most, self.run_len - done), done)
        else:
            most_runs = max(1, most // self.run_len)
            for done in range(0, len(self.begins), most_runs):
                yield self._part(self.begins[done : done + most_runs], self.run_len, done * self.run_len)

    def read_into(self, memory: memoryview) -> None:
        run_bytes = self.run_len * self.dtype.itemsize
        for number, begin in enumerate(self.begins):
            self.file.read_into(memory[number * run_bytes : (number + 1) * run_bytes], begin)

    def _most_bytes(self) -> int:
        if self.is_direct:
            return DIRECT_BYTES
        return BUFFER_BYTES if self.target.memory is not None else DEVICE_BUFFER_BYTES

    def _part(self, begins: range, run_len: int, done: int) -> "Piece":
        return Piece(self.file, self.dtype, begins, run_len, self.target, self.first + done)


def transfer(pieces: list[Piece], progress: Callable[[int], object]) -> None:
    """Fill what the pieces fill, in the order of the files, and tell the bytes done from this thread.

    The first error ends it, once the other lanes have ended the piece that they are at.
    """
    parts = sorted(
        (part for piece in pieces for part in piece.divided()),
        key=lambda part: (str(part.file.path), part.begins.start),
    )
    waiting = deque(parts)
    is_near = all(part.target.memory is not None for part in parts)
    num_lanes = min(len(parts), torch.get_num_threads() if is_near else _LANES_TO_DEVICE)
    lanes = [_Lane(waiting) for _ in range(num_lanes)]
    with _one_thread_of_torch(), ThreadPoolExecutor(max(1, num_lanes)) as pool:
        others = [pool.submit(lane.run) for lane in lanes[1:]]
        for lane in lanes[:1]:
            lane.run(lambda: progress(sum(each.num_bytes for each in lanes)))
        for other in others:
            other.result()


class _Lane:
    """What one thread copies, piece by piece, until nothing is left."""

    def __init__(self, waiting: deque[Piece]) -> None:
        self.num_bytes = 0
        self._waiting = waiting
        self._buffer = torch.empty(0, dtype=torch.uint8)

    def run(self, progress: Callable[[], object] = lambda: None) -> None:
        try:
            while (piece := self._next()) is not None:
                self._copy(piece)
                self.num_bytes += piece.num_bytes
                progress()
        except BaseException:
            self._waiting.clear()
            raise

    def _next(self) -> Piece | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _copy(self, piece: Piece) -> None:
        target, num_bytes = piece.target, piece.num_bytes
        if piece.is_direct:
            assert target.memory is not None
            begin = piece.first * piece.dtype.itemsize
            piece.read_into(target.memory[begin : begin + num_bytes])
            return
        if len(self._buffer) < num_bytes:
            self._buffer = torch.empty(num_bytes, dtype=torch.uint8)
        read = self._buffer[:num_bytes]
        piece.read_into(read.numpy().data)
        target.flat[piece.first : piece.first + piece.num_elements].copy_(read.view(piece.dtype))


@contextmanager
def _one_thread_of_torch() -> Iterator[None]:
    """Have lanes convert alone: each would have threads of its own otherwise, beside those of the other lanes."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
