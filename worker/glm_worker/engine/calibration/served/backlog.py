"""What a group takes for requests that all come at once: foretold from the costs of its steps. Pure.

The real scheduler plans the steps, so nothing but their costs is a model here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from glm_worker.engine.calibration.costs import step_s
from glm_worker.engine.calibration.experiments import ragged_lengths
from glm_worker.engine.calibration.points import StepPoint
from glm_worker.engine.calibration.result import DecodeCost, PrefillCost
from glm_worker.request import EngineRequest
from glm_worker.scheduler.limits import SchedulerLimits
from glm_worker.scheduler.plan import ScheduledBatch
from glm_worker.scheduler.scheduler import Scheduler

FILLS = 4  # of all seats
LEAST_ANSWER = 24  # tokens; the longest has nearly twice as many


@dataclass(frozen=True)
class Foretold:
    """seconds: from the first token of all to the last. tokens: generated in that time, past each prompt's first."""

    seconds: float
    tokens: int


def backlog(limits: SchedulerLimits) -> list[tuple[int, int]]:
    """Return requests that keep a group full for a while: tokens of prompt and answer of each."""
    fair_share = limits.num_blocks * limits.block_size // limits.max_num_seqs
    answer = max(1, min(LEAST_ANSWER, limits.max_model_len // 4))
    top = max(1, min(limits.max_model_len, fair_share) - 2 * answer)
    prompts = ragged_lengths(FILLS * limits.max_num_seqs, top)
    return [(prompt, answer + 7 * i % answer) for i, prompt in enumerate(prompts)]


def foretell(
    requests: Sequence[tuple[int, int]], limits: SchedulerLimits, prefill: PrefillCost, decode: DecodeCost
) -> Foretold:
    """Return what a backlog takes. requests: tokens of each prompt and answer, in the order of arrival."""
    scheduler = Scheduler(limits)
    for number, (prompt, answer) in enumerate(requests):
        scheduler.add(_request(number, prompt, answer))
    seconds, tokens, has_token = 0.0, 0, False
    while scheduler.has_work:
        plan = scheduler.schedule()
        if has_token:
            seconds += step_s(prefill, decode, _point(plan))
            tokens += plan.decode_tokens
        has_token = has_token or bool(plan.sampled)
        scheduler.commit({sequence.request_id: [0] for sequence in plan.sampled})
    return Foretold(seconds, tokens)


def _request(number: int, prompt: int, answer: int) -> EngineRequest:
    return EngineRequest(request_id=f"{number}", prompt_token_ids=[0] * prompt, max_tokens=answer, stop_token_ids=[])


def _point(plan: ScheduledBatch) -> StepPoint:
    chunks = [(sequence.start, len(sequence.token_ids)) for sequence in plan.sequences if not sequence.is_decode]
    return StepPoint(
        began_s=0.0,
        seconds=0.0,
        is_followed=True,
        tokens=plan.prefill_tokens,
        token_context=sum(new * (start + new / 2) for start, new in chunks),
        rows=plan.decode_tokens,
        context=sum(sequence.end for sequence in plan.sequences if sequence.is_decode),
    )
