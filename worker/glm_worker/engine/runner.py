"""Runs a plan on this rank's device. The only part of the engine that has the model's tensors."""

from collections import deque
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from glm_worker.engine.batch import BatchBuilder, StepRoom
from glm_worker.engine.look_ahead import DeviceDraws
from glm_worker.engine.sampling.draw import Drawn
from glm_worker.engine.soundness import check_first
from glm_worker.model.glm_moe import GlmMoe
from glm_worker.model.kv_cache import KVCache
from glm_worker.parallel.groups import Communicator
from glm_worker.request import SamplingParams
from glm_worker.scheduler.plan import ScheduledBatch, ScheduledSequence

Logits: TypeAlias = Tensor
"""(S, V) in fp32 on the device, a row for each sampled sequence of a step, the same on every rank."""


class StepWatch(Protocol):
    """Told where this rank is in a step; its heartbeat slot is one. What it does inside of collectives tells more."""

    def beat(self, step: int) -> None: ...
    def alive(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Launched:
    result: Tensor  # logits; of a step that was drawn its tokens, on the host
    done: torch.cuda.Event | None  # when it is there; None: when the device has nothing left to do


class Runner:
    """This rank's part of the model, its KV cache and its device. Steps are waited for in the order of their launch."""

    def __init__(
        self,
        model: GlmMoe,
        kv_cache: KVCache,
        comm: Communicator,
        device: torch.device,
        watch: StepWatch | None = None,
        room: StepRoom | None = None,
        draws: DeviceDraws | None = None,
    ) -> None:
        """room: the most that a step may need; without it the arrays of steps grow as they must.

        draws: where steps may be launched before the tokens of the one before are known.
        """
        self._model = model
        self._kv_cache = kv_cache
        self._comm = comm
        self._device = device
        self._watch = watch
        self._batches = BatchBuilder(kv_cache.block_size, device, room)
        self._draws = draws
        self._launched: deque[_Launched] = deque()

    def launch(self, plan: ScheduledBatch, *, draws: bool = False) -> None:
        """Give a step to the device, which fills the KV slots. On the CPU it is computed here.

        draws: the device draws the tokens as well, and wait_drawn returns them. Collective over all ranks, each with
        the same plan.
        """
        if self._watch is not None:
            self._watch.beat(plan.step)
        if plan.zeroed:
            self._kv_cache.zero(plan.zeroed)
        batch = self._batches.build(plan.sequences)
        if self._draws is not None:
            self._draws.fill(batch, plan)
        step = self._model.plan(batch)
        result: Tensor = self._model(batch, step, self._kv_cache)
        if draws:
            assert self._draws is not None, "a runner that draws was made so"
            result = self._draws.draw(result, plan)
        self._launched.append(_Launched(result, self._mark()))
        if self._watch is not None:
            self._watch.alive()

    def wait(self) -> Logits:
        """Return the logits of the oldest launched step. They are there when it returns, not only on their way.

        Collective in effect: on a GPU it waits for the peers that the step waits for.
        """
        step = self._launched.popleft()
        self._comm.settle(self._device, step.done)
        if self._watch is not None:
            self._watch.alive()
        return step.result

    def wait_drawn(self) -> Drawn:
        """Return what the device drew in the oldest launched step. It waits as wait does."""
        return Drawn.of(self.wait())

    def run(self, plan: ScheduledBatch) -> Logits:
        """Launch a step and wait for it."""
        self.launch(plan)
        return self.wait()

    def _mark(self) -> torch.cuda.Event | None:
        """Return when all that was launched so far is done, where more may be launched before that is waited for."""
        if self._draws is None or self._device.type != "cuda":
            return None
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        return done

    def expert_tokens_by_rank(self) -> list[int]:
        """Return the routed tokens that each rank's experts computed since the last call; none but on rank 0.

        Waits for the device: call it after wait, which leaves nothing to wait for.
        """
        load = self._model.expert_load
        if load is None:
            return []
        tokens_E, num_ranks = load.take(), self._comm.mesh.world_size
        share = len(tokens_E) // num_ranks  # Mesh.experts: contiguous, even
        return [sum(tokens_E[rank * share : (rank + 1) * share]) for rank in range(num_ranks)]

    def warm_up(self) -> None:
        """Run a token through the model, so that what is broken or slow for the first time is so before requests come.

        Collective. It writes to a slot of block 0, which every later owner writes before it reads. Raises EngineFailed
        where nothing but NaN or infinity comes of it.
        """
        sequence = ScheduledSequence("warm-up", 0, [0], [0], is_sampled=True, sampling=SamplingParams())
        check_first(self.run(ScheduledBatch(0, (sequence,), (), ())))
        self.expert_tokens_by_rank()  # what no request asked for counts for nobody
