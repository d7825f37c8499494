"""Numbers from settings, checkpoint and device: limits are explicit, and what cannot be is refused with a sentence."""

import pytest

from glm_worker.engine.memory import (
    cache_bytes,
    largest_step,
    max_model_len,
    num_blocks_that_fit,
    room_beside_largest_step,
)
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.settings import WorkerSettings

MIB = 2**20


def some_settings(**changes: object) -> WorkerSettings:
    return WorkerSettings(model="/nowhere", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (99, 99), (100, 100)])
def test_the_model_length_is_what_is_asked_or_what_the_checkpoint_says(asked: int, given: int) -> None:
    config = ModelConfig.model_construct(max_position_embeddings=100)
    assert max_model_len(some_settings(max_model_len=asked), config) == given


def test_more_than_the_model_was_made_for_is_refused() -> None:
    config = ModelConfig.model_construct(max_position_embeddings=100)
    with pytest.raises(ConfigError, match="GLM_MAX_MODEL_LEN=101 is more than the 100 tokens"):
        max_model_len(some_settings(max_model_len=101), config)


def test_the_cache_of_a_rank_is_as_asked_or_the_room_there_is_and_on_a_cpu_a_quarter_of_a_gib() -> None:
    assert cache_bytes(some_settings(), lambda: 3) == 256 * MIB
    assert cache_bytes(some_settings(device="cuda"), lambda: 3) == 3
    for device in ("cpu", "cuda"):
        assert cache_bytes(some_settings(device=device, kv_cache_bytes=7), lambda: 3) == 7


def test_a_cache_leaves_a_gpu_the_largest_step_and_two_layers_gathered() -> None:
    room = room_beside_largest_step(free_bytes=21_000, total_bytes=50_000, step_bytes=5_000, num_layers=4)
    assert room + 2 * room / 4 == 21_000 - 5_000 - 50_000 // 50


def test_no_room_beside_the_largest_step_is_told_with_the_numbers() -> None:
    gib = 2**30
    with pytest.raises(EngineFailed, match=r"4\.0 GiB of 80\.0 GiB are free .* step takes 3\.0 GiB; use more ranks"):
        room_beside_largest_step(4 * gib, 80 * gib, 3 * gib, num_layers=4)


@pytest.mark.parametrize(("num_bytes", "num_blocks"), [(100, 1), (199, 1), (200, 2), (10**9, 2 * 4)])
def test_blocks_fill_the_bytes_but_no_more_than_all_sequences_can_use(num_bytes: int, num_blocks: int) -> None:
    settings = some_settings(max_num_seqs=2, block_size=16)
    assert num_blocks_that_fit(settings, num_bytes, bytes_per_block=100, model_len=64) == num_blocks


def test_a_cache_without_a_single_block_is_refused_and_whoever_chose_it_is_named() -> None:
    with pytest.raises(
        ConfigError, match="GLM_KV_CACHE_BYTES=99 is less than one block of 16 tokens; use at least 100"
    ):
        num_blocks_that_fit(some_settings(kv_cache_bytes=99), 99, bytes_per_block=100, model_len=64)
    with pytest.raises(EngineFailed, match="99 bytes are left for the KV cache, and one block needs 100"):
        num_blocks_that_fit(some_settings(), 99, bytes_per_block=100, model_len=64)


@pytest.mark.parametrize(
    ("max_batch_tokens", "max_num_seqs", "model_len", "num_tokens"),
    [(2048, 64, 4096, 2048), (2048, 64, 100, 2048), (2048, 2, 100, 200), (16, 64, 4096, 16), (16, 1, 1, 1)],
)
def test_the_largest_step(max_batch_tokens: int, max_num_seqs: int, model_len: int, num_tokens: int) -> None:
    settings = WorkerSettings(model="/nowhere", max_batch_tokens=max_batch_tokens, max_num_seqs=max_num_seqs)
    step = largest_step(settings, model_len)
    assert step.num_tokens == num_tokens
    assert len(step.sampled) == len(step.sequences) == min(max_num_seqs, max_batch_tokens)
    assert all(1 <= len(sequence.token_ids) <= model_len for sequence in step.sequences)
    assert all(len(s.block_table) * settings.block_size >= s.end for s in step.sequences)
    block_ids = [block for sequence in step.sequences for block in sequence.block_table]
    assert len(block_ids) == len(set(block_ids))
