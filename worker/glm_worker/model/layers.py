"""Layers that attention and MLP are made of. Where ranks share a layer, its communicator does the exchange.

Shape suffixes: T tokens, D hidden size, H heads, R rotated dims of a head, I width of an MLP, V vocabulary.
Parameters are allocated, not initialised: weights.py fills them.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_worker.kernels.cpu.large_pages import Slabs
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Axis


@dataclass(frozen=True)
class Placement:
    """Where a module's parameters live and in which type."""

    device: torch.device
    dtype: torch.dtype
    fixed_order: bool = False  # whether a row's bits must not depend on its neighbours; on a CPU only
    slabs: Slabs = field(default_factory=Slabs, repr=False, compare=False)  # of a CPU; one behind the other

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> nn.Parameter:
        dtype = dtype or self.dtype
        is_near = self.device.type == "cpu"
        tensor = self.slabs.empty(shape, dtype) if is_near else torch.empty(shape, device=self.device, dtype=dtype)
        return nn.Parameter(tensor, requires_grad=False)


class Linear(nn.Module):
    """y = x W^T (+ b), all of it or this rank's rows of it."""

    def __init__(self, in_features: int, out_features: int, place: Placement, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = place.empty(out_features, in_features)
        self.bias = place.empty(out_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class RowParallelLinear(nn.Module):
    """y = x W^T where each rank holds the columns of W that its part of x meets. Collective over tp."""

    def __init__(self, local_in_features: int, out_features: int, comm: Communicator, place: Placement) -> None:
        super().__init__()
        self.weight = place.empty(out_features, local_in_features)
        self.comm = comm

    def forward(self, x: Tensor) -> Tensor:
        return self.comm.all_reduce(F.linear(x, self.weight), Axis.TP)


class VocabParallelHead(nn.Module):
    """Logits of the whole vocabulary from heads that hold an equal share of rows each, padded. Collective over tp."""

    def __init__(
        self, hidden_size: int, vocab_size: int, local_rows: int, comm: Communicator, place: Placement
    ) -> None:
        super().__init__()
        self.weight = place.empty(local_rows, hidden_size)
        self.vocab_size = vocab_size
        self.comm = comm

    def forward(self, x_TD: Tensor) -> Tensor:
        logits_TV = self.comm.all_gather(F.linear(x_TD, self.weight), Axis.TP)
        return logits_TV[:, : self.vocab_size]  # cuts off padding, which is unset and at the end


class Embedding(nn.Module):
    """The vector of each token. Every rank holds all of it: a lookup costs nothing, an exchange would."""

    def __init__(self, vocab_size: int, hidden_size: int, place: Placement) -> None:
        super().__init__()
        self.weight = place.empty(vocab_size, hidden_size)

    def forward(self, token_ids_T: Tensor) -> Tensor:
        return F.embedding(token_ids_T, self.weight)


class RMSNorm(nn.Module):
    """Divide by the root mean square of the last dim, in fp32, cast back *before* the weight multiplies."""

    def __init__(self, size: int, eps: float, place: Placement) -> None:
        super().__init__()
        self.weight = place.empty(size)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class MLP(nn.Module):
    """down(silu(gate(x)) * up(x)), whole on every rank.

    Dense layers and the shared expert are not split: they are 0.1 % to 2 % of a model, Air's width 10944 has no even
    share that kernels like (10944 / 8 = 1368), and the all-reduce that a split needs costs more than it saves.
    """

    def __init__(self, hidden_size: int, width: int, place: Placement) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden_size, 2 * width, place)
        self.down_proj = Linear(width, hidden_size, place)

    def forward(self, x_TD: Tensor) -> Tensor:
        gate_TI, up_TI = self.gate_up_proj(x_TD).chunk(2, dim=-1)
        out_TD: Tensor = self.down_proj(F.silu(gate_TI) * up_TI)
        return out_TD


def rotation_angles(positions_T: Tensor, rotary_dim: int, theta: float) -> Tensor:
    """Return (T, rotary_dim / 2) in fp32: by how much each pair of dims is rotated."""
    dims = torch.arange(0, rotary_dim, 2, dtype=torch.float, device=positions_T.device)
    return positions_T[:, None].float() * (1.0 / theta ** (dims / rotary_dim))


class Rotation:
    """Cosines and sines of a step's positions, computed once for all layers. NeoX halves, first R dims of a head."""

    def __init__(self, positions_T: Tensor, rotary_dim: int, theta: float, dtype: torch.dtype) -> None:
        angles_TR = rotation_angles(positions_T, rotary_dim, theta).repeat(1, 2)
        self.rotary_dim = rotary_dim
        self.cos_T1R = angles_TR.cos().to(dtype).unsqueeze(1)
        self.sin_T1R = angles_TR.sin().to(dtype).unsqueeze(1)

    def __call__(self, x_THD: Tensor) -> Tensor:
        rotated, passed = x_THD[..., : self.rotary_dim], x_THD[..., self.rotary_dim :]
        first, second = rotated.chunk(2, dim=-1)
        rotated = rotated * self.cos_T1R + torch.cat((-second, first), dim=-1) * self.sin_T1R
        return torch.cat((rotated, passed), dim=-1)
