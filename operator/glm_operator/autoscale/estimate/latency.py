"""Percentiles and shares from the buckets of a histogram, attainment and burn of an error budget. Pure."""

from collections.abc import Iterable, Sequence
from math import inf, isfinite

from glm_operator.autoscale.constants import HUGE
from glm_operator.autoscale.series import Attained, Buckets

Counts = Sequence[tuple[float, float]]
"""Upper edges in seconds and cumulative counts, in order; +Inf last."""


def summed(all_buckets: Iterable[Buckets], slo_class: str, signal: str, window_s: float) -> Counts:
    """Return the counts of one class, signal and window, those of several sources added up.

    Only edges that each of them has are kept: a cumulative count says nothing at an edge it was not counted at.
    Counts that are no measurement or fall are corrected to the highest before them.
    """
    sources = [
        each.counts
        for each in all_buckets
        if each.slo_class == slo_class and each.signal == signal and abs(each.window_s - window_s) < 1.0
    ]
    if not sources:
        return ()
    if len(sources) == 1 and _is_sound(sources[0]):
        return sources[0]
    found = [dict(each) for each in sources]
    edges = sorted(edge for edge in found[0] if edge == edge and all(edge in other for other in found[1:]))
    counts: list[tuple[float, float]] = []
    so_far = 0.0
    for edge in edges:
        count = sum(each[edge] for each in found)
        so_far = max(so_far, count) if 0.0 <= count < HUGE else so_far
        counts.append((edge, so_far))
    return counts


def _is_sound(counts: Counts) -> bool:
    """Whether edges rise, and counts neither fall nor are anything but counts."""
    last_edge, last_count = -inf, 0.0
    for edge, count in counts:
        if not (edge > last_edge and last_count <= count < HUGE):
            return False
        last_edge, last_count = edge, count
    return True


def total(counts: Counts) -> float:
    """Return how many were counted."""
    return counts[-1][1] if counts else 0.0


def percentile(counts: Counts, per_cent: float) -> float | None:
    """Return the time that so many per cent stay within, in seconds. None: nothing was counted.

    Within a bucket values are taken to lie evenly. Above the last finite edge that edge is returned: more is not known.
    """
    whole = total(counts)
    if whole <= 0.0:
        return None
    rank = whole * per_cent / 100.0
    lower, below = 0.0, 0.0
    for edge, count in counts:
        if count >= rank:
            if edge == inf:
                return lower
            inside = count - below
            return lower + (edge - lower) * ((rank - below) / inside if inside > 0.0 else 1.0)
        lower, below = max(edge, 0.0) if isfinite(edge) else lower, count
    return lower


def share_within(counts: Counts, threshold_s: float) -> float | None:
    """Return the share that stayed within a threshold, exact where an edge lies at it. None: nothing was counted.

    Between two edges, as workers have that do not know the promise yet, values are taken to lie evenly.
    """
    whole = total(counts)
    if whole <= 0.0:
        return None
    lower, below = 0.0, 0.0
    for edge, count in counts:
        if abs(edge - threshold_s) <= 1e-9 * threshold_s:
            return count / whole
        if edge > threshold_s:
            if edge == inf:
                return below / whole
            return (below + (count - below) * (threshold_s - lower) / (edge - lower)) / whole
        lower, below = edge, count
    return below / whole


def attained(all_attained: Iterable[Attained], slo_class: str, window_s: float) -> Attained | None:
    """Return what a class attained within a window, several sources added up. None: nothing believable was brought."""
    found = [
        each
        for each in all_attained
        if each.slo_class == slo_class
        and abs(each.window_s - window_s) < 1.0
        and 0.0 <= each.requests < HUGE
        and 0.0 <= each.met < HUGE
    ]
    if not found:
        return None
    requests = sum(each.requests for each in found)
    covered = [each.covered_s for each in found if each.covered_s is not None]
    return Attained(
        slo_class, window_s, requests, min(requests, sum(each.met for each in found)), min(covered, default=None)
    )


def burn(share_met: float, objective: float) -> float:
    """Return how fast the error budget goes, against an even burn that ends with the window. objective: 0.99."""
    return (1.0 - share_met) / max(1.0 - objective, 1e-9)
