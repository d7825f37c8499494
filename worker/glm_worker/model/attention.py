"""Grouped-query attention with optional QK norm and half-rotary RoPE, over this rank's heads.

Shape suffixes: T tokens of the step, D hidden size, H query heads and V KV heads on this rank.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from glm_worker.kernels.fixed_attention import FixedPlan, fixed_attention
from glm_worker.kernels.paged_attention import AttentionPlan, paged_attention
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import LayerKV
from glm_worker.model.layers import Linear, Placement, RMSNorm, Rotation, RowParallelLinear


@dataclass(frozen=True)
class AttentionStep:
    """What the attention layers of one step share."""

    rotation: Rotation
    slots_T: Tensor  # fewer than T where rows fill up the step
    plan: AttentionPlan | FixedPlan

    def attend(self, q_THD: Tensor, kv: LayerKV) -> Tensor:
        """Return (T, H, D)."""
        if isinstance(self.plan, FixedPlan):
            return fixed_attention(q_THD, kv.k, kv.v, self.plan)
        return paged_attention(q_THD, kv.k, kv.v, self.plan)


class Attention(nn.Module):
    """Heads given to this rank; o_proj adds up what the ranks of a tp group made of theirs."""

    def __init__(
        self, config: ModelConfig, num_heads: int, num_kv_heads: int, o_proj: RowParallelLinear, place: Placement
    ) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.split = (num_heads, num_kv_heads, num_kv_heads)
        self.qkv_proj = Linear(config.hidden_size, sum(self.split) * config.head_dim, place, bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, place) if config.use_qk_norm else None
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, place) if config.use_qk_norm else None
        self.o_proj = o_proj

    def forward(self, x_TD: Tensor, step: AttentionStep, kv: LayerKV) -> Tensor:
        """Return (T, D). Stores this step's keys and values in kv, then reads the whole context from it."""
        qkv = self.qkv_proj(x_TD).unflatten(-1, (-1, self.head_dim))
        q_THD, k_TVD, v_TVD = qkv.split(self.split, dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q_THD, k_TVD = self.q_norm(q_THD), self.k_norm(k_TVD)
        q_THD, k_TVD = step.rotation(q_THD), step.rotation(k_TVD)
        num_tokens = len(step.slots_T)
        kv.write(step.slots_T, k_TVD[:num_tokens], v_TVD[:num_tokens])
        out_TD: Tensor = self.o_proj(step.attend(q_THD, kv).flatten(1))
        return out_TD
