"""How much counters rose within windows of time, as Prometheus' increase() tells, and what latencies follow. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from glm_operator.autoscale.series import Attained, Buckets

FINE_S = 330.0
"""Every reading of counters is kept this long: what latency needs. Older ones are kept at wider distances."""

COARSER = ((7200.0, 60.0), (86400.0, 600.0), (90 * 86400.0, 3600.0))
"""Of these: how far back, and how far apart. The last is the longest window that a class may have."""


class Edge(NamedTuple):
    """A bucket of the histograms of all groups together."""

    signal: str
    slo_class: str
    le: float


class Outcome(NamedTuple):
    """Requests of a class that ended, by whether every threshold was met."""

    slo_class: str
    is_met: bool


class Risen(NamedTuple):
    """What a window has of a counter."""

    increase: float
    samples: float


Counter = Edge | Outcome


def increase(before: float, value: float) -> float:
    """Return how much a counter rose between two samples. One that fell began anew at 0.

    What is no count (NaN, infinite, below 0) rose by nothing: sums over time would never be numbers again.
    """
    rise = value - before if value >= before else value
    return rise if 0.0 <= rise < inf else 0.0


def buckets(risen: Mapping[Edge, Risen], window_s: float) -> tuple[Buckets, ...]:
    """Return the histograms of a window.

    Workers start a histogram anew when the edges of a class change. A window that holds both has edges that counted
    only before, or only after. They are left out: an edge stays if it has as many samples as +Inf, which always
    counted. So the rest is right, if coarser until the window has passed.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for edge, of_edge in risen.items():
        whole = risen.get(Edge(edge.signal, edge.slo_class, inf))
        if whole is not None and of_edge.samples == whole.samples:
            found.setdefault((edge.slo_class, edge.signal), []).append((edge.le, of_edge.increase))
    return tuple(
        Buckets(slo_class, signal, window_s, tuple(sorted(counts)))
        for (slo_class, signal), counts in sorted(found.items())
    )


def attained(
    rise: Mapping[Outcome, float], window_s: float, covered_s: float | None, only: Iterable[str] | None = None
) -> tuple[Attained, ...]:
    """Return what classes attained within a window. only: these classes; None: all."""
    classes = {outcome.slo_class for outcome in rise}
    return tuple(
        Attained(
            slo_class=each,
            window_s=window_s,
            requests=rise.get(Outcome(each, True), 0.0) + rise.get(Outcome(each, False), 0.0),
            met=rise.get(Outcome(each, True), 0.0),
            covered_s=covered_s if covered_s is not None and covered_s < window_s else None,
        )
        for each in sorted(classes if only is None else classes & set(only))
    )


@dataclass
class _Kept:
    """Readings of the totals, at least step_s apart, as far back as span_s and one more."""

    span_s: float
    step_s: float
    readings: deque[tuple[float, dict[Counter, Risen]]] = field(default_factory=deque)

    def note(self, at_s: float, totals: dict[Counter, Risen]) -> None:
        if not self.readings or at_s - self.readings[-1][0] >= self.step_s:
            self.readings.append((at_s, totals))
        while len(self.readings) > 1 and self.readings[1][0] <= at_s - self.span_s:
            self.readings.popleft()


class Totals:
    """Sums of counters over all groups, and how they stood at earlier moments. Bounded: it thins out what is old."""

    def __init__(self, span_s: float = FINE_S) -> None:
        """span_s: the longest window that will be asked for."""
        levels = [(FINE_S, 0.0), *((back_s, step_s) for back_s, step_s in COARSER if span_s > FINE_S)]
        self._levels = [_Kept(back_s, step_s) for back_s, step_s in levels]
        self.span_s = self._levels[-1].span_s
        self._totals: dict[Counter, Risen] = {}
        self._seen_s: dict[Counter, float] = {}

    def add(self, at_s: float, risen: Mapping[Counter, Risen]) -> None:
        """Note what counters rose since the last time, at a later moment than that."""
        for counter, more in risen.items():
            so_far = self._totals.get(counter, Risen(0.0, 0.0))
            self._totals[counter] = Risen(so_far.increase + more.increase, so_far.samples + more.samples)
            self._seen_s[counter] = at_s
        self._forget_unseen(at_s)
        for level in self._levels:
            level.note(at_s, dict(self._totals))

    def within(self, window_s: float) -> tuple[dict[Counter, Risen], float]:
        """Return what rose within the window that ends with the last reading, and how much of it was seen, in seconds.

        The window begins at the last reading before it, so it is up to one step longer than asked for.
        """
        newest = self._levels[0].readings
        if not newest:
            return {}, 0.0
        end_s, now = newest[-1]
        level = next((level for level in self._levels if level.span_s >= window_s), self._levels[-1])
        begin_s, before = level.readings[0]
        for at_s, totals in level.readings:
            if at_s > end_s - window_s:
                break
            begin_s, before = at_s, totals
        nothing = Risen(0.0, 0.0)
        risen = {
            counter: Risen(total.increase - was.increase, total.samples - was.samples)
            for counter, total in now.items()
            if total.samples > (was := before.get(counter, nothing)).samples
        }
        return risen, min(window_s, end_s - begin_s)

    def _forget_unseen(self, at_s: float) -> None:
        """Drop counters that nobody has had for the longest window: edges and classes that were edited away."""
        for counter in [each for each, seen_s in self._seen_s.items() if at_s - seen_s > self.span_s]:
            del self._seen_s[counter], self._totals[counter]
            for level in self._levels:
                for _, totals in level.readings:
                    totals.pop(counter, None)
