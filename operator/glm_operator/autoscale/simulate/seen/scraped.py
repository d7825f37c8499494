"""What Prometheus has of a simulated deployment, and what a law may ask of it. Pure.

An instant value is the newest sample, up to five minutes old; a failed scrape ends it at once, as Prometheus's
staleness does. A window holds the samples that are there. While Prometheus is away every question raises Away.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping

from glm_operator.autoscale.series import Sample, Series
from glm_operator.autoscale.simulate.seen.exposition import Column, Exposition

LOOKBACK_S = 300.0

Row = tuple[float, tuple[float, ...]]


class Away(Exception):
    """Prometheus does not answer."""


class Scraped:
    """Samples by group."""

    def __init__(self, exposition: Exposition) -> None:
        self.exposition = exposition
        self.rows: dict[str, list[Row]] = {}
        self.times: dict[str, list[float]] = {}
        self.is_lost: dict[str, bool] = {}  # whether the newest scrape failed
        self.is_gone: set[str] = set()  # targets that are no more
        self.is_away = False

    def keep(self, group: str, now_s: float, row: tuple[float, ...]) -> None:
        self.rows.setdefault(group, []).append((now_s, row))
        self.times.setdefault(group, []).append(now_s)
        self.is_lost[group] = False

    def lose(self, group: str) -> None:
        self.is_lost[group] = True

    def forget(self, group: str) -> None:
        """The target is no more; its samples stay."""
        self.is_gone.add(group)

    def newest_s(self, group: str) -> float | None:
        times = self.times.get(group)
        return times[-1] if times else None

    def within(self, group: str, now_s: float, window_s: float) -> list[Row]:
        """Return the rows of a window, oldest first."""
        times = self.times.get(group, [])
        return self.rows[group][bisect_right(times, now_s - window_s) :] if times else []


class View:
    """What can be asked at one moment."""

    def __init__(self, scraped: Scraped, now_s: float, serving: frozenset[str] = frozenset()) -> None:
        """serving: groups of which the cluster says that they serve, whatever Prometheus shows."""
        self._scraped = scraped
        self.now_s = now_s
        self.serving = serving

    def latest(self, name: str) -> dict[str, float]:
        """Return the instant value by group, series of one group added up; groups without one are missing."""
        scraped = self.scraped
        places = scraped.exposition.places[name]
        found = {}
        for group, rows in scraped.rows.items():
            if scraped.is_lost[group] or group in scraped.is_gone or self.now_s - rows[-1][0] > LOOKBACK_S:
                continue
            row = rows[-1][1]
            found[group] = sum(row[place] for place in places)
        return found

    def increase(self, name: str, window_s: float) -> dict[str, float]:
        """Return last less first within the window by group; groups with fewer than two samples are missing."""
        scraped = self.scraped
        places = scraped.exposition.places[name]
        found = {}
        for group in self._recent(window_s):
            rows = scraped.within(group, self.now_s, window_s)
            if len(rows) >= 2:
                first, last = rows[0][1], rows[-1][1]
                found[group] = sum(last[place] - first[place] for place in places)
        return found

    def rate(self, name: str, window_s: float) -> dict[str, float]:
        """Return the increase per second between the first and the last sample of the window, by group."""
        scraped = self.scraped
        found = {}
        for group, increase in self.increase(name, window_s).items():
            rows = scraped.within(group, self.now_s, window_s)
            found[group] = increase / (rows[-1][0] - rows[0][0])
        return found

    def average(self, name: str, window_s: float) -> dict[str, float]:
        """Return the mean over the samples of a window by group."""
        scraped = self.scraped
        places = scraped.exposition.places[name]
        found = {}
        for group in self._recent(window_s):
            if rows := scraped.within(group, self.now_s, window_s):
                found[group] = sum(row[place] for _, row in rows for place in places) / len(rows)
        return found

    def quantile(self, histogram: str, share: float, window_s: float) -> float | None:
        """Return a quantile over all groups and classes, interpolated within its bucket; None without observations."""
        merged: dict[float, float] = {}
        for counts in self._counts(histogram, window_s):
            below = 0.0
            for edge, count in counts:
                merged[edge] = merged.get(edge, 0.0) + count - below
                below = count
        total = sum(merged.values())
        if total <= 0:
            return None
        rank, below, lower = share * total, 0.0, 0.0
        for edge in sorted(merged):
            if below + merged[edge] >= rank:
                if edge == float("inf"):
                    return lower
                return lower + (edge - lower) * (rank - below) / merged[edge] if merged[edge] else edge
            below += merged[edge]
            lower = edge
        return lower

    def _counts(self, histogram: str, window_s: float) -> Iterable[list[tuple[float, float]]]:
        """Yield, for every group and class, pairs of edge and increase, cumulative."""
        scraped = self.scraped
        exposition = scraped.exposition
        by_class: dict[str, list[tuple[float, int]]] = {}
        for place in exposition.places[f"{histogram}_bucket"]:
            labels = dict(exposition.columns[place].labels)
            by_class.setdefault(labels["slo_class"], []).append((float(labels["le"]), place))
        for group in self._recent(window_s):
            rows = scraped.within(group, self.now_s, window_s)
            if len(rows) >= 2:
                first, last = rows[0][1], rows[-1][1]
                for edges in by_class.values():
                    yield [(edge, last[place] - first[place]) for edge, place in edges]

    def series(
        self, names: Iterable[str], window_s: float, labels: Mapping[str, str], began_s: float
    ) -> tuple[Series, ...]:
        """Return raw series with the samples of a window, as a range selector would, in unix time.

        labels: added to each. began_s: unix time of second 0 of the simulation.
        """
        scraped = self.scraped
        exposition = scraped.exposition
        places = [(exposition.columns[place], place) for name in names for place in exposition.places.get(name, ())]
        found = []
        for group in self._recent(window_s):
            rows = scraped.within(group, self.now_s, window_s)
            if rows:
                found += [
                    Series(column.name, _labels(column, group, labels), _samples(rows, place, began_s))
                    for column, place in places
                ]
        return tuple(found)

    def _recent(self, window_s: float) -> Iterable[str]:
        edge = self.now_s - window_s
        return [group for group, times in self._scraped.times.items() if times[-1] > edge]

    @property
    def scraped(self) -> Scraped:
        """Everything that Prometheus has. Raises Away."""
        if self._scraped.is_away:
            raise Away
        return self._scraped


def _labels(column: Column, group: str, labels: Mapping[str, str]) -> dict[str, str]:
    return {**labels, "group": group, **dict(column.labels)}


def _samples(rows: list[Row], place: int, began_s: float) -> tuple[Sample, ...]:
    return tuple((began_s + now_s, row[place]) for now_s, row in rows)
