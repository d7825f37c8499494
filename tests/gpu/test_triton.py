"""Kernels in Triton and decode graphs on a GPU. Nobody has run this yet: it decides if they may become the default.

It runs what tests/unit/worker/kernels/interpreted/ runs by the interpreter in fp32 and fp16, here in bf16.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glm_worker.kernels.paged_attention import paged_attention_plain
from glm_worker.model.config import ModelConfig
from glm_worker.model.decode_graphs import GraphRoom
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.tiny_models import a_config, write_checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.device_count() == 0, reason="NOT TESTED: no CUDA device here, so no kernel in Triton was compiled"
    ),
]
DEVICE, BLOCK_SIZE = torch.device("cuda"), 16


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (12, 1), (24, 8)])
@pytest.mark.parametrize(
    "batch", [[(1, 1)], [(1, 1), (1, 3000), (1, 17)], [(2, 2), (64, 64)], [(1, 33), (20, 20), (7, 500)]], ids=str
)
def test_attention_equals_its_definition(
    batch: list[tuple[int, int]], num_heads: int, num_kv_heads: int, head_dim: int
) -> None:
    """bf16 keeps 8 bits, as in test_cuda.py."""
    from glm_worker.kernels.cuda.paged_attention import CudaPlan, paged_attention

    generator = torch.Generator("cuda").manual_seed(0)
    counts = [-(-context // BLOCK_SIZE) for _, context in batch]
    free = list(range(sum(counts) + 1))
    tables = [[free.pop() for _ in range(count)] for count in counts]
    shape = (sum(counts) + 1, BLOCK_SIZE, num_kv_heads, head_dim)
    k, v = (torch.randn(shape, generator=generator, device=DEVICE).bfloat16() for _ in range(2))
    lens, contexts = (np.array(x, dtype=np.int32) for x in zip(*batch, strict=True))
    starts = [0, *np.cumsum(lens).tolist()]
    q = torch.randn(starts[-1], num_heads, head_dim, generator=generator, device=DEVICE).bfloat16()
    padded = [table + [0] * (max(counts) - len(table)) for table in tables]
    ints = [torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in (starts, contexts.tolist(), padded)]
    plan = CudaPlan.of_step(lens, ints[0], ints[1], ints[2], num_heads // num_kv_heads, num_kv_heads)
    expected = paged_attention_plain(q, k, v, starts, contexts.tolist(), tables)
    torch.testing.assert_close(paged_attention(q, k, v, plan), expected, atol=2e-2, rtol=2e-2)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[GlmMoe, GlmMoe]:
    """The same weights, computed by torch and by Triton."""
    raw = a_config(attention_bias=True, use_qk_norm=True, routed_scaling_factor=2.5)
    folder: Path = write_checkpoint(tmp_path_factory.mktemp("tiny"), raw)
    config = ModelConfig.model_validate(raw)
    by_torch, by_triton = (
        load_model(folder, config, Mesh(), Communicator.single(), DEVICE, torch.float32) for _ in range(2)
    )
    by_triton.use_triton()
    return by_torch, by_triton


def decode(position: int, num_seqs: int) -> ForwardBatch:
    """A token at this position for each sequence; sequence i has block i, and the cache as many positions."""
    numbers = list(range(num_seqs))
    return HostBatch.of(
        [5 + position + n for n in numbers],
        [position] * num_seqs,
        [n * BLOCK_SIZE + position for n in numbers],
        [*numbers, num_seqs],
        [position + 1] * num_seqs,
        [[n] for n in numbers],
        numbers,
    ).on_device(BLOCK_SIZE, DEVICE)


def logits_of(model: GlmMoe, cache: KVCache, num_seqs: int) -> Tensor:
    steps = [decode(position, num_seqs) for position in range(BLOCK_SIZE)]
    return torch.stack([model(batch, model.plan(batch), cache) for batch in steps])


@pytest.mark.parametrize("has_graphs", [False, True])
@pytest.mark.parametrize("num_seqs", [1, 3, 8])
def test_decode_steps_have_the_logits_that_torch_gives(
    models: tuple[GlmMoe, GlmMoe], num_seqs: int, has_graphs: bool
) -> None:
    """fp32 without tf32: sums in another order only."""
    caches = [KVCache.allocate(models[0].config, Mesh(), 8, BLOCK_SIZE, torch.float32, DEVICE) for _ in range(2)]
    told: list[tuple[int, int]] = []
    if has_graphs:
        models[1].capture_graphs(caches[1], GraphRoom(8, 1, BLOCK_SIZE), lambda done, total: told.append((done, total)))
        assert told[-1] == (4, 4)
    expected, found = (logits_of(model, cache, num_seqs) for model, cache in zip(models, caches, strict=True))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
