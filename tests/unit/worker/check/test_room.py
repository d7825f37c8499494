"""How many layers fit, by the sizes that published models have."""

import pytest
import torch

from glm_worker.check.room import layers_that_fit, leading_layers, weights_bytes
from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import is_mtp, tensor_names
from integration.tiny_models import a_config

GIB = 2**30
AIR = ModelConfig.model_validate(
    a_config(
        vocab_size=151_552,
        hidden_size=4096,
        num_hidden_layers=46,
        intermediate_size=10_944,
        moe_intermediate_size=1408,
        n_routed_experts=128,
        num_experts_per_tok=8,
        num_attention_heads=96,
        num_key_value_heads=8,
        head_dim=128,
        attention_bias=True,
        max_position_embeddings=131_072,
        num_nextn_predict_layers=1,
    )
)
BF16 = torch.bfloat16


def test_the_weights_of_air_are_those_that_it_is_known_for() -> None:
    assert weights_bytes(AIR, 46, BF16) == pytest.approx(2 * 106.9e9, rel=0.02)


@pytest.mark.parametrize(("free_gib", "num_layers"), [(16, 1), (64, 9), (128, 22), (400, 46)])
def test_as_many_layers_as_fit_are_taken(free_gib: int, num_layers: int) -> None:
    assert layers_that_fit(AIR, BF16, 800, free_gib * GIB) == pytest.approx(num_layers, abs=2)
    taken = weights_bytes(AIR, layers_that_fit(AIR, BF16, 800, free_gib * GIB), BF16)
    assert taken < 0.85 * free_gib * GIB


def test_memory_for_not_even_one_layer_says_how_much_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"4\.0 GiB of memory are free, and embedding, head and one layer need \d+"):
        layers_that_fit(AIR, BF16, 800, 4 * GIB)


@pytest.mark.parametrize("num_layers", [1, 45, 46])
def test_layers_that_are_left_out_are_no_unknown_tensors(num_layers: int) -> None:
    cut = leading_layers(AIR, num_layers)
    later = tensor_names(AIR) - tensor_names(cut) | {"model.layers.46.eh_proj.weight"}
    assert all(is_mtp(name, cut) for name in later)
    assert not any(is_mtp(name, cut) for name in tensor_names(cut))
