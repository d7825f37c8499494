"""A run as curves and sentences, for whoever draws or prints it. Pure."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from glm_operator.api.slo import SIGNALS
from glm_operator.autoscale.simulate.model.group import Request
from glm_operator.autoscale.simulate.outcome import Outcome, outcome
from glm_operator.autoscale.simulate.run import Change, Result

WORDS = {"ttft": "TTFT", "ttfa": "TTFA", "itl": "ITL", "e2e": "E2E"}


@dataclass(frozen=True)
class Curve:
    """What a class is promised and what it got: a percentile over the promise, by bin; None where nothing arrived."""

    name: str  # as in "chat TTFT"
    promise_s: float
    percentile: int
    ratios: tuple[float | None, ...]


@dataclass(frozen=True)
class Story:
    """One run. Lists have a value a bin; bins are step_s wide and begin at second 0."""

    title: str
    step_s: float
    arrivals: tuple[float, ...]  # a second
    desired: tuple[int, ...]
    serving: tuple[int, ...]
    starting: tuple[int, ...]
    curves: tuple[Curve, ...]
    changes: tuple[Change, ...]
    outcome: Outcome
    static_groups: int
    static: Outcome
    duration_s: float
    is_observed: bool  # nothing was set

    @property
    def summary(self) -> str:
        """What it was worth, in one line."""
        found, static = self.outcome, self.static
        kept = f"{100 * found.attainment:.1f} % of requests met every threshold"
        cost = f"{found.gpu_hours:.2f} GPU-hours"
        share = f"{100 * found.gpu_hours / static.gpu_hours:.0f} % of {self.static_groups} fixed groups"
        if self.static_groups == 1:
            share = f"{100 * found.gpu_hours / static.gpu_hours:.0f} % of 1 fixed group"
        return f"{kept}; {cost}, {share} ({100 * static.attainment:.1f} %)"


def story(title: str, result: Result, static_groups: int, static: Outcome, bins: int) -> Story:
    """Return a run in so many bins."""
    setup = result.setup
    step_s = max(setup.length_s, 1.0) / bins
    requests: list[list[Request]] = [[] for _ in range(bins)]
    for request in result.requests:
        if request.arrival.at_s <= setup.length_s:
            requests[min(bins - 1, int(request.arrival.at_s / step_s))].append(request)
    points = [result.points[min(len(result.points) - 1, round(i * step_s / 5.0))] for i in range(bins)]
    return Story(
        title=title,
        step_s=step_s,
        arrivals=tuple(len(each) / step_s for each in requests),
        desired=_wanted(result, [i * step_s for i in range(bins)]),
        serving=tuple(point.serving for point in points),
        starting=tuple(point.starting for point in points),
        curves=tuple(_curves(result, requests)),
        changes=tuple(result.changes),
        outcome=outcome(result),
        static_groups=static_groups,
        static=static,
        duration_s=setup.length_s,
        is_observed=setup.scaling.mode == "Observe",
    )


def _wanted(result: Result, times_s: Sequence[float]) -> tuple[int, ...]:
    """Return what was wanted at these moments, also where nothing was set."""
    begun = [change.at_s for change in result.changes]
    wanted = [result.setup.start_groups, *(change.desired for change in result.changes)]
    return tuple(wanted[bisect_right(begun, at_s)] for at_s in times_s)


def _curves(result: Result, requests: Sequence[Sequence[Request]]) -> list[Curve]:
    found = []
    for each in result.setup.slo.classes:
        for signal in SIGNALS:
            promise_s = each.thresholds.get(signal)
            if promise_s is not None:
                ratios = tuple(
                    _percentile(_latencies(of_bin, each.name, signal), each.percentile, promise_s)
                    for of_bin in requests
                )
                found.append(Curve(f"{each.name} {WORDS[signal]}", promise_s, each.percentile, ratios))
    return found


def _latencies(requests: Sequence[Request], slo_class: str, signal: str) -> list[float]:
    """Return the latencies of a class; one token alone has no gap."""
    return [
        request.latency.get(signal, math.inf)
        for request in requests
        if request.slo_class == slo_class and (signal != "itl" or request.arrival.output_tokens > 1)
    ]


def _percentile(values: list[float], percentile: int, promise_s: float) -> float | None:
    if not values:
        return None
    values.sort()
    return min(values[min(len(values) - 1, math.ceil(len(values) * percentile / 100) - 1)] / promise_s, 1e3)


def clock(at_s: float) -> str:
    """A moment of the simulation: 1:02:03."""
    hours, rest = divmod(round(at_s), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}"
