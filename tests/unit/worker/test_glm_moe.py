"""The whole model on one rank, against itself: what must not change its logits. For the oracle see test_parity.py."""

from pathlib import Path

import pytest
import torch

from glm_worker.heartbeat import RankSlot, create_slots
from glm_worker.model.config import ModelConfig
from glm_worker.model.forward_batch import ForwardBatch, HostBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.model.weights import load_model
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from integration.rank_pool import hold_torch_to_one_thread
from integration.teacher_forcing import mixed_steps, teacher_forced_logits, whole_prompts
from integration.tiny_models import a_config, write_checkpoint

hold_torch_to_one_thread()

CPU = torch.device("cpu")
CONFIG = ModelConfig.model_validate(a_config(attention_bias=True, use_qk_norm=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), a_config(attention_bias=True, use_qk_norm=True))


@pytest.fixture(scope="module")
def model(folder: Path) -> GlmMoe:
    return load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.float32)


def a_cache() -> KVCache:
    return KVCache.allocate(CONFIG, Mesh(), 4, 16, torch.float32, CPU)


def one_prompt(num_tokens: int, logit_rows: list[int]) -> ForwardBatch:
    positions = range(num_tokens)
    token_ids = [position + 5 for position in positions]
    tables = [list(range(-(-num_tokens // 16)))] if num_tokens else []
    lens = [num_tokens] if num_tokens else []
    return HostBatch.of(token_ids, positions, positions, [0, *lens], lens, tables, logit_rows).on_device(16, CPU)


def logits_of(model: GlmMoe, batch: ForwardBatch, cache: KVCache) -> torch.Tensor:
    logits_SV: torch.Tensor = model(batch, model.plan(batch), cache)
    return logits_SV


def test_a_step_without_tokens_gives_no_logits(model: GlmMoe) -> None:
    assert logits_of(model, one_prompt(0, []), a_cache()).shape == (0, CONFIG.vocab_size)


def test_a_chunk_whose_logits_nobody_wants_gives_none_but_fills_the_cache(model: GlmMoe) -> None:
    cache = a_cache()
    assert logits_of(model, one_prompt(20, []), cache).shape == (0, CONFIG.vocab_size)
    written = [layer.k.flatten(0, 1).abs().sum((1, 2)) > 0 for layer in cache.layers]
    assert all(slots.tolist() == [True] * 20 + [False] * 44 for slots in written)


def test_asked_for_some_rows_gives_those_of_all_in_that_order(model: GlmMoe) -> None:
    every, some = (logits_of(model, one_prompt(20, rows), a_cache()) for rows in (list(range(20)), [19, 3]))
    torch.testing.assert_close(some, every[[19, 3]], atol=1e-6, rtol=0)


def test_a_lone_rank_says_that_it_is_alive_in_every_layer(folder: Path, tmp_path: Path) -> None:
    """A step of one rank on CPU may last longer than the watchdog is patient."""
    create_slots(tmp_path / "slots", 1)
    slot = RankSlot.open(tmp_path / "slots", 0)
    model = load_model(folder, CONFIG, Mesh(), Communicator(Mesh(), slot, {}), CPU, torch.float32)
    changed_ns = []
    for layer in model.layers:
        layer.register_forward_hook(lambda *_: changed_ns.append(slot.snapshot().changed_ns))
    logits_of(model, one_prompt(20, [19]), a_cache())
    assert len(set(changed_ns)) == len(model.layers) > 1
    assert slot.snapshot().changed_ns > changed_ns[-1]  # before the tokens are sampled
    assert not slot.snapshot().in_collective
    slot.close()


@pytest.mark.parametrize("block_size", [1, 3, 64])
def test_the_size_of_a_block_and_the_division_into_steps_do_not_change_the_logits(
    model: GlmMoe, block_size: int
) -> None:
    prompts = [torch.arange(n) % CONFIG.vocab_size for n in (1, 40, 65)]
    expected = teacher_forced_logits(model, Mesh(), prompts, whole_prompts(prompts))
    found = teacher_forced_logits(model, Mesh(), prompts, mixed_steps(prompts, block_size), block_size, seed=block_size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("block_size", [1, 3, 64])
def test_a_fixed_order_gives_the_same_logits_to_rounding(folder: Path, model: GlmMoe, block_size: int) -> None:
    fixed = load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.float32, fixed_order=True)
    prompts = [torch.arange(n) % CONFIG.vocab_size for n in (1, 40, 200, 401)]
    expected = teacher_forced_logits(model, Mesh(), prompts, whole_prompts(prompts))
    found = teacher_forced_logits(fixed, Mesh(), prompts, mixed_steps(prompts, block_size), block_size, seed=block_size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_fixed_order_fills_up_what_a_step_or_its_logits_lack_and_counts_no_load_for_it(folder: Path) -> None:
    fixed = load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.float32, fixed_order=True)
    load = fixed.expert_load
    assert load is not None
    for num_tokens, rows in ((0, []), (1, []), (1, [0]), (5, [4, 0]), (8, [7])):
        assert logits_of(fixed, one_prompt(num_tokens, rows), a_cache()).shape == (len(rows), CONFIG.vocab_size)
        assert sum(load.take()) == num_tokens * CONFIG.num_experts_per_tok * 2  # layers with experts


def test_bf16_gives_the_logits_of_fp32_to_the_precision_of_bf16(folder: Path, model: GlmMoe) -> None:
    """bf16 keeps 8 bits: each of some 20 roundings in a row moves values of order 1 by 1/256 or less, at random.

    A near tie of the router may flip an expert and move a token's logits by more: rare, so most rows must be close.
    """
    narrow = load_model(folder, CONFIG, Mesh(), Communicator.single(), CPU, torch.bfloat16)
    prompts = [torch.arange(n) % CONFIG.vocab_size for n in (1, 33, 100)]
    expected = torch.cat(teacher_forced_logits(model, Mesh(), prompts, whole_prompts(prompts)))
    found = torch.cat(teacher_forced_logits(narrow, Mesh(), prompts, mixed_steps(prompts, 0)))
    assert found.dtype == torch.float32
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.quantile(0.8) < 0.03
    assert error.max() < 0.5
