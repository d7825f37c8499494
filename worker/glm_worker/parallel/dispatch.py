"""The one seam of expert parallelism: tokens go out to the ranks that hold their experts, results come back mixed.

Shape suffixes: T tokens on this rank, D hidden size, K experts per token, L experts on this rank, C = T * K copies, R
rows: C, or more where the rows of an expert are filled up (kernels/fixed_order.py).

All shapes depend on T, K and L only, never on where tokens were routed, and nothing is copied to the host: so a decode
step can be captured as a CUDA graph. The price: R rows are allocated for a rank, whatever share of them is its own.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from glm_worker.kernels.fixed_order import LEAST_ROWS
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis


@dataclass(frozen=True)
class Dispatched:
    """Copies of tokens in the order of this rank's experts, and the way back."""

    x_RD: Tensor  # rows of expert 0, then of expert 1, ...; rows past ends_L[-1] are computed by nobody here
    ends_L: Tensor  # int32: one past the last row of each expert
    is_foreign_R: Tensor  # whether the row is not computed here
    row_TK: Tensor  # the row of each copy
    weights_TK: Tensor  # float32: how much each copy counts


class Dispatcher(Protocol):
    """Collective: every rank of the EP axis calls dispatch and combine for every MoE layer, even with T == 0."""

    def dispatch(self, x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """Return the copies of tokens that this rank's experts must compute."""
        ...

    def combine(self, y_RD: Tensor, dispatched: Dispatched) -> Tensor:
        """Return (T, D): per token the weighted sum of what its experts made, wherever they are."""
        ...


class LocalDispatcher:
    """All experts are on this rank."""

    def __init__(self, experts: range, *, fixed_order: bool = False) -> None:
        """fixed_order: fill the rows of each expert up; on a CPU only."""
        self.experts = experts
        self._sort = _sort_and_fill_up if fixed_order else sort_by_expert

    def dispatch(self, x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        return self._sort(x_TD, expert_ids_TK, weights_TK, self.experts)

    def combine(self, y_RD: Tensor, dispatched: Dispatched) -> Tensor:
        return mix(y_RD, dispatched)


class AllReduceDispatcher:
    """Every rank has all tokens, computes those of its own experts, and the ranks add up. Best up to 8 ranks."""

    def __init__(self, experts: range, comm: Communicator, *, fixed_order: bool = False) -> None:
        """fixed_order: fill the rows of each expert up; on a CPU only."""
        self.experts = experts
        self.comm = comm
        self._sort = _sort_and_fill_up if fixed_order else sort_by_expert

    def dispatch(self, x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        return self._sort(x_TD, expert_ids_TK, weights_TK, self.experts)

    def combine(self, y_RD: Tensor, dispatched: Dispatched) -> Tensor:
        # Rows of other ranks hold whatever was in memory, NaN too: they must be replaced, a weight of 0 would not do
        own_RD = y_RD.masked_fill(dispatched.is_foreign_R.unsqueeze(-1), 0.0)
        return self.comm.all_reduce(mix(own_RD, dispatched), Axis.EP)


def sort_by_expert(x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor, experts: range) -> Dispatched:
    """Return the copies of tokens sorted by expert; copies for experts outside the range come last."""
    num_local = len(experts)
    local_ids_TK = expert_ids_TK - experts.start
    is_local_TK = (local_ids_TK >= 0) & (local_ids_TK < num_local)
    sorted_R, order_R = torch.where(is_local_TK, local_ids_TK, num_local).flatten().sort(stable=True)
    row_R = torch.empty_like(order_R)
    row_R[order_R] = torch.arange(order_R.numel(), device=order_R.device)
    experts_L = torch.arange(num_local, device=order_R.device)
    return Dispatched(
        x_RD=x_TD.index_select(0, order_R // expert_ids_TK.shape[1]),
        ends_L=torch.searchsorted(sorted_R, experts_L, right=True, out_int32=True),
        is_foreign_R=sorted_R == num_local,
        row_TK=row_R.view_as(expert_ids_TK),
        weights_TK=weights_TK,
    )


def _sort_and_fill_up(x_TD: Tensor, expert_ids_TK: Tensor, weights_TK: Tensor, experts: range) -> Dispatched:
    """Do the same with the rows of each expert filled up by copies of some token. In numpy: a CPU has the ids here."""
    num_local, num_chosen = len(experts), expert_ids_TK.shape[1]
    ids_C = expert_ids_TK.numpy().reshape(-1) - experts.start
    ids_C = np.where((ids_C >= 0) & (ids_C < num_local), ids_C, num_local)
    order_C = ids_C.argsort(kind="stable")
    counts_L = np.bincount(ids_C, minlength=num_local + 1)[:num_local]
    ends_L = (-(-counts_L // LEAST_ROWS) * LEAST_ROWS).cumsum()
    num_rows = len(ids_C) + (LEAST_ROWS - 1) * min(num_local, len(ids_C))
    num_before = np.concatenate([[0], ends_L - counts_L.cumsum()])  # rows that fill up before each expert, and the last
    place_C = np.arange(len(ids_C)) + num_before[ids_C[order_C]]
    source_R, row_C = np.zeros(num_rows, dtype=np.int64), np.empty_like(order_C)
    source_R[place_C] = order_C // num_chosen
    row_C[order_C] = place_C
    return Dispatched(
        x_RD=x_TD.index_select(0, torch.from_numpy(source_R)),
        ends_L=torch.from_numpy(ends_L.astype(np.int32)),
        is_foreign_R=torch.from_numpy(np.arange(num_rows) >= ends_L[-1]),
        row_TK=torch.from_numpy(row_C).view_as(expert_ids_TK),
        weights_TK=weights_TK,
    )


def mix(y_RD: Tensor, dispatched: Dispatched) -> Tensor:
    """Return (T, D): each token's copies, weighted and added up in fp32."""
    y_TKD = y_RD.index_select(0, dispatched.row_TK.flatten()).view(*dispatched.row_TK.shape, y_RD.shape[-1])
    return torch.einsum("tkd,tk->td", y_TKD.float(), dispatched.weights_TK).to(y_RD.dtype)
