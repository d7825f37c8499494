"""How long a sequence may be and how many KV blocks a rank can hold: from settings, checkpoint and device.

On a GPU the largest step that there can be is run once before there is a KV cache, to see what it takes. Without that a
cache that fills the device would make the first long prompt fail, long after the start.
"""

from collections.abc import Callable
from itertools import count

import torch

from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.limits import MAX_LOGPROBS
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.errors import ConfigError, EngineFailed
from glm_worker.model.config import ModelConfig
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from glm_worker.scheduler.sequence import SequenceState
from glm_worker.settings import WorkerSettings

CPU_CACHE_BYTES = 256 * 2**20
CUDA_SPARE_SHARE = 0.02  # of the device: for what its libraries load later, and for gaps between allocations
_SAMPLING = SamplingParams(temperature=1.0, top_p=0.5)  # what takes the most memory


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


def largest_step(settings: WorkerSettings, model_len: int) -> ScheduledBatch:
    """Return a step with as many sequences and as many tokens as one may have, each sequence sampled."""
    num_seqs = min(settings.max_num_seqs, settings.max_batch_tokens)
    left = settings.max_batch_tokens - num_seqs  # each has a token already
    block_ids = count()
    sequences = []
    for number in range(num_seqs):
        num_tokens = 1 + min(left, model_len - 1)
        left -= num_tokens - 1
        table = [next(block_ids) for _ in range(blocks_for(num_tokens, settings.block_size))]
        sequences.append(ScheduledSequence(f"trial-{number}", 0, [0] * num_tokens, table, True, _SAMPLING))
    return ScheduledBatch(0, tuple(sequences), (), ())


def room_on_gpu(
    model: GlmMoe,
    mesh: Mesh,
    comm: Communicator,
    settings: WorkerSettings,
    model_len: int,
    kv_dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Return the bytes that a KV cache can have on the GPU that holds the model. Collective: it runs the largest step.

    Raises EngineFailed if there is no room.
    """
    step = largest_step(settings, model_len)
    num_blocks = 1 + max(max(sequence.block_table) for sequence in step.sequences)
    try:
        kv_cache = KVCache.allocate(model.config, mesh, num_blocks, settings.block_size, kv_dtype, device)
        step_bytes = _peak_bytes(Runner(model, kv_cache, comm, device), step, device)
    except torch.OutOfMemoryError as error:
        raise EngineFailed(f"the weights leave no room for the largest step, let alone a KV cache: {error}") from error
    del kv_cache
    torch.cuda.empty_cache()  # what loading and the step left in torch's pool counts as free
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return room_beside_largest_step(free_bytes, total_bytes, step_bytes, model.config.num_hidden_layers)


def _peak_bytes(runner: Runner, step: ScheduledBatch, device: torch.device) -> int:
    """Run a step; return the most bytes that it held at once, besides what was there before."""
    torch.cuda.reset_peak_memory_stats(device)
    held_bytes = torch.cuda.memory_allocated(device)
    Sampler().sample(runner.run(step), [_asks_most(sequence) for sequence in step.sequences])
    return torch.cuda.max_memory_allocated(device) - held_bytes


def _asks_most(sequence: ScheduledSequence) -> SequenceState:
    """Return a sequence that is sampled in the way that takes the most memory."""
    request = EngineRequest(
        request_id=sequence.request_id,
        prompt_token_ids=list(sequence.token_ids),
        max_tokens=1,
        stop_token_ids=[],
        sampling=sequence.sampling,
        num_logprobs=MAX_LOGPROBS,
    )
    return SequenceState(request, arrival=0)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
