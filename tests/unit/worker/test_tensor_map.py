"""Which rank reads what: foreign experts never, everything else exactly as often as it should be."""

import re
from collections import Counter

import pytest

from glm_worker.model.config import ModelConfig
from glm_worker.model.tensor_map import is_mtp, tensor_names, tensor_reads
from glm_worker.parallel.mesh import Mesh
from integration.tiny_models import a_config

CONFIG = ModelConfig.model_validate(a_config(attention_bias=True, use_qk_norm=True))
MESHES = [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (8, 4)]


def meshes(world_size: int, tensor_parallel: int) -> list[Mesh]:
    return [Mesh(world_size, tensor_parallel, rank) for rank in range(world_size)]


@pytest.mark.parametrize(("world_size", "tensor_parallel"), MESHES)
def test_each_expert_is_read_by_one_rank_and_whole(world_size: int, tensor_parallel: int) -> None:
    readers: dict[int, set[int]] = {}
    for mesh in meshes(world_size, tensor_parallel):
        for read in tensor_reads(CONFIG, mesh):
            if match := re.search(r"\.experts\.(\d+)\.", read.name):
                assert read.part is None
                readers.setdefault(int(match[1]), set()).add(mesh.rank)
    assert readers.keys() == set(range(CONFIG.n_routed_experts))
    assert all(len(ranks) == 1 for ranks in readers.values())


@pytest.mark.parametrize(("world_size", "tensor_parallel"), MESHES)
def test_a_tp_group_reads_each_row_and_column_of_attention_and_head_once(world_size: int, tensor_parallel: int) -> None:
    for group in Mesh(world_size, tensor_parallel).tp_groups:
        read_indices: dict[str, Counter[int]] = {}
        lengths: dict[str, int] = {}
        for rank in group:
            for read in tensor_reads(CONFIG, Mesh(world_size, tensor_parallel, rank)):
                if read.part is not None:
                    read_indices.setdefault(read.name, Counter()).update(read.part)
                    lengths[read.name] = read.shape[read.dim]
        assert {name.split(".")[-2] for name in lengths} == {"q_proj", "k_proj", "v_proj", "o_proj", "lm_head"}
        for name, counts in read_indices.items():
            assert counts == Counter(range(lengths[name])), name


def test_one_rank_reads_every_tensor_whole() -> None:
    assert all(read.part_shape == read.shape for read in tensor_reads(CONFIG, Mesh()))


def test_a_rank_without_a_row_of_the_vocabulary_reads_none() -> None:
    config = ModelConfig.model_validate(a_config(vocab_size=3))
    names = [read.name for read in tensor_reads(config, Mesh(4, 4, 3))]
    assert "lm_head.weight" not in names
    assert "model.embed_tokens.weight" in names


def test_the_names_of_glm_4_5_air_are_as_many_as_in_its_checkpoint() -> None:
    """46 layers of 128 experts and 1 dense layer: counted by hand from the layout of the published checkpoint."""
    air = ModelConfig.model_validate(
        a_config(num_hidden_layers=46, n_routed_experts=128, attention_bias=True, first_k_dense_replace=1)
    )
    attention = 4 + 3 + 2  # weights, biases, norms
    assert len(tensor_names(air)) == 3 + 46 * attention + 1 * 3 + 45 * (128 * 3 + 3 + 2)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.eh_proj.weight", True),
        ("model.layers.3.mlp.experts.7.up_proj.weight", True),
        ("model.layers.2.mlp.gate.weight", False),
        ("model.layers.4.eh_proj.weight", False),
        ("model.norm.weight", False),
    ],
)
def test_the_layer_after_the_last_is_mtp(name: str, expected: bool) -> None:
    assert is_mtp(name, CONFIG) is expected
