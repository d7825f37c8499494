"""The planner's floor counts no weight that a rank of the worker does not read, and hardly leaves one out."""

from dataclasses import asdict
from math import prod
from typing import Any

import pytest

from glm_operator.shapes import SHAPES, Shape
from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import TensorRead, tensor_reads
from glm_worker.parallel.mesh import Mesh


def config_of(shape: Shape) -> ModelConfig:
    """Return the config.json of a shape, as the worker reads it."""
    given = asdict(shape)
    raw: dict[str, Any] = {
        "model_type": "glm4_moe",
        "num_hidden_layers": given["num_layers"],
        "first_k_dense_replace": given["num_dense_layers"],
        "n_routed_experts": given["num_routed_experts"],
        "num_experts_per_tok": given["num_experts_per_token"],
        "n_shared_experts": given["num_shared_experts"],
        "num_attention_heads": given["num_heads"],
        "num_key_value_heads": given["num_kv_heads"],
        "use_qk_norm": given["qk_norm"],
        "attention_bias": True,
        "max_position_embeddings": given["max_model_len"],
        "routed_scaling_factor": 1.0,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        **{key: given[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size")},
        "head_dim": given["head_dim"],
    }
    return ModelConfig.model_validate(raw)


def num_always_read(reads: list[TensorRead]) -> int:
    """Return the parameters that every token is computed from; of the embedding it takes one row, of experts some."""
    return sum(prod(read.part_shape) for read in reads if read.expert is None and "embed_tokens" not in read.name)


@pytest.mark.parametrize(
    ("name", "tensor", "expert"),
    [
        ("glm-nano", 1, 1),
        ("glm-nano", 2, 4),
        ("GLM-4.5-Air", 1, 1),
        ("GLM-4.5-Air", 1, 8),
        ("GLM-4.5-Air", 4, 4),
        ("GLM-4.5", 8, 8),
        ("GLM-4.5", 8, 16),
    ],
)
def test_the_floor_counts_what_a_rank_reads_for_a_token(name: str, tensor: int, expert: int) -> None:
    shape = SHAPES[name]
    config = config_of(shape)
    num_moe_layers = shape.num_layers - shape.num_dense_layers
    routed = num_moe_layers * config.num_experts_per_tok / expert * shape.expert_parameters
    counted = shape.active_parameters_per_rank(tensor=tensor, expert=expert) + shape.head_parameters_per_rank(
        tensor=tensor
    )
    for rank in {0, expert - 1}:
        is_read = num_always_read(tensor_reads(config, Mesh(expert, tensor, rank))) + routed
        assert 0.999 * is_read <= counted <= is_read
