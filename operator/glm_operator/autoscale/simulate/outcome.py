"""What a run was worth: promises kept, GPUs used, and how the law behaved. Pure; it knows the whole run.

Terms:
- attainment: of the requests that arrived, the share that met every threshold of its class. Those of a class without
  promises do not count; failed ones have missed.
- need: groups with which what arrives around a moment is carried and waits no longer than promised. See
  needed_groups().
- breach: from the second at which more than 5 % of the requests due in the last 30 s missed their time to the first
  token, or gaps longer than promised, until that has not been so for a minute.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from glm_operator.api.slo import DEFAULT_CLASS
from glm_operator.autoscale.simulate.model.capacity import requests_per_second, shape_of, tightest
from glm_operator.autoscale.simulate.model.group import Request
from glm_operator.autoscale.simulate.run import Change, Result, Setup

BREACH_WINDOW_S = 30.0
BREACH_SHARE = 0.05
BREACH_OVER_S = 60.0
MISSING_S = 30.0  # a group whose newest sample is older than this is not known
NEED_WINDOW_S = 60.0
BURST_WINDOWS_S = (5.0, 10.0, 15.0, 20.0, 30.0, 45.0)
MIX_WINDOW_S = 60.0  # longer, and a mix that has just changed would be judged by what it was


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The numbers of one run."""

    law: str
    attainment: float
    by_class: dict[str, float]
    gpu_hours: float
    breaches: int
    breach_to_decision_s: tuple[float, ...]  # one a breach that more groups could have ended
    beyond_need: int  # most groups above need that were wanted while groups were starting
    downs_on_missing: int
    direction_changes_per_hour: float
    ups: int
    downs: int


def outcome(result: Result) -> Outcome:
    """Judge a run."""
    setup = result.setup
    judged = [request for request in result.requests if request.slo_class != DEFAULT_CLASS]
    by_class = {
        each.name: _share([request for request in judged if request.slo_class == each.name])
        for each in setup.slo.classes
    }
    breaches = find_breaches(result.requests, setup)
    moves = [change for change in result.changes if change.desired != change.before]
    return Outcome(
        law=result.law,
        attainment=_share(judged),
        by_class=by_class,
        gpu_hours=result.gpu_seconds / 3600,
        breaches=len(breaches),
        breach_to_decision_s=tuple(_reactions(breaches, result)),
        beyond_need=_beyond_need(result),
        downs_on_missing=sum(_is_blind(change) for change in moves if change.desired < change.before),
        direction_changes_per_hour=_direction_changes(moves) / max(1e-9, setup.length_s / 3600),
        ups=sum(change.desired > change.before for change in moves),
        downs=sum(change.desired < change.before for change in moves),
    )


def _share(requests: Sequence[Request]) -> float:
    return sum(request.is_met and not request.has_failed for request in requests) / len(requests) if requests else 1.0


def _is_blind(change: Change) -> bool:
    return change.is_away or change.oldest_sample_s > MISSING_S


def _direction_changes(moves: Sequence[Change]) -> int:
    signs = [change.desired > change.before for change in moves]
    return sum(before != after for before, after in pairwise(signs))


def find_breaches(requests: Sequence[Request], setup: Setup) -> list[tuple[float, float]]:
    """Return when each breach began and ended, to the second.

    A request shows its first token late at the moment at which it is due, not when it comes: waiting is seen at once.
    """
    seen: list[tuple[float, bool]] = []
    promises = {each.name: each.thresholds for each in setup.slo.classes}
    for request in requests:
        promise = promises.get(request.slo_class, {})
        at_s, latency = request.arrival.at_s, request.latency
        limit = promise.get("ttft")
        if limit is not None:
            ttft = latency.get("ttft", math.inf)
            seen.append((at_s + min(ttft, limit), ttft > limit))
        gap = promise.get("itl")
        if gap is not None and request.ended_at is not None:
            seen.append((request.ended_at, latency.get("itl", 0.0) > gap))
    seen.sort()
    times = [at_s for at_s, _ in seen]
    misses = [0]
    for _, is_miss in seen:
        misses.append(misses[-1] + is_miss)
    found: list[tuple[float, float]] = []
    begun: float | None = None
    last = 0.0
    for second in range(math.ceil(setup.length_s) + 1):
        low, high = bisect_right(times, second - BREACH_WINDOW_S), bisect_right(times, second)
        if high > low and (misses[high] - misses[low]) / (high - low) > BREACH_SHARE:
            begun = float(second) if begun is None else begun
            last = float(second)
        elif begun is not None and second - last >= BREACH_OVER_S:
            found.append((begun, last))
            begun = None
    if begun is not None:
        found.append((begun, last))
    return found


