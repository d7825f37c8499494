"""Parameter counts against published ones and against the checkpoint that ships."""

import json
import math
import struct
from pathlib import Path

import pytest

from glm_operator.shapes import SHAPES, allowed_tensor, divisors

NANO = Path(__file__).resolve().parents[3] / "worker/models/glm-nano"


def test_the_counts_are_the_published_ones() -> None:
    # Of the main model: 358.3 and 110.5 billion with the MTP layer and its copies, minus those.
    assert round(SHAPES["GLM-4.5"].parameters / 1e9, 2) == 352.80
    assert round(SHAPES["GLM-4.5-Air"].parameters / 1e9, 2) == 106.85


def test_the_count_of_glm_nano_is_that_of_its_checkpoint() -> None:
    with (NANO / "model.safetensors").open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    mtp = f".layers.{SHAPES['glm-nano'].num_layers}."
    tensors = [entry["shape"] for name, entry in header.items() if name != "__metadata__" and mtp not in name]
    assert sum(math.prod(shape) for shape in tensors) == SHAPES["glm-nano"].parameters


def test_the_shape_of_glm_nano_is_that_of_its_config() -> None:
    config, shape = json.loads((NANO / "config.json").read_text()), SHAPES["glm-nano"]
    assert (config["n_routed_experts"], config["num_attention_heads"], config["num_key_value_heads"]) == (
        shape.num_routed_experts,
        shape.num_heads,
        shape.num_kv_heads,
    )
    assert config["max_position_embeddings"] == shape.max_model_len


@pytest.mark.parametrize("name", SHAPES)
def test_ranks_together_hold_each_expert_once(name: str) -> None:
    shape = SHAPES[name]
    for expert in divisors(shape.num_routed_experts):
        held = shape.parameters_per_rank(tensor=1, expert=expert) - shape.replicated_parameters
        assert held * expert == shape.routed_parameters


def test_a_token_of_air_takes_the_published_bytes() -> None:
    assert SHAPES["GLM-4.5-Air"].kv_bytes_per_token(tensor=1, bytes_per_element=2) == 188_416
    assert SHAPES["GLM-4.5-Air"].kv_bytes_per_token(tensor=8, bytes_per_element=2) == 23_552


def test_tensor_degrees_split_heads_and_kv_heads() -> None:
    assert allowed_tensor(SHAPES["GLM-4.5"]) == [1, 2, 4, 8]
    assert allowed_tensor(SHAPES["glm-nano"]) == [1, 2, 4]
