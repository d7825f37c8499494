"""A trace from what Prometheus recorded of a deployment. Pure.

Counters do not know single requests: those of an interval between two samples are spread evenly over it, with the mean
of its prompts. Answers have the mean length of the five minutes around, thinking ones and others alike but for their
thinking, which is shared out over the requests that think.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import Series
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.trace import Arrival

RECEIVED = "glm_requests_received_total"
PROMPTS = "glm_prompt_tokens_received_total"
GENERATED = "glm_generation_tokens_total"
ENDED = "glm_requests_total"
THINKING = "glm_thinking_requests_total"
METRICS = (RECEIVED, PROMPTS, GENERATED, ENDED, THINKING)

LENGTH_S = 300.0


class Grown:
    """What counters grew by, each step between two samples at its middle. One that fell began anew from 0."""

    def __init__(self, series: Iterable[Series]) -> None:
        steps = sorted(step for each in series for step in _steps(each))
        self.steps = steps  # middle, width, growth
        self._middles = [middle for middle, _, _ in steps]
        self._sums = [0.0, *accumulate(growth for _, _, growth in steps)]

    @property
    def total(self) -> float:
        """What they grew by in all."""
        return self._sums[-1]

    def between(self, begin_s: float, end_s: float) -> float:
        return self._sums[bisect_right(self._middles, end_s)] - self._sums[bisect_right(self._middles, begin_s)]


def _steps(series: Series) -> Iterator[tuple[float, float, float]]:
    for (before_s, before), (at_s, value) in pairwise(series.samples):
        grown = value - before if value >= before else value
        if grown > 0:
            yield (before_s + at_s) / 2, at_s - before_s, grown


def recorded_trace(series: Sequence[Series], slo: Slo, begin_s: float, end_s: float) -> tuple[Arrival, ...]:
    """Return the requests of a range, from second 0 on. Raises InputError where nothing arrived, or nothing was read.

    series: samples of METRICS of all groups. Where classes are for thinking requests, those of them think and no
    others; else as many as glm_thinking_requests_total says.
    """
    received = [each for each in series if each.name == RECEIVED]
    if not received:
        raise InputError(f"there is no series {RECEIVED} in this range")
    prompts = {_key(each): Grown([each]) for each in series if each.name == PROMPTS}
    thinks = {each.name for each in slo.classes if each.match.thinking == "Enabled"}
    lengths = _Lengths(series)
    found: list[Arrival] = []
    for each in received:
        of_prompts = prompts.get(_key(each), Grown([]))
        owed = 0.5  # of a request that thinks, in classes that are for both
        for middle, width, growth in Grown([each]).steps:
            count, first_s = round(growth), middle - width / 2
            if count < 1 or not begin_s <= middle <= end_s:
                continue
            prompt = max(1, round(of_prompts.between(first_s, first_s + width) / count))
            answer, thought, share = lengths.at(middle)
            for place in range(count):
                owed += float(each.labels.get("slo_class") in thinks) if thinks else share
                is_thinking = owed >= 1.0
                owed -= is_thinking
                at_s = max(0.0, first_s + width * (place + 0.5) / count - begin_s)
                thinking = thought if is_thinking else 0
                found.append(Arrival(at_s, prompt, thinking + answer, thinking, is_thinking))
    if not found:
        raise InputError("no request arrived in this range")
    return tuple(sorted(found, key=lambda arrival: arrival.at_s))


class _Lengths:
    """Mean lengths of answers and of thoughts, and the share of requests that think, around a moment."""

    def __init__(self, series: Sequence[Series]) -> None:
        def grown(name: str, label: str, *values: str) -> Grown:
            return Grown(each for each in series if each.name == name and each.labels.get(label) in values)

        self._thoughts = grown(GENERATED, "kind", "reasoning")
        self._answers = grown(GENERATED, "kind", "answer")
        self._ended = Grown(each for each in series if each.name == ENDED and each.labels.get("outcome") != "refused")
        self._thinking = grown(THINKING, "thinking", "enabled")

    def at(self, now_s: float) -> tuple[int, int, float]:
        """Return tokens of an answer, tokens of a thought, and the share of requests that think."""
        span = (now_s - LENGTH_S / 2, now_s + LENGTH_S / 2)
        ended, thinking = self._ended.between(*span), self._thinking.between(*span)
        if ended < 1:
            return 1, 1, 0.0
        thought = self._thoughts.between(*span) / thinking if thinking >= 1 else 1.0
        return max(1, round(self._answers.between(*span) / ended)), max(1, round(thought)), min(1.0, thinking / ended)


def _key(series: Series) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(series.labels.items()))
