"""Decode steps as CUDA graphs: which sizes there are, what a step copies into one, and how one is captured.

A decode step of a GPU is launch-bound: 62 to 70 ms for 26 layers, whatever the batch. A graph launches it at once. It
holds addresses, so its inputs are tensors of its own, as many rows as its size; rows that a step lacks fill it up: slot
-1, which stores nothing, and context 0, which reads nothing. What captures is a seam: CudaCapture on a GPU, which no
machine has run yet; the rest is tested with one that calls the function again.

Shape suffixes: B sequences of a step (one token each), M blocks of a table, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from glm_worker.model.forward_batch import ForwardBatch, HostBatch

Compute: TypeAlias = Callable[[], Tensor]
Tell: TypeAlias = Callable[[int, int], None]
"""Told how many graphs there are by now, and how many there will be."""


class Capture(Protocol):
    """Makes a function of no arguments into one that does the same on the device again, into the same tensor."""

    def __call__(self, compute: Compute) -> Compute: ...


@dataclass(frozen=True)
class GraphRoom:
    """The most that a decode step may need."""

    num_seqs: int
    num_blocks: int  # of one sequence
    block_size: int


def graph_sizes(most: int) -> tuple[int, ...]:
    """Return the batch sizes that have a graph, ascending: powers of 2 below the most, and that.

    So a step fills up to at most twice its rows, and 64 sequences take 7 captures.
    """
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return (*powers, most) if most > 0 else ()


def size_for(num_seqs: int, sizes: tuple[int, ...]) -> int | None:
    """Return the smallest size that has room; None where there is none."""
    return next((size for size in sizes if size >= num_seqs), None) if num_seqs else None


class DecodeGraphs:
    """Graphs of all sizes over the same inputs. The result of run is good until the next run."""

    def __init__(
        self, compute: Callable[[ForwardBatch], Tensor], capture: Capture, room: GraphRoom, device: torch.device
    ) -> None:
        """compute: logits (B, V) of a batch of one token a sequence; it looks at nothing on the host."""
        self._compute, self._capture, self._room = compute, capture, room
        self._sizes = graph_sizes(room.num_seqs)
        self._graphs: dict[int, Compute] = {}
        most = room.num_seqs
        numbers = torch.arange(most + 1, device=device)
        self._token_ids, self._positions = (torch.zeros(most, dtype=torch.int64, device=device) for _ in range(2))
        self._slots = torch.full((most,), -1, dtype=torch.int64, device=device)
        self._rows, self._cu_query_lens = numbers[:most], numbers.to(torch.int32)
        self._context_lens = torch.zeros(most, dtype=torch.int32, device=device)
        self._tables = torch.zeros(most, room.num_blocks, dtype=torch.int32, device=device)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that are captured by now."""
        return tuple(self._graphs)

    def capture(self, tell: Tell) -> None:
        """Capture all sizes, the smallest first. Collective over all ranks where layers exchange anything.

        The largest comes last: what it computes with holds what the others do. Nothing is stored in the cache.
        """
        for number, size in enumerate(self._sizes):
            tell(number, len(self._sizes))
            batch = self._inputs(size)
            self._graphs[size] = self._capture(lambda batch=batch: self._compute(batch))  # type: ignore[misc]
        tell(len(self._sizes), len(self._sizes))

    def run(self, batch: ForwardBatch) -> Tensor | None:
        """Return logits (B, V) by a graph; None where there is none for the batch: more than a token a sequence,
        sequences that are not sampled, or too many."""
        num_seqs = len(batch.context_lens_B)
        size = size_for(num_seqs, self.sizes)
        if size is None or batch.max_query_len != 1 or len(batch.logit_rows_S) != num_seqs:
            return None
        for own, given in (
            (self._token_ids, batch.token_ids_T),
            (self._positions, batch.positions_T),
            (self._slots, batch.slots_T),
            (self._context_lens, batch.context_lens_B),
        ):
            own[:num_seqs].copy_(given)
        self._slots[num_seqs:size].fill_(-1)
        self._context_lens[num_seqs:size].zero_()
        self._tables[:num_seqs, : batch.block_tables_BM.shape[1]].copy_(batch.block_tables_BM)
        return self._graphs[size]()[:num_seqs]

    def _inputs(self, size: int) -> ForwardBatch:
        """Return the inputs' first rows. The host knows nothing of a step that a graph computes."""
        nothing, ints = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        return ForwardBatch(
            token_ids_T=self._token_ids[:size],
            positions_T=self._positions[:size],
            slots_T=self._slots[:size],
            logit_rows_S=self._rows[:size],
            cu_query_lens_B1=self._cu_query_lens[: size + 1],
            context_lens_B=self._context_lens[:size],
            block_tables_BM=self._tables[:size],
            host=HostBatch(nothing, nothing, nothing, ints, ints, ints.reshape(0, 0), nothing),
            block_size=self._room.block_size,
            max_query_len=1,
            max_context_len=self._room.num_blocks * self._room.block_size,
        )


class CudaCapture:
    """Captures on the current GPU; all graphs share one pool of memory. NOT RUN ON A GPU YET."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._last: torch.cuda.CUDAGraph | None = None

    def __call__(self, compute: Compute) -> Compute:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            compute()  # kernels are compiled and loaded by the first call, which a capture does not allow
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        pool = None if self._last is None else self._last.pool()
        # Other threads of this process may call CUDA meanwhile: NCCL's watchdog does
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            result = compute()
        self._last = graph

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
