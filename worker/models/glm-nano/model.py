"""GLM-4.5's architecture (glm4_moe) in plain torch, small, for training and judging glm-nano on a CPU.

Owns the maths and the mapping to Hugging Face tensor names. The layers work on positions in any layout; what sees
what is decided by the attend function given: RowsAttention (training: rows end to end, nothing padded) or
CachedAttention (decoding). The numerics follow transformers' modeling_glm4_moe.py: the same weights give the same
fp32 logits (check_parity.py).

Shape suffixes: B sequences, S positions of each, T positions of all, D hidden size, N heads, H head size, E experts,
K experts per token, C cached positions, V vocabulary. No suffix: any leading dims.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]  # (layer_id, q, k, v), each (..., N, H)


@dataclass(frozen=True)
class Config:
    """The fields of config.json that decide the forward pass."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    partial_rotary_factor: float
    rope_theta: float
    rms_norm_eps: float
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int

    @classmethod
    def read(cls, path: Path) -> "Config":
        values = json.loads(path.read_text(encoding="utf-8"))
        config = cls(**{field.name: values[field.name] for field in fields(cls)})
        if config.num_key_value_heads != config.num_attention_heads:
            raise ValueError(f"{path}: this model has as many KV heads as heads, not {config.num_key_value_heads}")
        return config


