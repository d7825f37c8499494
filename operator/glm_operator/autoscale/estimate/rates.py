"""What one group can do, as measured: tokens of prefill a second, the time of a step by batch size, lengths. Pure.

It is learnt from groups that are past their warm-up, pooled over them, and kept while nothing runs.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from math import exp, log2

from glm_operator.autoscale.constants import (
    HUGE,
    LENGTH_S,
    MIN_BUSY,
    MIN_ENDED,
    RATE_BUSY_S,
    STEADY_RUNNING,
    STEP_PRIOR,
    STEP_S,
)
from glm_operator.autoscale.estimate.samples import believable
from glm_operator.autoscale.series import DEMAND_WINDOW_S
from glm_operator.autoscale.signals import GroupSignals


@dataclass(frozen=True)
class StepTime:
    """How long a decode step took at batches of about one size."""

    octave: int  # twice the binary logarithm of the batch, so that small and large batches are kept apart
    batch: float
    seconds: float


@dataclass(frozen=True)
class Line:
    """Time of a decode step in seconds: base_s + each_s * batch."""

    base_s: float
    each_s: float

    def at(self, batch: float) -> float:
        return self.base_s + self.each_s * batch


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was measured so far. None: never."""

    prefill_tokens_per_s: float | None = None  # of one group that does nothing else
    steps: tuple[StepTime, ...] = ()
    prompt_tokens: float | None = None  # uncached, a request
    answer_tokens: float | None = None  # generated, a request
    kv_tokens: float | None = None  # that the cache of a group holds
    max_running: float | None = None  # requests that may run at once in a group
    sequence_tokens: float | None = None  # in the KV cache, a running request
    revisions: frozenset[str] = frozenset()

    def step_line(self, growing_share: float) -> Line | None:
        """Return the line through the step times, each of the same relative weight. None: no step was measured.

        growing_share: of a step's time, what is taken to grow with the batch until batches of several sizes were seen.
        """
        if not self.steps:
            return None
        weights = [1.0 / (each.seconds * each.seconds) for each in self.steps]
        whole = sum(weights)
        mean_batch = sum(w * each.batch for w, each in zip(weights, self.steps, strict=True)) / whole
        mean_s = sum(w * each.seconds for w, each in zip(weights, self.steps, strict=True)) / whole
        spread = together = 0.0
        for weight, each in zip(weights, self.steps, strict=True):
            off = each.batch - mean_batch
            spread += weight * off * off / whole
            together += weight * off * (each.seconds - mean_s) / whole
        prior = STEP_PRIOR * mean_batch * mean_batch
        slope = (together + prior * growing_share * mean_s / mean_batch) / (spread + prior)
        slope = min(max(slope, 0.0), mean_s / mean_batch)
        return Line(max(mean_s - slope * mean_batch, 0.0), slope)

    @property
    def largest_batch(self) -> float:
        """The largest batch that was seen, 1 at least."""
        return max((each.batch for each in self.steps), default=1.0)

    @property
    def knows_small_batches(self) -> bool:
        """Whether the time of a step of one request was seen, or nearly: it is not guessed from large batches."""
        return any(each.batch <= 2.0 for each in self.steps)


def learn(
    rates: Rates, groups: Collection[GroupSignals], elapsed_s: float, every: Collection[GroupSignals] | None = None
) -> Rates:
    """Return the rates with what groups show now taken in.

    groups: those past their warm-up, which tell what a group can do. every: young ones as well, which tell how long
    prompts and answers are; None: the same. elapsed_s: since the last time. Nothing is learnt twice from the same
    moment, except for what was never known.
    """
    every = groups if every is None else every
    seen = frozenset(each.revision for each in groups)
    if seen and rates.revisions and not seen & rates.revisions:
        rates = Rates()  # another model, or on other hardware
    return replace(
        rates,
        prefill_tokens_per_s=_prefill(rates.prefill_tokens_per_s, groups, elapsed_s),
        steps=_steps(rates.steps, groups, elapsed_s),
        prompt_tokens=_length(
            rates.prompt_tokens,
            [(each.prompt_tokens_arriving, each.arrivals) for each in every],
            elapsed_s,
            1.0 / DEMAND_WINDOW_S,
        ),
        answer_tokens=_answer(rates.answer_tokens, every, elapsed_s),
        kv_tokens=_mean(each.kv_tokens for each in groups) or rates.kv_tokens,
        max_running=_mean(each.max_running for each in groups) or rates.max_running,
        sequence_tokens=_sequence(rates.sequence_tokens, groups, elapsed_s),
        revisions=seen or rates.revisions,
    )


