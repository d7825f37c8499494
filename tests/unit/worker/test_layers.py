"""Layers: the roundings of RMSNorm, RoPE by its definition, the cut of a padded head."""

import math

import pytest
import torch

from glm_worker.errors import ConfigError
from glm_worker.model.config import ModelConfig
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.layers import Placement, RMSNorm, Rotation, VocabParallelHead
from glm_worker.parallel.device import rank_device
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config

hold_torch_to_one_thread()

CPU = torch.device("cpu")


def test_rms_norm_rounds_before_the_weight_multiplies() -> None:
    """Only this order gives the oracle's bits in bf16: normalise in fp32, round, multiply, round."""
    norm = RMSNorm(64, 1e-5, Placement(CPU, torch.bfloat16))
    generator = torch.Generator().manual_seed(0)
    norm.weight.copy_(1 + 0.3 * torch.randn(64, generator=generator))
    x = torch.randn(50, 64, generator=generator).to(torch.bfloat16)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    expected = (exact.to(torch.bfloat16).double() * norm.weight.double()).to(torch.bfloat16)
    other_order = (exact * norm.weight.double()).to(torch.bfloat16)
    assert torch.equal(norm(x), expected)
    assert not torch.equal(norm(x), other_order)


@pytest.mark.parametrize("position", [0, 1, 77, 130_000])
def test_rope_turns_pairs_of_the_two_halves_and_passes_the_rest(position: int) -> None:
    rotary_dim, head_dim, theta = 8, 16, 1e6
    x = torch.randn(1, 3, head_dim, generator=torch.Generator().manual_seed(position))
    found = Rotation(torch.tensor([position]), rotary_dim, theta, torch.float32)(x)
    for pair in range(rotary_dim // 2):
        # The angle is formed in fp32, as the oracle does: at position 130000 that is good to 1e-2
        angle = float(torch.tensor(float(position)) * (1.0 / theta ** (torch.tensor(2.0 * pair) / rotary_dim)))
        a, b = x[0, :, pair], x[0, :, pair + rotary_dim // 2]
        torch.testing.assert_close(found[0, :, pair], a * math.cos(angle) - b * math.sin(angle))
        torch.testing.assert_close(found[0, :, pair + rotary_dim // 2], b * math.cos(angle) + a * math.sin(angle))
    assert torch.equal(found[..., rotary_dim:], x[..., rotary_dim:])


@pytest.mark.parametrize("num_rows", [0, 1, 5])
def test_a_padded_head_gives_the_logits_of_the_vocabulary_only(num_rows: int) -> None:
    head = VocabParallelHead(8, 11, 12, Communicator.single(), Placement(CPU, torch.float32))
    weight = torch.randn(11, 8)
    head.weight[:11].copy_(weight)
    head.weight[11:].fill_(float("nan"))
    x = torch.randn(num_rows, 8)
    torch.testing.assert_close(head(x), x @ weight.T)


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_kv_cache_costs_what_it_says(tensor_parallel: int, dtype: torch.dtype) -> None:
    config, mesh = ModelConfig.model_validate(a_config()), Mesh(4, tensor_parallel)
    cache = KVCache.allocate(config, mesh, num_blocks=7, block_size=5, dtype=dtype, device=CPU)
    allocated = sum(layer.k.nbytes + layer.v.nbytes for layer in cache.layers)
    assert allocated == 7 * KVCache.bytes_per_block(config, mesh, block_size=5, dtype=dtype)


def test_a_cpu_rank_computes_on_the_cpu() -> None:
    assert rank_device("cpu", 3) == CPU


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="there is a CUDA device; tests/gpu has the same test")
def test_a_missing_gpu_is_an_error_and_not_the_cpu() -> None:
    with pytest.raises(ConfigError, match=r"local rank 0 needs GPU 0, this pod sees 0; .*set device to cpu"):
        rank_device("cuda", 0)
