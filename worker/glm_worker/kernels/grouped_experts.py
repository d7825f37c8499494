"""The feed-forward of several experts at once, each over its own rows.

Shape suffixes: R rows sorted by expert, D hidden size, I width of an expert, L experts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_experts(x_RD: Tensor, ends_L: Tensor, gate_up_L2ID: Tensor, down_LDI: Tensor) -> Tensor:
    """Return down(silu(gate(x)) * up(x)) of each row's expert, as (R, D); gate's rows come first in gate_up.

    ends_L (int32) is one past the last row of each expert. Rows past ends_L[-1] are not computed and hold anything.
    One grouped matrix product per projection on the device, without asking the host how many rows an expert has.
    """
    gate_up = F.grouped_mm(x_RD, gate_up_L2ID.transpose(-2, -1), offs=ends_L)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.grouped_mm(F.silu(gate) * up, down_LDI.transpose(-2, -1), offs=ends_L)


def grouped_experts_plain(x_RD: Tensor, ends_L: Tensor, gate_up_L2ID: Tensor, down_LDI: Tensor) -> Tensor:
    """Return the same with a loop over experts; rows past ends_L[-1] are zero."""
    y_RD = torch.zeros_like(x_RD)
    start = 0
    for expert, end in enumerate(ends_L.tolist()):
        gate, up = F.linear(x_RD[start:end], gate_up_L2ID[expert]).chunk(2, dim=-1)
        y_RD[start:end] = F.linear(F.silu(gate) * up, down_LDI[expert])
        start = end
    return y_RD
