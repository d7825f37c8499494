"""How long a sequence may be and how many KV blocks a rank can hold: numbers from settings, checkpoint and device."""

import torch

from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.settings import WorkerSettings

CPU_CACHE_BYTES = 256 * 2**20
CUDA_CACHE_SHARE = 0.9  # of what is free after loading; the rest is for activations


def torch_dtype(settings: WorkerSettings) -> torch.dtype:
    """Return the type of weights and cache."""
    if settings.dtype == "auto":
        return torch.bfloat16 if settings.device == "cuda" else torch.float32
    return torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32


def max_model_len(settings: WorkerSettings, config: ModelConfig) -> int:
    """Return the tokens of prompt and answer together. Raises ConfigError for more than the model was made for."""
    if settings.max_model_len > config.max_position_embeddings:
        raise ConfigError(
            f"GLM_MAX_MODEL_LEN={settings.max_model_len} is more than "
            f"the {config.max_position_embeddings} tokens the model was made for"
        )
    return settings.max_model_len or config.max_position_embeddings


def cache_bytes(settings: WorkerSettings, device: torch.device) -> int:
    """Return the bytes of this rank's KV cache. Call it after the weights are loaded."""
    if settings.kv_cache_bytes:
        return settings.kv_cache_bytes
    if device.type == "cpu":
        return CPU_CACHE_BYTES
    torch.cuda.empty_cache()  # what loading left in torch's pool counts as free
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return int(free_bytes * CUDA_CACHE_SHARE)


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
