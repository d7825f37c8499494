"""What the leading pods of a deployment measure, scrape after scrape, and what follows from it. Pure.

A histogram counts since its process began; latency is of the time between two scrapes, at most some minutes apart.
What is no number (NaN, infinite) is not known.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite, nan

from glm_operator.autoscale.estimate.latency import percentile, summed
from glm_operator.autoscale.series import ATTAINED, DECISIONS, HISTOGRAMS, STATUS_WINDOW_S, Buckets
from glm_operator.cluster.metrics.exposition import Known, MalformedText, SeriesName, read_exposition
from glm_operator.cluster.metrics.windows import increase

GAUGES = {
    "running": "glm_num_requests_running",
    "waiting": "glm_num_requests_waiting",
    "oldest_waiting_s": "glm_oldest_waiting_seconds",
    "in_flight_tokens": "glm_in_flight_tokens",
    "kv_usage": "glm_kv_cache_usage_ratio",
}
"""What is shown of a group, by name."""

LEAST_S = 3.0
"""Scrapes closer together say nothing of latency."""

_WANTED = frozenset({*GAUGES.values(), ATTAINED, DECISIONS, *(f"{name}_bucket" for name in HISTOGRAMS.values())})


SeriesKey = tuple[str, tuple[tuple[str, str], ...]]  # name, labels in order


@dataclass(frozen=True)
class Scrape:
    """One look at all groups that answered."""

    at_s: float
    groups: Mapping[str, Mapping[SeriesKey, float]]


def read_text(text: str) -> dict[SeriesKey, float] | None:
    """Return the samples of a worker's metrics that are shown; None if the text is none."""
    known: Known = {}
    try:
        return {_key(series): value for _, series, value in read_exposition(text, _WANTED, known)}
    except MalformedText:
        return None


def _key(series: SeriesName) -> SeriesKey:
    return series.name, tuple(sorted(series.labels.items()))


class Samples:
    """The scrapes of the last minutes."""

    def __init__(self, window_s: float = STATUS_WINDOW_S) -> None:
        self._window_s = window_s
        self._scrapes: deque[Scrape] = deque()

    def add(self, scrape: Scrape) -> None:
        self._scrapes.append(scrape)
        while scrape.at_s - self._scrapes[0].at_s > self._window_s:
            self._scrapes.popleft()

    @property
    def span_s(self) -> float:
        """Return the time that latencies are of; 0: there are none yet."""
        if len(self._scrapes) < 2:
            return 0.0
        span_s = self._scrapes[-1].at_s - self._scrapes[0].at_s
        return span_s if span_s >= LEAST_S else 0.0

    def gauges(self, group: str) -> dict[str, float]:
        """Return what a group measures now, by the names of GAUGES; what it does not tell is left out."""
        found = self._scrapes[-1].groups.get(group, {}) if self._scrapes else {}
        by_name: dict[str, float] = {}
        for (name, _), value in found.items():
            by_name[name] = by_name.get(name, 0.0) + value
        return {short: by_name[name] for short, name in GAUGES.items() if isfinite(by_name.get(name, nan))}

    def latency(self, slo_class: str, signal: str, per_cent: float) -> float | None:
        """Return a percentile in seconds; None without a request, or too early."""
        if not self.span_s:
            return None
        wanted = f"{HISTOGRAMS[signal]}_bucket"
        groups: dict[str, list[tuple[float, float]]] = {}
        for group, labels, count in self._increases(wanted):
            if labels.get("slo_class") == slo_class:
                with suppress(KeyError, ValueError):  # a bucket without an edge is none
                    groups.setdefault(group, []).append((float(labels["le"]), count))
        buckets = [Buckets(slo_class, signal, self._window_s, tuple(sorted(each))) for each in groups.values()]
        return percentile(summed(buckets, slo_class, signal, self._window_s), per_cent)

    def attainment(self, slo_class: str) -> float | None:
        """Return the share of requests that met every threshold; None without a request, or too early."""
        if not self.span_s:
            return None
        ended = {"true": 0.0, "false": 0.0}
        for _, labels, count in self._increases(ATTAINED):
            if labels.get("slo_class") == slo_class and labels.get("met") in ended:
                ended[labels["met"]] += count
        whole = sum(ended.values())
        return ended["true"] / whole if whole else None

    def decisions(self) -> dict[tuple[str, str], float] | None:
        """Return how many chats were decided, by mode and by whom; None too early, or where no group counts that."""
        if not self.span_s:
            return None
        decided: dict[tuple[str, str], float] = {}
        for _, labels, count in self._increases(DECISIONS):
            key = labels.get("mode", ""), labels.get("by", "")
            decided[key] = decided.get(key, 0.0) + count
        return decided or None

    def _increases(self, wanted: str) -> Iterable[tuple[str, Mapping[str, str], float]]:
        """Yield what each series of a metric has counted since the first scrape of its group that had the metric.

        While a worker's server does not answer, its series are not there, and what it counted before is no news.
        """
        for group, samples in self._scrapes[-1].groups.items():
            those = (scrape.groups[group] for scrape in self._scrapes if group in scrape.groups)
            before = next((each for each in those if any(name == wanted for name, _ in each)), {})
            for (name, labels), value in samples.items():
                if name == wanted:
                    yield group, dict(labels), increase(before.get((name, labels), 0.0), value)
