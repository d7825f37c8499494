"""A step ahead: the next step is launched while one runs whose tokens nobody on the host knows yet.

The tokens of a step that may be passed are drawn on the device, and the step behind it takes them there. Every rank
draws for itself, from equal logits and by numbers that are a function of seed and position, so nothing is exchanged;
what rank 0 has drawn is what counts, and a rank that drew anything else ends itself when it hears of it.

The device takes steps in the order of their launch. So what is written for a request that has ended meanwhile is
written before its blocks are anybody else's, and before they are zeroed.

NOT RUN ON A GPU YET. Shape suffixes: S rows of a step, T tokens of a batch.
"""

import numpy as np
import torch
from torch import Tensor

from glm_worker.engine.sampling.draw import draw_on_device
from glm_worker.engine.sampling.penalties import has_penalty
from glm_worker.kernels.cpu.sample import SampleKernel
from glm_worker.kernels.to_device import to_device
from glm_worker.model.forward_batch import ForwardBatch
from glm_worker.request import EngineRequest
from glm_worker.scheduler.plan import UNKNOWN_TOKEN, ScheduledBatch
from glm_worker.settings import WorkerSettings


def looks_ahead(settings: WorkerSettings) -> bool:
    """Return whether steps are launched ahead. auto: where Triton computes, which is asked for by whoever tries it."""
    if settings.look_ahead == "auto":
        return settings.device == "cuda" and settings.cuda_kernels == "triton"
    return settings.look_ahead == "on"


def can_be_passed(request: EngineRequest, num_generated: int) -> bool:
    """Return whether the device alone can draw a request's next token, by the tokens' number and not by themselves.

    num_generated: tokens of the answer before this one. Greedy, temperature, filters and seed need no more than the
    logits. Penalties, bans and grammars need the token before; logprobs and biases are the host's work. Stop tokens are
    banned until min_tokens are there; a thought cannot be cut before as many tokens as its budget has were generated.
    """
    return (
        num_generated >= request.min_tokens
        and not has_penalty(request.sampling)
        and not request.sampling.logit_bias
        and not request.bad_words
        and request.num_logprobs is None
        and request.grammar is None
        and (request.thought is None or num_generated < request.thought.max_tokens)
    )


class DeviceDraws:
    """Draws the tokens of steps on the device, and keeps those of the last one for the step behind it."""

    def __init__(self, kernel: SampleKernel | None = None) -> None:
        """kernel: draws in place of torch; the logits are on the CPU then."""
        self._kernel = kernel
        self._token_ids_S = torch.empty(0, dtype=torch.int64)
        self._row_of: dict[str, int] = {}  # by request

    @torch.inference_mode()
    def fill(self, batch: ForwardBatch, plan: ScheduledBatch) -> None:
        """Put the tokens of the last step where this one has UNKNOWN_TOKEN; on the CPU, into the host's array."""
        rows = [self._row_of[s.request_id] for s in plan.sequences if s.token_ids[-1] == UNKNOWN_TOKEN]
        if rows:
            places_S = to_device(np.flatnonzero(batch.host.token_ids_T == UNKNOWN_TOKEN), batch.token_ids_T.device)
            rows_S = to_device(np.array(rows), batch.token_ids_T.device)
            batch.token_ids_T[places_S] = self._token_ids_S[rows_S].clamp_(min=0)  # a broken row goes on for nothing

    @torch.inference_mode()
    def draw(self, logits_SV: Tensor, plan: ScheduledBatch) -> Tensor:
        """Draw a token for each row; return them on their way to the host, as Drawn.of takes them."""
        sampled = plan.sampled
        params, positions = [s.sampling for s in sampled], [s.end for s in sampled]
        self._token_ids_S = draw_on_device(logits_SV, params, positions, self._kernel, asks_host=False)
        self._row_of = {sequence.request_id: row for row, sequence in enumerate(sampled)}
        if self._token_ids_S.device.type == "cpu":
            return self._token_ids_S
        on_host_S = torch.empty(len(sampled), dtype=torch.int64, pin_memory=True)
        return on_host_S.copy_(self._token_ids_S, non_blocking=True)