def _reactions(breaches: Sequence[tuple[float, float]], result: Result) -> list[float]:
    """Return for each breach the seconds until the law wanted more groups than served; 0 when it did so already.

    A breach at the largest number of groups that the deployment may have is left out: no decision could end it.
    """
    points = result.points
    times = [point.at_s for point in points]
    most = result.setup.scaling.max_groups
    found = []
    for begun, over in breaches:
        point = points[max(0, bisect_right(times, begun) - 1)]
        if most is not None and point.desired >= most:
            continue
        if point.starting > 0:
            found.append(0.0)
            continue
        ups = [change.at_s for change in result.changes if change.desired > change.before and change.at_s >= begun]
        found.append((ups[0] if ups and ups[0] <= over + BREACH_OVER_S else max(over, begun + 60.0)) - begun)
    return found


def needed_groups(setup: Setup, at_s: float, ahead_s: float) -> int:
    """Return the groups that what arrives between a minute ago and ahead_s from now needs, at the planned use.

    A group carries what capacity.requests_per_second() says of the mix from a minute before, at the utilisation
    that the deployment plans for. Need is the larger of two: what carries the densest minute, and what works off every
    shorter burst before anybody has waited longer than is promised. Of w seconds, that is what arrives in them over w
    plus the promise.
    """
    arrivals = setup.arrivals
    times = [each.at_s for each in arrivals]
    low = bisect_left(times, at_s - MIX_WINDOW_S)
    high = max(low + 1, bisect_right(times, at_s + ahead_s))
    mix = arrivals[low:high]
    if not mix:
        return setup.scaling.min_groups
    group_rps = requests_per_second(setup.calibration, shape_of(mix), tightest(setup.slo, "itl"))
    rate = _densest(times, at_s, at_s + ahead_s, NEED_WINDOW_S, 0.0)
    promise_s = tightest(setup.slo, "ttft")
    if promise_s is not None:
        rate = max(rate, *(_densest(times, at_s, at_s + ahead_s, width, promise_s) for width in BURST_WINDOWS_S))
    planned = group_rps * setup.scaling.target_utilization / 100
    return max(setup.scaling.min_groups, math.ceil(rate / planned))


def _densest(times: Sequence[float], at_s: float, until_s: float, width_s: float, wait_s: float) -> float:
    """Return the most requests a second of any window since NEED_WINDOW_S before at_s, with wait_s more to serve it."""
    most, end_s = 0.0, max(0.0, at_s - NEED_WINDOW_S)
    while end_s <= until_s:
        count = bisect_right(times, end_s) - bisect_left(times, end_s - width_s)
        most = max(most, count / (min(width_s, max(end_s, 10.0)) + wait_s))
        end_s += min(10.0, width_s / 2)
    return most


def _beyond_need(result: Result) -> int:
    """Return the most groups above need that the law went up to while groups were starting.

    What waits is part of the need: the groups that would work it off within a minute.
    """
    setup = result.setup
    starts = setup.cold_start_s or setup.calibration.cold_start_s
    times = [point.at_s for point in result.points]
    worst = 0
    for change in result.changes:
        if change.desired <= change.before or change.starting == 0:
            continue
        point = result.points[max(0, bisect_right(times, change.at_s) - 1)]
        need = needed_groups(setup, change.at_s, max(starts) + NEED_WINDOW_S)
        rps = max(1e-9, _group_rps(setup, change.at_s))
        backlog = math.ceil(point.waiting / (rps * NEED_WINDOW_S))
        worst = max(worst, change.desired - need - backlog)
    return worst


def _group_rps(setup: Setup, at_s: float) -> float:
    times = [each.at_s for each in setup.arrivals]
    low, high = bisect_left(times, at_s - MIX_WINDOW_S), bisect_right(times, at_s)
    mix = setup.arrivals[low:high]
    return requests_per_second(setup.calibration, shape_of(mix), tightest(setup.slo, "itl")) if mix else 1.0
