"""The input of one forward pass, on the device and once more on the host.

Shape suffixes: T tokens of the step, B sequences, M blocks of the longest of them, S rows whose logits are wanted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Hear: TypeAlias = Callable[[int, Tensor], object]
"""Told what enters the first layer, with 0, and what layer i returns, with i + 1: (T, D), maybe with rows beyond the
step's tokens. Who wants to keep it copies it."""


@dataclass(frozen=True)
class HostBatch:
    """Tokens of several sequences, one after the other, and where their keys and values live.

    The arrays may be views of buffers that the next step writes anew: who wants to keep one copies it.
    """

    token_ids_T: NDArray[np.int64]  # a token that only the device knows stands as UNKNOWN_TOKEN (scheduler/plan.py)
    positions_T: NDArray[np.int64]  # of each token in its sequence
    slots_T: NDArray[np.int64]  # flat KV slot (block * block_size + offset) that each token's key and value go to
    cu_query_lens_B1: NDArray[np.int32]  # where each sequence's tokens begin in T, and T
    context_lens_B: NDArray[np.int32]  # KV length of each sequence, this step's tokens included
    block_tables_BM: NDArray[np.int32]  # blocks of each sequence in order, 0 past its end; the row stride may exceed M
    logit_rows_S: NDArray[np.int64]  # of T

    @classmethod
    def of(
        cls,
        token_ids: Sequence[int],
        positions: Sequence[int],
        slots: Sequence[int],
        cu_query_lens: Sequence[int],
        context_lens: Sequence[int],
        block_tables: Sequence[Sequence[int]],
        logit_rows: Sequence[int],
    ) -> "HostBatch":
        """Return the batch of plain lists, in arrays of its own."""
        return cls(
            np.array(token_ids, dtype=np.int64),
            np.array(positions, dtype=np.int64),
            np.array(slots, dtype=np.int64),
            np.array(cu_query_lens, dtype=np.int32),
            np.array(context_lens, dtype=np.int32),
            padded_tables(block_tables),
            np.array(logit_rows, dtype=np.int64),
        )

    @property
    def arrays(self) -> tuple[NDArray[np.int64] | NDArray[np.int32], ...]:
        """The arrays in the order of ForwardBatch's tensors."""
        return (
            self.token_ids_T,
            self.positions_T,
            self.slots_T,
            self.logit_rows_S,
            self.cu_query_lens_B1,
            self.context_lens_B,
            self.block_tables_BM,
        )

    def on_cpu(self) -> list[Tensor]:
        """Return tensors of the same memory, in the order of ForwardBatch's."""
        return [torch.from_numpy(array) for array in self.arrays]

    def on_device(self, block_size: int, device: torch.device) -> "ForwardBatch":
        """Return the forward batch: the same memory on the CPU, copies on a GPU."""
        return ForwardBatch.of(self, [tensor.to(device) for tensor in self.on_cpu()], block_size)


@dataclass(frozen=True)
class ForwardBatch:
    """A HostBatch as tensors on the device. On the CPU they are the host's memory."""

    token_ids_T: Tensor  # int64
    positions_T: Tensor  # int64
    slots_T: Tensor  # int64
    logit_rows_S: Tensor  # int64
    cu_query_lens_B1: Tensor  # int32
    context_lens_B: Tensor  # int32
    block_tables_BM: Tensor  # int32
    host: HostBatch  # for planning without a look at the device
    block_size: int  # slots of a block
    max_query_len: int  # tokens that one sequence has in this step, at most; 0 without sequences
    max_context_len: int

    def has_arrays_of(self, other: "ForwardBatch") -> bool:
        """Whether both have the very same tensors, so that whatever is in them has the same shapes and places."""
        return self.token_ids_T is other.token_ids_T and self.block_tables_BM is other.block_tables_BM

    @classmethod
    def of(
        cls,
        host: HostBatch,
        tensors: Sequence[Tensor],
        block_size: int,
        *,
        max_query_len: int | None = None,
        max_context_len: int | None = None,
    ) -> "ForwardBatch":
        """Return the batch of tensors in the order of the fields. What is not told of lengths is looked up."""
        token_ids_T, positions_T, slots_T, logit_rows_S, cu_query_lens_B1, context_lens_B, block_tables_BM = tensors
        if max_query_len is None:
            max_query_len = int(np.diff(host.cu_query_lens_B1).max(initial=0))
        if max_context_len is None:
            max_context_len = int(host.context_lens_B.max(initial=0))
        return cls(
            token_ids_T,
            positions_T,
            slots_T,
            logit_rows_S,
            cu_query_lens_B1,
            context_lens_B,
            block_tables_BM,
            host=host,
            block_size=block_size,
            max_query_len=max_query_len,
            max_context_len=max_context_len,
        )


def padded_tables(block_tables: Sequence[Sequence[int]]) -> NDArray[np.int32]:
    """Return block tables as rows of equal length, 0 past the end of each."""
    padded_BM = np.zeros((len(block_tables), max(map(len, block_tables), default=0)), dtype=np.int32)
    for row_M, table in zip(padded_BM, block_tables, strict=True):
        row_M[: len(table)] = table
    return padded_BM
