"""The controller that turns a recommendation into replicas: HorizontalPodAutoscaler v2 with default behaviour.

Source: Kubernetes, autoscaling/v2. Every 15 s; tolerance 10 %; up by the larger of 100 % and 4 pods in 15 s, without
stabilisation; down to the largest recommendation of the last 300 s. Missing pods count as fully used when scaling down
and as idle when scaling up; a change of direction by that holds.
"""

import math
from collections import deque
from collections.abc import Mapping

SYNC_S = 15.0
TOLERANCE = 0.1


class Behavior:
    """The rate limits and the stabilisation of one HPA."""

    def __init__(self, *, down_window_s: float = 300.0) -> None:
        self._down_window_s = down_window_s
        self._recommended: deque[tuple[float, int]] = deque()
        self._added: deque[tuple[float, int]] = deque()

    def settle(self, now_s: float, current: int, recommended: int) -> int:
        """Return the replicas to set."""
        history, added = self._recommended, self._added
        history.append((now_s, recommended))
        while history[0][0] < now_s - self._down_window_s:
            history.popleft()
        while added and added[0][0] <= now_s - SYNC_S:
            added.popleft()
        if recommended > current:
            start = current - sum(count for _, count in added)
            desired = min(recommended, max(start + 4, start * 2))
            if desired > current:
                added.append((now_s, desired - current))
                return desired
            return current
        return min(current, max(value for _, value in history))


def by_average(total: float, target: float, current: int) -> int:
    """Return the replicas for an AverageValue: total over target, unless that is within the tolerance."""
    if current > 0 and abs(total / (target * current) - 1) <= TOLERANCE:
        return current
    return math.ceil(total / target)


def by_pods(values: Mapping[str, float], target: float, current: int, ready: int) -> int:
    """Return the replicas for a metric of each pod. values: of the pods that have one; other ready ones miss it."""
    if not values:
        return current
    ratio = sum(values.values()) / len(values) / target
    missing, unready = max(0, ready - len(values)), max(0, current - ready)
    if not missing and not (unready and ratio > 1):
        return current if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * len(values))
    filled = sum(values.values()) + (missing * target if ratio < 1 else 0.0)
    count = len(values) + missing + (unready if ratio > 1 else 0)
    new = filled / count / target
    if abs(new - 1) <= TOLERANCE or (ratio < 1) != (new < 1):
        return current
    desired = math.ceil(new * count)
    wrong_way = (new < 1 and desired > current) or (new > 1 and desired < current)
    return current if wrong_way else desired