def _toward(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + (new - old) * weight


def _weight(elapsed_s: float, constant_s: float) -> float:
    return 1.0 - exp(-elapsed_s / constant_s)


def _mean(values: Iterable[float]) -> float:
    """Return the mean of what groups report; 0: none does."""
    known = [each for each in values if believable(each) and each > 0.0]
    return sum(known) / len(known) if known else 0.0


def _prefill(old: float | None, groups: Collection[GroupSignals], elapsed_s: float) -> float | None:
    tokens = busy = 0.0
    for each in groups:
        if each.prefill_tokens is None or each.prefill_busy is None:
            continue
        if believable(each.prefill_tokens) and each.prefill_busy >= MIN_BUSY:
            tokens += each.prefill_tokens
            busy += min(each.prefill_busy, 1.0)
    if tokens <= 0.0:
        return old
    return _toward(old, tokens / busy, _weight(elapsed_s * busy, RATE_BUSY_S))


def _steps(old: tuple[StepTime, ...], groups: Collection[GroupSignals], elapsed_s: float) -> tuple[StepTime, ...]:
    kept = {each.octave: each for each in old}
    for group in groups:
        seen = _step(group)
        if seen is None:
            continue
        before = kept.get(seen.octave)
        if before is not None:
            weight = _weight(elapsed_s, STEP_S)
            seen = StepTime(
                seen.octave,
                _toward(before.batch, seen.batch, weight),
                _toward(before.seconds, seen.seconds, weight),
            )
        kept[seen.octave] = seen
    return tuple(kept[octave] for octave in sorted(kept))


def _step(group: GroupSignals) -> StepTime | None:
    tokens, steps, busy = group.decode_tokens, group.decode_steps, group.decode_busy
    if tokens is None or steps is None or busy is None or not (believable(tokens) and believable(steps)):
        return None
    if steps <= 0.0 or tokens <= 0.0 or not MIN_BUSY <= busy < 2.0:
        return None
    batch, seconds = max(tokens / steps, 1.0), busy / steps
    return StepTime(round(2.0 * log2(batch)), batch, seconds) if 1e-7 < seconds < 1e4 else None


def _length(
    old: float | None, pairs: Iterable[tuple[float | None, float | None]], elapsed_s: float, least: float
) -> float | None:
    """Return tokens a request, from pairs of tokens and requests a second."""
    tokens = requests = 0.0
    for of_tokens, of_requests in pairs:
        if of_tokens is None or of_requests is None or not (believable(of_tokens) and believable(of_requests)):
            continue
        tokens += of_tokens
        requests += of_requests
    if requests < least or requests <= 0.0:
        return old
    return _toward(old, tokens / requests, _weight(elapsed_s, LENGTH_S))


def _answer(old: float | None, groups: Collection[GroupSignals], elapsed_s: float) -> float | None:
    """Return how many tokens an answer has.

    Only groups count that tell all three of what they generate, what ends in them, and what runs: requests that began
    in a group nobody looks at have no end either. While more requests begin than end, those that run are half done on
    average, so each of the difference counts half. In a burst that is too many, since few of them are as far; so then
    the length may only rise.
    """
    known = [
        (each.tokens_generated, each.requests_ended, each.running_rising)
        for each in groups
        if each.tokens_generated is not None and each.requests_ended is not None and each.running_rising is not None
    ]
    ended, more = sum(of_ended for _, of_ended, _ in known), sum(rising for _, _, rising in known)
    if not MIN_ENDED <= ended * DEMAND_WINDOW_S < HUGE or not abs(more) < HUGE:
        return old
    begun = ended + more / 2.0
    new = _length(old, [(sum(tokens for tokens, _, _ in known), begun)], elapsed_s, 0.0)
    if abs(more) <= STEADY_RUNNING * ended:
        return new
    return max(old, new) if old is not None and new is not None and begun > 0.0 else old


def _sequence(old: float | None, groups: Collection[GroupSignals], elapsed_s: float) -> float | None:
    """Return how much of the KV cache a running request takes."""
    used = running = 0.0
    for each in groups:
        if believable(each.kv_usage) and believable(each.kv_tokens) and each.requests_running >= 1.0:
            used += each.kv_usage * each.kv_tokens
            running += each.requests_running
    if used <= 0.0 or not believable(running):
        return old
    return _toward(old, used / running, _weight(elapsed_s, LENGTH_S))
