"""Whole layers in C against the modules that they replace, over the same weights, cache and batches."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glm_worker.kernels.cpu import library
from glm_worker.kernels.cpu.library import available_isas
from glm_worker.model.config import ModelConfig
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.rank_pool import hold_torch_to_one_thread
from integration.tiny_models import a_config, write_checkpoint

hold_torch_to_one_thread()

CPU = torch.device("cpu")
BLOCK_SIZE, BLOCKS_EACH = 4, 30
SHAPES = {
    "plain": a_config(),
    "norms and biases": a_config(use_qk_norm=True, attention_bias=True, routed_scaling_factor=2.5),
    "dense layers only": a_config(first_k_dense_replace=2, num_hidden_layers=2),
    "experts only": a_config(first_k_dense_replace=0, num_hidden_layers=1, norm_topk_prob=False),
    "odd widths": a_config(
        hidden_size=40,
        head_dim=12,
        moe_intermediate_size=24,
        intermediate_size=37,
        vocab_size=101,
        use_qk_norm=True,
    ),
}
# Context and new tokens of each sequence in each step
STEPS = (
    ([1], [1]),
    ([9, 100, 1], [9, 100, 1]),
    ([10, 101, 2], [1, 1, 1]),
    ([110, 3], [100, 1]),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp("model") for name in SHAPES}
    for name, folder in made.items():
        write_checkpoint(folder, SHAPES[name])
    return made


@pytest.fixture(params=available_isas())
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(library.VARIABLE, request.param)
    return str(request.param)


def a_batch(lens: Sequence[int], news: Sequence[int], vocab_size: int) -> ForwardBatch:
    """Return the last `news` tokens of sequences of these lengths; which tokens they are is fixed by where they are."""
    ids, positions, slots, ends, rows, tables = [], [], [], [0], [], []
    for i, (length, new) in enumerate(zip(lens, news, strict=True)):
        table = [i + len(lens) * j if len(lens) == 3 else 3 * j + i for j in range(BLOCKS_EACH)]
        tables.append(table)
        for position in range(length - new, length):
            ids.append((position * 31 + i * 7) % vocab_size)
            positions.append(position)
            slots.append(table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE)
        ends.append(len(ids))
        rows.append(len(ids) - 1)
    return HostBatch.of(ids, positions, slots, ends, lens, tables, rows).on_device(BLOCK_SIZE, CPU)


def logits(folder: Path, num_threads: int, dtype: torch.dtype = torch.float32) -> tuple[GlmMoe, list[Tensor]]:
    """Return the model and its logits of every step; num_threads: of the kernels, 0: torch computes."""
    config = ModelConfig.read(folder)
    model = load_model(folder, config, Mesh(), Communicator.single(), CPU, dtype)
    if num_threads:
        model.use_kernels(num_threads)
    cache = KVCache.allocate(config, Mesh(), 3 * BLOCKS_EACH, BLOCK_SIZE, dtype, CPU)
    batches = [a_batch(lens, news, config.vocab_size) for lens, news in STEPS]
    return model, [model(batch, model.plan(batch), cache) for batch in batches]


@pytest.mark.parametrize("name", SHAPES)
def test_layers_in_c_give_the_logits_of_the_modules_and_count_the_same_experts(
    folders: dict[str, Path], name: str, isa: str
) -> None:
    """fp32 on both sides: the tolerance is that of sums in another order, over a few layers."""
    plain, expected = logits(folders[name], 0)
    model, found = logits(folders[name], 2)
    assert (plain.kernels, model.kernels) == ("torch", f"cpu-{isa}")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert plain.expert_load is not None
    assert model.expert_load is not None
    assert model.expert_load.take() == plain.expert_load.take()


@pytest.mark.parametrize("num_threads", [2, 3, 4])
def test_threads_change_no_bit(folders: dict[str, Path], num_threads: int, isa: str) -> None:
    _, alone = logits(folders["odd widths"], 1)
    _, together = logits(folders["odd widths"], num_threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_weights_in_bf16_are_close_to_the_same_in_fp32(folders: dict[str, Path], isa: str) -> None:
    """Rounded weights, keys, values and, where products are bf16, activations: some percent of the logits' size."""
    _, wide = logits(folders["norms and biases"], 1)
    _, narrow = logits(folders["norms and biases"], 2, torch.bfloat16)
    for a, b in zip(wide, narrow, strict=True):
        assert (a - b).norm() < 0.05 * a.norm()
        assert not torch.equal(a, b)


def test_without_the_library_torch_computes(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "of-the-future")
    model, found = logits(folders["plain"], 2)
    assert model.kernels == "torch"
    assert len(found) == len(STEPS)
