"""How long a sequence may be and how many KV blocks a rank can hold: numbers from settings, checkpoint and device."""

from collections.abc import Callable

from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.settings import WorkerSettings

CPU_CACHE_BYTES = 256 * 2**20
CUDA_SPARE_SHARE = 0.02  # of the device: for what its libraries load later, and for gaps between allocations


def max_model_len(settings: WorkerSettings, config: ModelConfig) -> int:
    """Return the tokens of prompt and answer together. Raises ConfigError for more than the model was made for."""
    if settings.max_model_len > config.max_position_embeddings:
        raise ConfigError(
            f"GLM_MAX_MODEL_LEN={settings.max_model_len} is more than "
            f"the {config.max_position_embeddings} tokens the model was made for"
        )
    return settings.max_model_len or config.max_position_embeddings


def cache_bytes(settings: WorkerSettings, room_on_gpu: Callable[[], int]) -> int:
    """Return the bytes of this rank's KV cache: what is asked for, or what there is room for."""
    if settings.kv_cache_bytes:
        return settings.kv_cache_bytes
    return CPU_CACHE_BYTES if settings.device == "cpu" else room_on_gpu()


def room_beside_largest_step(free_bytes: int, total_bytes: int, step_bytes: int, num_layers: int) -> int:
    """Return the bytes of a KV cache that fills a GPU with weights on it, and leaves room for the largest step.

    step_bytes: what that step takes besides weights and cache. Attention gathers the keys and values of a step's
    sequences, one layer at a time, padded to at most twice their length: so it takes up to two layers' share of the
    cache once more.
    Raises EngineFailed if nothing is left.
    """
    left_bytes = free_bytes - step_bytes - int(total_bytes * CUDA_SPARE_SHARE)
    if left_bytes <= 0:
        raise EngineFailed(
            f"no room for a KV cache: {_gib(free_bytes)} of {_gib(total_bytes)} are free beside the weights, and the "
            f"largest step takes {_gib(step_bytes)}; use more ranks, or lower GLM_MAX_BATCH_TOKENS or GLM_MAX_NUM_SEQS"
        )
    return int(left_bytes / (1 + 2 / num_layers))


def num_blocks_that_fit(settings: WorkerSettings, num_bytes: int, bytes_per_block: int, model_len: int) -> int:
    """Return how many KV blocks a rank makes of num_bytes: no more than all sequences at their longest can use.

    Raises ConfigError or EngineFailed when not even one fits.
    """
    num_blocks = num_bytes // bytes_per_block
    if num_blocks < 1 and settings.kv_cache_bytes:
        raise ConfigError(
            f"GLM_KV_CACHE_BYTES={num_bytes} is less than one block of {settings.block_size} tokens; "
            f"use at least {bytes_per_block}"
        )
    if num_blocks < 1:
        raise EngineFailed(f"{num_bytes} bytes are left for the KV cache, and one block needs {bytes_per_block}")
    return min(num_blocks, settings.max_num_seqs * blocks_for(model_len, settings.block_size))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
