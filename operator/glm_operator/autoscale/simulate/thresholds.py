"""What another `reasoning.autoThreshold` would have made of a recorded range. Pure.

Counters know no single request. Scores are known as a histogram: how many reach a threshold is counted for multiples of
0.05, and between them scores are taken to lie evenly. All else is an estimate: which requests score high is not known,
so those that change are spread evenly over the others, with their prompts and answers, and think as long as those that
thought around then.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from glm_operator.autoscale.series import DECISIONS, Series
from glm_operator.autoscale.simulate.errors import InputError
from glm_operator.autoscale.simulate.recorded import GENERATED, LENGTH_S, RECEIVED, THINKING, Grown
from glm_operator.autoscale.simulate.trace import Arrival

SCORES = "glm_auto_thinking_score_bucket"
THRESHOLD_METRICS = (SCORES, DECISIONS)
"""What is read besides what a trace is made of."""

AUTO = "auto"
_HALF = 0.005
"""Of a hundredth. Scores are whole hundredths, so edges half of one below are below a threshold and above the scores
that do not reach it."""


@dataclass(frozen=True)
class Scores:
    """How the scores of a range lie: pairs of an upper edge and the requests up to it, cumulative, +Inf last."""

    counts: tuple[tuple[float, float], ...]

    @property
    def requests(self) -> float:
        return self.counts[-1][1]

    def share_from(self, threshold: float) -> float:
        """Return the share of requests whose score is the threshold or more, from 0 to 1.

        As counted where the threshold is a multiple of 0.05, else in proportion between two of them.
        """
        lowest = math.ceil(round(threshold * 100, 6))  # score that thinks, in hundredths
        if lowest <= 0:
            return 1.0
        cut = round(lowest / 100 - _HALF, 6)
        edges = [edge for edge, _ in self.counts]
        place = bisect_left(edges, cut)
        edge, count = self.counts[place]
        below, before = self.counts[place - 1] if place > 0 else (-_HALF, 0.0)
        part = (cut - below) / (edge - below) if edge < inf else 1.0
        return max(0.0, 1.0 - (before + (count - before) * part) / self.requests)


@dataclass(frozen=True)
class AutoThinking:
    """What a range says of requests in mode auto."""

    scores: Scores
    decided: float  # requests about which auto decided, as counted
    thought: float  # of them, those that thought
    auto: Grown  # decisions of auto, over time
    received: Grown
    reasoning: Grown  # tokens of thoughts
    thinking: Grown  # requests that think, whoever decided

    @property
    def thought_share(self) -> float:
        """The share of auto's requests that thought, as counted."""
        return self.thought / self.decided

    def share_at(self, at_s: float) -> float:
        """Return the share of all requests around a moment about which auto decided."""
        auto, received = (each.between(*_around(at_s)) for each in (self.auto, self.received))
        return min(1.0, auto / received) if received > 0 else 0.0

    def thought_tokens(self, at_s: float | None = None) -> float | None:
        """Return the mean tokens of a thought, around a moment or in the whole range; None: no request thought."""
        tokens, requests = (
            each.total if at_s is None else each.between(*_around(at_s)) for each in (self.reasoning, self.thinking)
        )
        return tokens / requests if requests >= 1 else None


def auto_thinking(series: Sequence[Series]) -> AutoThinking:
    """Return what was recorded of mode auto. Raises InputError where it was not, or where nothing was in this mode."""
    for metric in THRESHOLD_METRICS:
        if all(each.name != metric for each in series):
            raise InputError(
                f"there is no series {metric} in this range: its workers are of a version that does not count scores, "
                "or Prometheus did not keep them; nothing can be said of thresholds"
            )
    decisions = [each for each in series if each.name == DECISIONS and each.labels.get("by") == AUTO]
    auto, thought = Grown(decisions), Grown(each for each in decisions if each.labels.get("mode") == "enabled")
    scores = _scores(series)
    if auto.total < 1 or not scores.counts or scores.requests < 1:
        raise InputError("no request of this range was in mode auto; a threshold would have changed nothing")
    return AutoThinking(
        scores=scores,
        decided=auto.total,
        thought=thought.total,
        auto=auto,
        received=_grown(series, RECEIVED),
        reasoning=_grown(series, GENERATED, kind="reasoning"),
        thinking=_grown(series, THINKING, thinking="enabled"),
    )


def with_threshold(
    arrivals: Sequence[Arrival], auto: AutoThinking, threshold: float, begin_s: float, most_tokens: int
) -> tuple[Arrival, ...] | None:
    """Return a trace with as many thinking requests as another threshold would have made; None: not known.

    None where more would think and no request of the range did, so that nobody knows for how long. begin_s: unix time
    of second 0. most_tokens: of a prompt and its answer together.
    """
    more = auto.scores.share_from(threshold) - auto.thought_share
    if more > 0 and auto.thought_tokens() is None:
        return None
    owed, found = 0.0, []
    for arrival in arrivals:
        at_s = begin_s + arrival.at_s
        owed += more * auto.share_at(at_s)
        if owed >= 0.5 and not arrival.is_thinking:
            owed -= 1.0
            found.append(_thinking(arrival, auto, at_s, most_tokens))
        elif owed <= -0.5 and arrival.is_thinking:
            owed += 1.0
            answer = max(1, arrival.output_tokens - arrival.thinking_tokens)
            found.append(replace(arrival, output_tokens=answer, thinking_tokens=0, is_thinking=False))
        else:
            found.append(arrival)
    return tuple(found)


def tokens_per_request(arrivals: Sequence[Arrival]) -> float:
    """Return the mean of what is generated for a request, thinking included."""
    return sum(each.output_tokens for each in arrivals) / len(arrivals)


def _thinking(arrival: Arrival, auto: AutoThinking, at_s: float, most_tokens: int) -> Arrival:
    mean = auto.thought_tokens(at_s) or auto.thought_tokens() or 1.0
    room = max(0, most_tokens - arrival.prompt_tokens - arrival.output_tokens)
    thought = min(max(1, round(mean)), room)
    return replace(
        arrival, output_tokens=arrival.output_tokens + thought, thinking_tokens=thought, is_thinking=thought > 0
    )


def _scores(series: Iterable[Series]) -> Scores:
    """Return the histogram of all groups together, each bucket what it grew by."""
    grown: dict[float, float] = {}
    for each in series:
        if each.name == SCORES:
            try:
                edge = float(each.labels["le"])
            except (KeyError, ValueError):
                raise InputError(f"a series of {SCORES} has no edge: {dict(each.labels)}") from None
            grown[edge] = grown.get(edge, 0.0) + Grown([each]).total
    return Scores(tuple(sorted(grown.items())))


def _grown(series: Iterable[Series], name: str, **labels: str) -> Grown:
    return Grown(each for each in series if each.name == name and labels.items() <= each.labels.items())


def _around(at_s: float) -> tuple[float, float]:
    return at_s - LENGTH_S / 2, at_s + LENGTH_S / 2
