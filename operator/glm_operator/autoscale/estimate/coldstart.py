"""How long a group takes from being ordered to serving, and when those on their way will. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from glm_operator.autoscale.constants import COLD_START_MAX_S, COLD_START_S, COLD_STARTS_KEPT
from glm_operator.autoscale.signals import GroupSignals


@dataclass(frozen=True)
class ColdStarts:
    """Starts that were seen.

    seen: seconds from the order to serving, newest last. reported: what groups say of their own start, by group; it
    leaves out how long their pods waited. pending: when each group that starts was ordered, oldest first; None: before
    we looked.
    """

    seen: tuple[float, ...] = ()
    reported: Mapping[str, float] = field(default_factory=dict)
    pending: tuple[float | None, ...] = ()

    @property
    def are_known(self) -> bool:
        """Whether any start was measured."""
        return bool(self.seen or self.reported)

    @property
    def p95_s(self) -> float:
        """Seconds that 95 % of the starts stay within, COLD_START_S before any was seen."""
        return max(_p95(self.seen), _p95(tuple(self.reported.values()))) or COLD_START_S

    def remaining(self, starting: int, now_s: float) -> list[float]:
        """Return for each group that starts in how many seconds it serves. One that is overdue: 0."""
        p95_s = self.p95_s
        known = [p95_s if at_s is None else min(max(p95_s - (now_s - at_s), 0.0), p95_s) for at_s in self.pending]
        return (known + [p95_s] * starting)[: max(starting, 0)]


def _p95(values: tuple[float, ...]) -> float:
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else 0.0


def watched(
    starts: ColdStarts, *, starting: int, newly_serving: int, now_s: float, is_first: bool, is_moving: bool
) -> ColdStarts:
    """Return the starts after another look at how many groups start and serve.

    newly_serving: more than at the last look. Groups are taken to serve in the order they were ordered in. While a
    rollout moves groups, what begins to serve was not ordered, so nothing is measured.
    """
    pending, seen = list(starts.pending), list(starts.seen)
    for _ in range(min(newly_serving, len(pending))):
        ordered_s = pending.pop(0)
        if ordered_s is not None and not is_moving and 0.0 < now_s - ordered_s <= COLD_START_MAX_S:
            seen.append(now_s - ordered_s)
    if len(pending) < starting:
        pending += [None if is_first or is_moving else now_s] * (starting - len(pending))
    return replace(starts, seen=tuple(seen[-COLD_STARTS_KEPT:]), pending=tuple(pending[:starting]))


def reported(starts: ColdStarts, groups: Collection[GroupSignals]) -> ColdStarts:
    """Return the starts with what groups say of theirs. What groups said that are gone is kept, up to a number."""
    said = {
        each.group: each.cold_start_s
        for each in groups
        if each.cold_start_s is not None and 0.0 < each.cold_start_s <= COLD_START_MAX_S
    }
    if not said.keys() - starts.reported.keys() and all(starts.reported[name] == said[name] for name in said):
        return starts
    kept = {**{name: each for name, each in starts.reported.items() if name not in said}, **said}
    return replace(starts, reported=dict(list(kept.items())[-COLD_STARTS_KEPT:]))
