"""Which promises of a deployment more groups can keep, and how far they are kept. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from glm_operator.api.slo import Signal, Slo, SloClass
from glm_operator.autoscale import constants as law
from glm_operator.autoscale.decision import Situation, number
from glm_operator.autoscale.estimate.rates import Rates
from glm_operator.autoscale.estimate.samples import believable
from glm_operator.autoscale.signals import UNKNOWN, ClassSignals, Input, Signals, State

_WAITING: tuple[Signal, ...] = ("ttft", "ttfa", "e2e")
"""Promises that a queue breaks."""


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What is promised and can be kept.

    ttft_s, itl_s: the tightest of all classes, with the percentile it is for. wait_s: how long a request may wait in a
    queue. worst: the largest of measured over promised times, of enough requests; None: not measured. is_quiet: fresh
    data say that too few requests came to measure any. burns_fast: an error budget goes at FAST_BURN or faster.
    """

    ttft_s: float | None = None
    ttft_percentile: int = 95
    itl_s: float | None = None
    wait_s: float = law.UNPROMISED_WAIT_S
    worst: float | None = None
    worst_of: str = ""
    is_quiet: bool = False
    burns_fast: bool = False
    infeasible: Mapping[str, str] = field(default_factory=dict)  # by class
    broken: frozenset[tuple[str, str]] = frozenset()  # class and signal of what is infeasible

    @property
    def is_missed(self) -> bool:
        """Whether a promise that can be kept is measured not to be."""
        return self.worst is not None and self.worst > 1.0


@dataclass(frozen=True)
class _Kept:
    """One threshold that can be kept."""

    promise: SloClass
    signal: Signal
    seconds: float


def promises(
    slo: Slo, signals: Signals, rates: Rates, situation: Situation, before: frozenset[tuple[str, str]]
) -> Promises:
    """Return the promises that more groups can keep. before: class and signal of what was infeasible the last time."""
    measured = {each.name: each for each in signals.classes}
    kept: list[_Kept] = []
    broken: dict[tuple[str, str], str] = {}
    for promise in slo.classes:
        for signal, seconds in promise.thresholds.items():
            floor = _floor(signal, rates, situation, measured.get(promise.name))
            margin = law.INFEASIBLE_MARGIN if (promise.name, signal) in before else 1.0
            if floor is not None and seconds < floor[0] * margin:
                broken[promise.name, signal] = _sentence(signal, seconds, floor[1])
            else:
                kept.append(_Kept(promise, signal, seconds))
    worst, worst_of = _worst(kept, measured)
    feasible = {each.promise.name for each in kept}
    ttft = min((each for each in kept if each.signal == "ttft"), key=lambda each: each.seconds, default=None)
    return Promises(
        ttft_s=None if ttft is None else ttft.seconds,
        ttft_percentile=95 if ttft is None else ttft.promise.percentile,
        itl_s=min((each.seconds for each in kept if each.signal == "itl"), default=None),
        wait_s=min((each.seconds for each in kept if each.signal in _WAITING), default=law.UNPROMISED_WAIT_S),
        worst=worst,
        worst_of=worst_of,
        is_quiet=worst is None and bool(kept) and all(_is_known(each, measured) for each in kept),
        burns_fast=any(_burns_fast(each) for each in signals.classes if each.name in feasible),
        infeasible=_by_class(broken),
        broken=frozenset(broken),
    )


def out_of_reach(slo: Slo, floor_s: Mapping[str, float], floor_on: str) -> dict[str, str]:
    """Return the promises that are below the planner's floor, and why none can keep them: by class, if any.

    It needs no measurement. floor_s, floor_on: as in Situation.
    """
    broken: dict[tuple[str, str], str] = {}
    for promise in slo.classes:
        for signal, seconds in promise.thresholds.items():
            floor = _planned(signal, floor_s, floor_on)
            if floor is not None and seconds < floor[0]:
                broken[promise.name, signal] = _sentence(signal, seconds, floor[1])
    return _by_class(broken)


def _planned(signal: Signal, floor_s: Mapping[str, float], floor_on: str) -> tuple[float, str] | None:
    """Return the planner's floor in seconds, and a sentence about it."""
    seconds = floor_s.get(signal)
    if seconds is None or not believable(seconds):
        return None
    on = f" on {floor_on}" if floor_on else ""
    return seconds, f"one request alone takes at least {number(seconds)} s{on}"


def _sentence(signal: Signal, promised_s: float, why: str) -> str:
    return f"{signal} of {promised_s:g} s is promised, and {why}"


def _by_class(broken: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Return the sentences of each class as one. broken: by class and signal."""
    return {name: "; ".join(text for (of, _), text in broken.items() if of == name) for name, _ in broken}


def _floor(
    signal: Signal, rates: Rates, situation: Situation, measured: ClassSignals | None
) -> tuple[float, str] | None:
    """Return what one request alone takes at least, in seconds, and a sentence about it. None: not known."""
    floors: list[tuple[float, str]] = []
    if (planned := _planned(signal, situation.floor_s, situation.floor_on)) is not None:
        floors.append(planned)
    if signal in ("ttft", "ttfa", "e2e") and rates.prefill_tokens_per_s:
        prompt = rates.prompt_tokens
        if measured is not None and measured.prompt_tokens.state is State.VALUE:
            prompt = measured.prompt_tokens.value
        if prompt is not None and believable(prompt):
            seconds = prompt / rates.prefill_tokens_per_s
            by = f"{prompt:.0f} tokens at {rates.prefill_tokens_per_s:.0f} a second"
            floors.append((seconds, f"prefill of a prompt takes {number(seconds)} s ({by})"))
    if signal == "itl" and rates.knows_small_batches and (line := rates.step_line(law.HOPEFUL)) is not None:
        floors.append((line.at(1.0), f"a step of one request takes {number(line.at(1.0))} s"))
    return max(floors, key=lambda each: each[0], default=None)


def _worst(kept: list[_Kept], measured: Mapping[str, ClassSignals]) -> tuple[float | None, str]:
    worst: float | None = None
    worst_of = ""
    for each in kept:
        of = measured.get(each.promise.name)
        if of is None or not of.samples.get(each.signal, 0.0) >= law.MIN_REQUESTS:
            continue
        seconds = of.latency.get(each.signal)
        if seconds is None or seconds.state is not State.VALUE or not believable(seconds.value):
            continue
        ratio = seconds.value / each.seconds
        if worst is None or ratio > worst:
            worst = ratio
            worst_of = (
                f"{each.signal} p{each.promise.percentile} of {each.promise.name} is {number(seconds.value)} s, "
                f"promised {each.seconds:g} s"
            )
    return worst, worst_of


def _is_known(of: _Kept, measured: Mapping[str, ClassSignals]) -> bool:
    found = measured.get(of.promise.name)
    return found is not None and found.latency.get(of.signal, UNKNOWN).is_known


def _burns_fast(of: ClassSignals) -> bool:
    burn: Input = of.fast_burn
    return burn.state is State.VALUE and of.requests_ended >= law.MIN_REQUESTS and burn.value >= law.FAST_BURN
