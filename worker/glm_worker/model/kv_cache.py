"""The KV cache of one rank: blocks of slots, per layer, for this rank's KV heads. Which request owns a block is not its
business: the scheduler's block manager keeps those books."""

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from glm_worker.model.config import ModelConfig
from glm_worker.parallel.mesh import Mesh


@dataclass(frozen=True)
class LayerKV:
    """Keys and values of one layer: (blocks, block_size, KV heads, head_dim)."""

    k: Tensor
    v: Tensor

    def write(self, slots_T: Tensor, k_TVD: Tensor, v_TVD: Tensor) -> None:
        """Store each token's key and value in its slot, in the cache's own type. slots_T holds no slot twice."""
        self.k.flatten(0, 1).index_copy_(0, slots_T, k_TVD.to(self.k.dtype))
        self.v.flatten(0, 1).index_copy_(0, slots_T, v_TVD.to(self.v.dtype))


@dataclass(frozen=True)
class KVCache:
    """The cache of all layers."""

    layers: list[LayerKV]
    num_blocks: int
    block_size: int

    @classmethod
    def allocate(
        cls, config: ModelConfig, mesh: Mesh, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> "KVCache":
        """Allocate num_blocks blocks. Zeroed: attention hides unused slots by weight 0, and 0 times NaN is NaN."""
        num_heads = len(mesh.heads(config.num_key_value_heads, "num_key_value_heads"))
        shape = (2, num_blocks, block_size, num_heads, config.head_dim)
        tensors = [_zeros(shape, dtype, device) for _ in range(config.num_hidden_layers)]
        return cls([LayerKV(kv[0], kv[1]) for kv in tensors], num_blocks, block_size)

    @torch.inference_mode()
    def zero(self, blocks: Sequence[int]) -> None:
        """Fill blocks with zeros in every layer, so that what is not finite in them reaches no later owner."""
        ids = torch.tensor(blocks, device=self.layers[0].k.device)
        for layer in self.layers:
            layer.k.index_fill_(0, ids, 0)
            layer.v.index_fill_(0, ids, 0)

    @staticmethod
    def bytes_per_block(config: ModelConfig, mesh: Mesh, block_size: int, dtype: torch.dtype) -> int:
        """Return what one block costs a rank over all layers."""
        num_heads = len(mesh.heads(config.num_key_value_heads, "num_key_value_heads"))
        return 2 * config.num_hidden_layers * block_size * num_heads * config.head_dim * dtype.itemsize


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return torch.zeros(shape), on the CPU without touching it.

    The kernel hands out zeroed pages when they are first used: a new generation of ranks does not wait for a cache to
    be filled that is mostly never reached, and the pod does not pay for it.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