class RowsAttention:
    """Causal attention within each row of a batch that holds its rows end to end."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)

    def __call__(self, layer_id: int, q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor) -> Tensor:  # noqa: ARG002
        rows = zip(*(torch.split(x.transpose(0, 1), self.lengths, 1) for x in (q_TNH, k_TNH, v_TNH)), strict=True)
        y_NTH = torch.cat([F.scaled_dot_product_attention(q, k, v, is_causal=True) for q, k, v in rows], 1)
        return y_NTH.transpose(0, 1)


class CachedAttention:
    """Attention over a growing cache, one row a sequence, under a mask that is set before each step."""

    def __init__(self, num_layers: int) -> None:
        self.cache: list[tuple[Tensor, Tensor] | None] = [None] * num_layers
        self.mask_BSC = torch.empty(0)

    def __call__(self, layer_id: int, q_BSNH: Tensor, k_BSNH: Tensor, v_BSNH: Tensor) -> Tensor:
        k_BNCH, v_BNCH = k_BSNH.transpose(1, 2), v_BSNH.transpose(1, 2)
        past = self.cache[layer_id]
        if past is not None:
            k_BNCH, v_BNCH = torch.cat((past[0], k_BNCH), 2), torch.cat((past[1], v_BNCH), 2)
        self.cache[layer_id] = k_BNCH, v_BNCH
        mask = self.mask_BSC[:, None]
        return F.scaled_dot_product_attention(q_BSNH.transpose(1, 2), k_BNCH, v_BNCH, attn_mask=mask).transpose(1, 2)

    def keep(self, rows_B: Tensor) -> None:
        """Drop the other rows."""
        self.cache = [None if past is None else (past[0][rows_B], past[1][rows_B]) for past in self.cache]


def rotary_tables(config: Config, length: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin, (length, rotated dims / 2) each."""
    rotated = int(config.head_dim * config.partial_rotary_factor)
    inverse_frequency = config.rope_theta ** -(torch.arange(0, rotated, 2, dtype=torch.float32) / rotated)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * inverse_frequency
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first dims of each head (NeoX halves) of (..., N, H); the rest passes through."""
    cos, sin = rotary
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, config: Config, layer_id: int) -> None:
        super().__init__()
        width = config.num_attention_heads * config.head_dim
        self.layer_id = layer_id
        self.heads = config.num_attention_heads, config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, width)
        self.v_proj = nn.Linear(config.hidden_size, width)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        q, k, v = (project(x).unflatten(-1, self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed = attend(self.layer_id, rotate(self.q_norm(q), rotary), rotate(self.k_norm(k), rotary), v)
        output: Tensor = self.o_proj(mixed.flatten(-2))
        return output


class MLP(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, width, bias=False)
        self.up_proj = nn.Linear(size, width, bias=False)
        self.down_proj = nn.Linear(width, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Router(nn.Module):
    """Sigmoid scores; the correction bias only selects, it does not weigh."""

    e_score_correction_bias: Tensor
    load_E: Tensor  # how many tokens each expert got since the last balance()

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts))
        self.register_buffer("load_E", torch.zeros(config.n_routed_experts), persistent=False)
        self.top_k = config.num_experts_per_tok

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        scores_TE = F.linear(x_TD, self.weight).sigmoid()
        ids_TK = (scores_TE.detach() + self.e_score_correction_bias).topk(self.top_k, -1).indices
        weights_TK = scores_TE.gather(1, ids_TK)
        if self.training:
            self.load_E += ids_TK.flatten().bincount(minlength=len(self.load_E))
        return weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20), ids_TK

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """Move the bias of every expert one small step towards equal load (DeepSeek-V3's balancing without a loss)."""
        self.e_score_correction_bias += rate * (self.load_E.mean() - self.load_E).sign()
        self.load_E.zero_()


class MoE(nn.Module):
    """Routed experts, grouped by expert, plus the shared one. The experts are stacked: gate and up, then down."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        experts, width, size = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.gate = Router(config)
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * width, size))
        self.down = nn.Parameter(torch.empty(experts, size, width))
        self.shared_experts = MLP(size, width)

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.flatten(0, -2)
        weights_TK, ids_TK = self.gate(x_TD)
        order = ids_TK.flatten().argsort(stable=True)
        tokens_per_expert = ids_TK.flatten().bincount(minlength=len(self.down)).tolist()
        token_ids = order // ids_TK.shape[1]
        outputs = []
        rows_of_experts = torch.split(x_TD[token_ids], tokens_per_expert)
        for rows, gate_up, down in zip(rows_of_experts, self.gate_up, self.down, strict=True):
            gate, up = F.linear(rows, gate_up).chunk(2, -1)
            outputs.append(F.linear(F.silu(gate) * up, down))
        weighted = torch.cat(outputs) * weights_TK.flatten()[order, None]
        mixed_TD = torch.zeros_like(x_TD).index_add(0, token_ids, weighted)
        output: Tensor = mixed_TD.view_as(x) + self.shared_experts(x)
        return output


class DecoderLayer(nn.Module):
    def __init__(self, config: Config, layer_id: int) -> None:
        super().__init__()
        is_dense = layer_id < config.first_k_dense_replace
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer_id)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size) if is_dense else MoE(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotary, attend)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class SharedHead(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class NextTokenLayer(DecoderLayer):
    """The MTP layer: from the hidden state at t and the token at t + 1, predict the token at t + 2."""

    def __init__(self, config: Config, layer_id: int) -> None:
        super().__init__(config, layer_id)
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.shared_head = SharedHead(config)


class Backbone(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [DecoderLayer(config, layer_id) for layer_id in range(config.num_hidden_layers)]
        self.layers = nn.ModuleList([*layers, NextTokenLayer(config, config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class GlmNano(nn.Module):
    """The language model and its MTP layer, which is the last of model.layers as in the checkpoint."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.model = Backbone(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config, 2048)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02 if "embed_tokens" in name else parameter.shape[-1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight", "mlp.down")):
                parameter.data /= (2 * len(self.model.layers)) ** 0.5

    def hidden(self, ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Return the states after the final norm: what lm_head and the MTP layer read."""
        x, rotary = self.model.embed_tokens(ids), self._rotary(position_ids)
        for layer in self.model.layers[: self.config.num_hidden_layers]:
            x = layer(x, rotary, attend)
        output: Tensor = self.model.norm(x)
        return output

    def draft_hidden(self, next_ids: Tensor, hidden: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Return the MTP states; position t sees the token at t + 1 and the final-norm state at t."""
        layer = self.model.layers[-1]
        assert isinstance(layer, NextTokenLayer)
        embedded = layer.enorm(self.model.embed_tokens(next_ids))
        x = layer.eh_proj(torch.cat((embedded, layer.hnorm(hidden)), -1))
        output: Tensor = layer.shared_head.norm(layer(x, self._rotary(position_ids), attend))
        return output

    def routers(self) -> list[Router]:
        return [module for module in self.modules() if isinstance(module, Router)]

    def _rotary(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.cos[position_ids][..., None, :], self.sin[position_ids][..., None, :]


def to_checkpoint(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under Hugging Face names: bf16, one matrix an expert, the correction bias in fp32."""
    checkpoint: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("e_score_correction_bias"):
            checkpoint[name] = tensor.float().clone()
        elif name.endswith(("mlp.gate_up", "mlp.down")):
            stem, kind = name.rsplit(".", 1)
            for expert_id, weight in enumerate(tensor.bfloat16()):
                expert = f"{stem}.experts.{expert_id}"
                if kind == "down":
                    checkpoint[f"{expert}.down_proj.weight"] = weight.clone()
                else:
                    gate, up = weight.chunk(2)
                    checkpoint[f"{expert}.gate_proj.weight"] = gate.clone()
                    checkpoint[f"{expert}.up_proj.weight"] = up.clone()
        else:
            checkpoint[name] = tensor.bfloat16().clone()
    return checkpoint


def from_checkpoint(checkpoint: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return the state of GlmNano in fp32: the inverse of to_checkpoint, but for the rounding."""
    state = {name: tensor.float() for name, tensor in checkpoint.items() if ".mlp.experts." not in name}
    for layer_id in range(config.first_k_dense_replace, config.num_hidden_layers + 1):
        stem = f"model.layers.{layer_id}.mlp"
        experts = [f"{stem}.experts.{expert_id}" for expert_id in range(config.n_routed_experts)]
        gate_up = [
            torch.cat((checkpoint[f"{expert}.gate_proj.weight"], checkpoint[f"{expert}.up_proj.weight"]))
            for expert in experts
        ]
        state[f"{stem}.gate_up"] = torch.stack(gate_up).float()
        state[f"{stem}.down"] = torch.stack([checkpoint[f"{expert}.down_proj.weight"] for expert in experts]).float()
    return state
