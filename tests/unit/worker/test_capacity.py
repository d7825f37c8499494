"""Numbers from settings, checkpoint and device: limits are explicit, and what cannot be is refused with a sentence."""

import pytest
import torch

from glm_worker.engine.capacity import cache_bytes, max_model_len, num_blocks_that_fit, torch_dtype
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.settings import WorkerSettings

MIB = 2**20


def some_settings(**changes: object) -> WorkerSettings:
    return WorkerSettings(model="/nowhere", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "auto", torch.float32),
        ("cuda", "auto", torch.bfloat16),
        ("cpu", "bfloat16", torch.bfloat16),
        ("cuda", "float32", torch.float32),
    ],
)
def test_auto_is_the_fast_type_of_the_device_and_a_choice_is_kept(
    device: str, dtype: str, expected: torch.dtype
) -> None:
    assert torch_dtype(some_settings(device=device, dtype=dtype)) == expected


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (99, 99), (100, 100)])
def test_the_model_length_is_what_is_asked_or_what_the_checkpoint_says(asked: int, given: int) -> None:
    config = ModelConfig.model_construct(max_position_embeddings=100)
    assert max_model_len(some_settings(max_model_len=asked), config) == given


def test_more_than_the_model_was_made_for_is_refused() -> None:
    config = ModelConfig.model_construct(max_position_embeddings=100)
    with pytest.raises(ConfigError, match="GLM_MAX_MODEL_LEN=101 is more than the 100 tokens"):
        max_model_len(some_settings(max_model_len=101), config)


def test_the_cache_of_a_cpu_rank_has_a_quarter_of_a_gib_unless_told_otherwise() -> None:
    assert cache_bytes(some_settings(), torch.device("cpu")) == 256 * MIB
    assert cache_bytes(some_settings(kv_cache_bytes=7), torch.device("cpu")) == 7


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
