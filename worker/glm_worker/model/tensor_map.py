"""Which tensors of a checkpoint a rank reads, which part of each, and what they fill. Pure: no file, no torch.

Fused parameters: qkv_proj is q, k, v rows of this rank's heads; gate_up_proj is gate rows, then up rows. Experts are
read one by one, under names of their own, so a rank never touches another rank's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from glm_worker.model.config import ModelConfig
from glm_worker.parallel.mesh import Mesh


@dataclass(frozen=True)
class TensorRead:
    """Read part (indices along dim) of the tensor called name into rows of a parameter."""

    name: str
    shape: tuple[int, ...]  # of the whole tensor, as the checkpoint must have it
    parameter: str
    part: range | None = None  # None: all of it
    dim: int = 0
    expert: int | None = None  # index into the parameter's first dim; the rows are counted inside it
    first_row: int = 0

    @property
    def part_shape(self) -> tuple[int, ...]:
        if self.part is None:
            return self.shape
        return (*self.shape[: self.dim], len(self.part), *self.shape[self.dim + 1 :])

    @property
    def num_elements(self) -> int:
        return prod(self.part_shape)


def tensor_reads(config: ModelConfig, mesh: Mesh) -> list[TensorRead]:
    """Return every read of this rank. Parts that are empty (a vocabulary smaller than its ranks) are left out."""
    reads = [
        TensorRead("model.embed_tokens.weight", (config.vocab_size, config.hidden_size), "embed_tokens.weight"),
        TensorRead("model.norm.weight", (config.hidden_size,), "norm.weight"),
        TensorRead(
            "lm_head.weight",
            (config.vocab_size, config.hidden_size),
            "lm_head.weight",
            part=mesh.vocab(config.vocab_size),
        ),
    ]
    for layer_id in range(config.num_hidden_layers):
        reads += _attention_reads(config, mesh, f"model.layers.{layer_id}", f"layers.{layer_id}")
        mlp = _dense_reads if config.is_dense(layer_id) else _moe_reads
        reads += mlp(config, mesh, f"model.layers.{layer_id}.mlp", f"layers.{layer_id}.mlp")
    return [read for read in reads if read.num_elements]


def tensor_names(config: ModelConfig) -> set[str]:
    """Return the names that a checkpoint must have, whoever reads them."""
    return {read.name for read in tensor_reads(config, Mesh())}


def is_mtp(name: str, config: ModelConfig) -> bool:
    """Return whether the tensor belongs to the multi-token-prediction layers, which follow the last decoder layer."""
    match = re.match(r"model\.layers\.(\d+)\.", name)
    return match is not None and 0 <= int(match[1]) - config.num_hidden_layers < max(1, config.num_mtp_layers)


def _attention_reads(config: ModelConfig, mesh: Mesh, source: str, target: str) -> Iterator[TensorRead]:
    hidden, head_dim = config.hidden_size, config.head_dim
    yield TensorRead(f"{source}.input_layernorm.weight", (hidden,), f"{target}.attention_norm.weight")
    yield TensorRead(f"{source}.post_attention_layernorm.weight", (hidden,), f"{target}.mlp_norm.weight")
    first_row = 0
    projections = (
        ("q", config.num_attention_heads, "num_attention_heads"),
        *((letter, config.num_key_value_heads, "num_key_value_heads") for letter in "kv"),
    )
    for letter, num_heads, what in projections:
        rows = _rows(mesh.heads(num_heads, what), head_dim)
        name, parameter = f"{source}.self_attn.{letter}_proj", f"{target}.attention.qkv_proj"
        yield TensorRead(
            f"{name}.weight", (num_heads * head_dim, hidden), f"{parameter}.weight", rows, first_row=first_row
        )
        if config.attention_bias:
            yield TensorRead(f"{name}.bias", (num_heads * head_dim,), f"{parameter}.bias", rows, first_row=first_row)
        first_row += len(rows)
    columns = _rows(mesh.heads(config.num_attention_heads, "num_attention_heads"), head_dim)
    shape = (hidden, config.num_attention_heads * head_dim)
    yield TensorRead(f"{source}.self_attn.o_proj.weight", shape, f"{target}.attention.o_proj.weight", columns, dim=1)
    if config.use_qk_norm:
        for letter in "qk":
            name = f"{letter}_norm.weight"
            yield TensorRead(f"{source}.self_attn.{name}", (head_dim,), f"{target}.attention.{name}")


def _dense_reads(config: ModelConfig, mesh: Mesh, source: str, target: str) -> Iterator[TensorRead]:  # noqa: ARG001 - whole on every rank
    return _mlp_reads(config.hidden_size, config.intermediate_size, source, target)


def _moe_reads(config: ModelConfig, mesh: Mesh, source: str, target: str) -> Iterator[TensorRead]:
    num_experts, hidden, width = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
    yield TensorRead(f"{source}.gate.weight", (num_experts, hidden), f"{target}.router.weight")
    yield TensorRead(f"{source}.gate.e_score_correction_bias", (num_experts,), f"{target}.router.correction_bias")
    yield from _mlp_reads(hidden, width * config.n_shared_experts, f"{source}.shared_experts", f"{target}.shared")
    for index, expert in enumerate(mesh.experts(num_experts)):
        name, parameter = f"{source}.experts.{expert}", f"{target}.experts"
        gate_up = f"{parameter}.gate_up_proj"
        yield TensorRead(f"{name}.gate_proj.weight", (width, hidden), gate_up, expert=index)
        yield TensorRead(f"{name}.up_proj.weight", (width, hidden), gate_up, expert=index, first_row=width)
        yield TensorRead(f"{name}.down_proj.weight", (hidden, width), f"{parameter}.down_proj", expert=index)


def _mlp_reads(hidden: int, width: int, source: str, target: str) -> Iterator[TensorRead]:
    yield TensorRead(f"{source}.gate_proj.weight", (width, hidden), f"{target}.gate_up_proj.weight")
    yield TensorRead(f"{source}.up_proj.weight", (width, hidden), f"{target}.gate_up_proj.weight", first_row=width)
    yield TensorRead(f"{source}.down_proj.weight", (hidden, width), f"{target}.down_proj.weight")


def _rows(heads: range, head_dim: int) -> range:
    return range(heads.start * head_dim, heads.stop * head_dim)
