"""Runs a plan on this rank's device. The only part of the engine that makes the model's tensors."""

import torch
from torch import Tensor

from glm_worker.engine.batch import build
from glm_worker.model.forward_batch import ForwardBatch
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.groups import Communicator
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence


class Runner:
    """This rank's part of the model, its KV cache and its device."""

    def __init__(self, model: GlmMoe, kv_cache: KVCache, comm: Communicator, device: torch.device) -> None:
        self._model = model
        self._kv_cache = kv_cache
        self._comm = comm
        self._device = device

    def run(self, plan: ScheduledBatch) -> Tensor:
        """Return logits (S, V) in fp32, a row for each sampled sequence, the same on every rank; fill the KV slots.

        They are there when it returns, not only on their way.

        Collective over all ranks, each with the same plan.
        """
        indices = build(plan.sequences, self._kv_cache.block_size)
        batch = ForwardBatch(
            token_ids_T=self._ids(indices.token_ids),
            positions_T=self._ids(indices.positions),
            slots_T=self._ids(indices.slots),
            cu_query_lens=indices.cu_query_lens,
            context_lens=indices.context_lens,
            block_tables=indices.block_tables,
            logit_rows_S=self._ids(indices.logit_rows),
        )
        logits_SV: Tensor = self._model(batch, self._kv_cache)
        self._comm.settle(self._device)
        return logits_SV

    def expert_tokens_by_rank(self) -> list[int]:
        """Return the routed tokens that each rank's experts computed since the last call; none but on rank 0.

        Waits for the device: call it after run, which leaves nothing to wait for.
        """
        load = self._model.expert_load
        if load is None:
            return []
        tokens_E, num_ranks = load.take(), self._comm.mesh.world_size
        share = len(tokens_E) // num_ranks  # Mesh.experts: contiguous, even
        return [sum(tokens_E[rank * share : (rank + 1) * share]) for rank in range(num_ranks)]

    def warm_up(self) -> None:
        """Run a token through the model, so that what is broken or slow for the first time is so before requests come.

        Collective. It writes to a slot of block 0, which every later owner writes before it reads.
        """
        sequence = ScheduledSequence("warm-up", 0, [0], [0], is_sampled=True, sampling=SamplingParams())
        self.run(ScheduledBatch(0, (sequence,), (), ()))
        self.expert_tokens_by_rank()  # what no request asked for counts for nobody

    def _ids(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)
