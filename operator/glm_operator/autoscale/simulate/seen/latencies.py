"""What the latency queries of the operator would have brought at one moment of a simulation. Pure."""

from glm_operator.api.duration import to_seconds
from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import (
    ATTAINED,
    BURN_WINDOW_S,
    HISTOGRAMS,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
)
from glm_operator.autoscale.simulate.seen.exposition import Column
from glm_operator.autoscale.simulate.seen.scraped import Away, Scraped

_Increase = dict[int, float]


def latencies(scraped: Scraped, slo: Slo, now_s: float, began_s: float) -> Latencies:
    """Return the increase of histograms and of kept promises within their windows, all groups added up.

    now_s: seconds of the simulation. A group's first sample within a window is what it is compared with; a group that
    came within the window counts from its first scrape on. Raises Away.
    """
    if scraped.is_away:
        raise Away
    index = scraped.exposition.index
    buckets, attained = [], []
    cache: dict[float, _Increase] = {}

    def increase(window_s: float) -> _Increase:
        if window_s not in cache:
            cache[window_s] = _increase(scraped, now_s, window_s)
        return cache[window_s]

    for each in slo.classes:
        label = ("slo_class", each.name)
        for signal in each.thresholds:
            edges = (*scraped.exposition.edges[each.name, signal], float("inf"))
            texts = ["+Inf" if edge == float("inf") else f"{float(edge)}" for edge in edges]
            places = [index[Column(f"{HISTOGRAMS[signal]}_bucket", (label, ("le", text)))] for text in texts]
            for window_s in (SHORT_WINDOW_S, STATUS_WINDOW_S):
                found = increase(window_s)
                counts = tuple((edge, found.get(place, 0.0)) for edge, place in zip(edges, places, strict=True))
                buckets.append(Buckets(each.name, signal, window_s, counts))
        met_at = index[Column(ATTAINED, (label, ("met", "true")))]
        missed_at = index[Column(ATTAINED, (label, ("met", "false")))]
        for window_s in sorted({STATUS_WINDOW_S, BURN_WINDOW_S, to_seconds(each.window)}):
            found = increase(window_s)
            met, missed = found.get(met_at, 0.0), found.get(missed_at, 0.0)
            covered_s = now_s if now_s < window_s else None
            attained.append(Attained(each.name, window_s, met + missed, met, covered_s))
    return Latencies(now_s + began_s, tuple(buckets), tuple(attained))


def _increase(scraped: Scraped, now_s: float, window_s: float) -> _Increase:
    """Return the increase of the columns that latencies() reads, by place, groups added up."""
    columns = scraped.exposition.promised
    total: _Increase = dict.fromkeys(columns, 0.0)
    for group, times in scraped.times.items():
        if times[-1] <= now_s - window_s:
            continue
        rows = scraped.within(group, now_s, window_s)
        if len(rows) >= 2:
            first, last = rows[0][1], rows[-1][1]
            for place in columns:
                total[place] += last[place] - first[place]
    return total
