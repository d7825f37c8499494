"""What the samples of one series say: a newest value, a rate, how often they come. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from operator import le

from glm_operator.autoscale.constants import HUGE, RECENT_S, STALE_INTERVALS, STALE_MAX_S, STALE_MIN_S
from glm_operator.autoscale.series import Sample


def believable(value: float) -> bool:
    """Whether a number can be a measurement: not NaN, negative, infinite or absurdly large."""
    return 0.0 <= value < HUGE


def newest(samples: Sequence[Sample]) -> float | None:
    """Return the value of the newest sample. None: there is none, or it is no measurement."""
    if not samples:
        return None
    value = samples[-1][1]
    return value if 0.0 <= value < HUGE else None


def ordered(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples by time, one for each moment, without those whose time is no number."""
    by_time = {at_s: value for at_s, value in samples if abs(at_s) < HUGE}
    return tuple(sorted(by_time.items()))


def interval(samples: Sequence[Sample]) -> float | None:
    """Return the median time between samples in order, in seconds. None: fewer than two."""
    if len(samples) < 2:
        return None
    gaps = sorted(later[0] - earlier[0] for earlier, later in pairwise(samples))
    return gaps[len(gaps) // 2]


def stale_after(interval_s: float | None) -> float:
    """Return the age in seconds from which a group scraped that often is stale. None: seen once."""
    if interval_s is None:
        return STALE_MAX_S
    return min(max(STALE_INTERVALS * interval_s, STALE_MIN_S), STALE_MAX_S)


def increase(samples: Sequence[Sample]) -> tuple[float, float] | None:
    """Return how much a counter rose over its samples, and over how many seconds. None: fewer than two.

    samples: in order of time. As in Prometheus, a value below the one before it is a counter that began anew at 0, so
    all of it counts. Samples that are no measurement are left out.
    """
    values = [value for _, value in samples]
    if len(values) > 1 and values[0] >= 0.0 and values[-1] < HUGE and all(map(le, values, values[1:])):
        covered_s = samples[-1][0] - samples[0][0]
        return (values[-1] - values[0], covered_s) if covered_s > 0.0 else None
    first_s = last_s = last = None
    risen = 0.0
    for at_s, value in samples:
        if not 0.0 <= value < HUGE:
            continue
        if last is None:
            first_s = at_s
        else:
            risen += value - last if value >= last else value
        last, last_s = value, at_s
    if first_s is None or last_s is None or last_s <= first_s:
        return None
    return risen, last_s - first_s


def rate(samples: Sequence[Sample], since_s: float | None = None) -> float | None:
    """Return how much a counter rises a second, over its samples. None: too few.

    since_s: for a group that began within the window, when the window began. Before its first sample the counter did
    not rise, so the whole window counts, as with Prometheus. Without this the groups that shared their load with the
    new one would still show it in the window, and the sum would be too large. For an older group samples at the
    window's start are merely lost, so the time that is covered counts.
    """
    found = increase(samples)
    if found is None:
        return None
    risen, covered_s = found
    if since_s is not None:
        covered_s = max(covered_s, samples[-1][0] - since_s)
    return risen / covered_s


def slope(samples: Sequence[Sample], since_s: float | None = None) -> float | None:
    """Return how much a gauge rose a second, from its first sample to its last. None: too few, or no measurement.

    since_s: as in rate(): for a group that began within the window, when the window began; there it was 0.
    """
    if len(samples) < 2 or not (believable(samples[0][1]) and believable(samples[-1][1])):
        return None
    (begin_s, first), (end_s, last) = samples[0], samples[-1]
    if since_s is not None and since_s < begin_s:
        begin_s, first = since_s, 0.0
    return (last - first) / (end_s - begin_s) if end_s > begin_s else None


def rate_lately(samples: Sequence[Sample], *, is_young: bool = False) -> float | None:
    """Return how much a counter rises a second over its newest samples, RECENT_S of them. None: too few.

    is_young: the counter began within the window, so before its first sample it did not rise, as in rate().
    """
    begin = len(samples) - 1
    while begin > 0 and samples[-1][0] - samples[begin][0] < RECENT_S:
        begin -= 1
    return rate(samples[begin:], samples[-1][0] - RECENT_S if is_young else None) if begin >= 0 else None
