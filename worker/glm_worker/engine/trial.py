"""The largest step there can be, run once before there is a KV cache, to see what a step takes of a GPU.

Without it a cache that fills the device would make the first long prompt fail, long after the start.
"""

from itertools import count

import torch

from glm_worker.engine.capacity import room_beside_largest_step
from glm_worker.engine.runner import Runner
from glm_worker.engine.sampling.limits import MAX_LOGPROBS
from glm_worker.engine.sampling.sampler import Sampler
from glm_worker.errors import EngineFailed
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.groups import Communicator
from glm_worker.parallel.mesh import Mesh
from glm_worker.request import EngineRequest, SamplingParams
from glm_worker.scheduler.block_manager import blocks_for
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence
from glm_worker.scheduler.sequence import SequenceState
from glm_worker.settings import WorkerSettings

_SAMPLING = SamplingParams(temperature=1.0, top_p=0.5)  # what takes the most memory


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
    dtype: torch.dtype,
    device: torch.device,
) -> int:
    """Return the bytes that a KV cache can have on the GPU that holds the model. Collective: it runs the largest step.

    Raises EngineFailed if there is no room.
    """
    step = largest_step(settings, model_len)
    num_blocks = 1 + max(max(sequence.block_table) for sequence in step.sequences)
    try:
        kv_cache = KVCache.allocate(model.config, mesh, num_blocks, settings.block_size, dtype, device)
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
