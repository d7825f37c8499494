"""What each step computed and how long its turn took, read from what the engine reports. Pure.

The engine reports counts; which request they belong to follows from its policy: the most important first. That holds
for requests of different priorities that are never preempted, which is for the experiments to see to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from glm_worker.errors import EngineFailed
from glm_worker.messages import StepDone


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One step. token_context: for each chunk its tokens times what they attend to on average, added up."""

    began_s: float
    seconds: float
    is_followed: bool  # the next step began as soon as it could
    tokens: int  # of prompts
    token_context: float
    rows: int  # requests that each generated one token past their prompt
    context: int  # their tokens in the KV cache, added up


@dataclass(slots=True)
class _Request:
    prompt: int
    computed: int = 0
    generated: int = 0


class PointReader:
    """Follows requests through the reports of one generation. Name them in the order in which they were submitted."""

    def __init__(self, prompts: Mapping[str, int]) -> None:
        self._requests = {request_id: _Request(prompt) for request_id, prompt in prompts.items()}

    def read(self, step: StepDone) -> StepPoint:
        """Return the point of one step. Raises EngineFailed for a step that does not add up."""
        decoding = [
            request
            for output in step.outputs
            if (request := self._requests[output.request_id]).computed == request.prompt
        ]
        context = sum(request.prompt + request.generated for request in decoding)
        token_context, left = 0.0, step.prefill_tokens
        for request in self._requests.values():
            chunk = min(left, request.prompt - request.computed)
            token_context += chunk * (request.computed + chunk / 2)
            request.computed += chunk
            left -= chunk
        if left or len(decoding) != step.decode_tokens or step.num_preemptions:
            raise EngineFailed(f"step {step.step} is none that the calibration asked for: {step}")
        for output in step.outputs:
            self._requests[output.request_id].generated += len(output.token_ids)
        return StepPoint(
            began_s=step.began_s,
            seconds=step.prefill_s + step.decode_s,
            is_followed=step.num_running + step.num_waiting > 0,
            tokens=step.prefill_tokens,
            token_context=token_context,
            rows=len(decoding),
            context=context,
        )


def gap_s(points: Sequence[StepPoint]) -> float:
    """Return what a turn of the engine takes besides its step: the median over steps that others follow at once."""
    gaps = [_gap_s(earlier, later) for earlier, later in pairwise(points) if earlier.is_followed]
    return median(gaps) if gaps else 0.0


def whole_turns(points: Sequence[StepPoint], gap_s: float) -> list[StepPoint]:
    """Return the points of one experiment with whole turns for seconds. gap_s: for a step that none follows."""
    gaps = [_gap_s(a, b) if a.is_followed else gap_s for a, b in pairwise(points)] + [gap_s] * bool(points)
    return [replace(point, seconds=point.seconds + gap) for point, gap in zip(points, gaps, strict=True)]


def _gap_s(earlier: StepPoint, later: StepPoint) -> float:
    return max(0.0, later.began_s - earlier.began_s - earlier.seconds)
