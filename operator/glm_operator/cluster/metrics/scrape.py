"""The fall-back: asks the workers' management ports for their metrics and keeps what a decision needs of them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

import httpx

from glm_operator.api.duration import to_seconds
from glm_operator.api.slo import Slo
from glm_operator.autoscale.series import (
    ATTAINED,
    BURN_WINDOW_S,
    DEMAND_METRICS,
    DEMAND_WINDOW_S,
    HISTOGRAMS,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Latencies,
    Sample,
    Series,
)
from glm_operator.cluster.metrics.exposition import Known, MalformedText, SeriesName, read_exposition
from glm_operator.cluster.metrics.reading import Target
from glm_operator.cluster.metrics.windows import (
    COARSER,
    Counter,
    Edge,
    Outcome,
    Risen,
    Totals,
    attained,
    buckets,
    increase,
)

logger = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(1.5, connect=1.0)
DEADLINE_S = 2.0
"""All groups of a deployment are asked at once; who has not answered by then is asked again in the next period."""

LATENCY_STEP_S = 10.0
"""Most of a worker's series are buckets, and reading them costs the most: every second or third scrape will do."""

MAX_CONNECTIONS = 64
MAX_TEXT_BYTES = 8 * 2**20
PAUSE_S = 120.0
"""Where nobody scraped for so long, what rose meanwhile is not of the last minutes. Twice what totals are apart."""

MAX_SERIES = 20_000
"""Of one worker. One that has more is taken for something else."""

SERVING = "glm_group_serving_timestamp_seconds"
_SIGNALS = {f"{histogram}_bucket": signal for signal, histogram in HISTOGRAMS.items()}
_DEMAND = frozenset(DEMAND_METRICS)
WANTED = _DEMAND | _SIGNALS.keys() | {ATTAINED}


@dataclass
class _Ring:
    """The newest samples of a series of demand."""

    name: str
    labels: Mapping[str, str]
    samples: deque[Sample] = field(default_factory=deque)


Rise = dict[Counter, list[float]]
"""By how much counters rose, and by how many samples that is known."""


class _Group:
    """What one group has said so far."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """labels: what it is, whatever it says."""
        self._labels = labels
        self._known: Known = {}
        self._rings: dict[str, _Ring] = {}
        self._counters: dict[str, tuple[Counter, float]] = {}  # of latency: what it is, and its last value
        self._latency_at_s = inf  # when they were read last
        self._has_served = False  # by then

    def read(self, text: str, at_s: float, rise: Rise | None) -> None:
        """Note a text. rise: takes by how much the counters of latency rose; None: they are not read.

        Raises MalformedText, and has noted nothing then.
        """
        samples = list(read_exposition(text, _DEMAND if rise is None else WANTED, self._known))
        if len(self._known) > MAX_SERIES:
            self._known.clear()
            raise MalformedText(f"there are more than {MAX_SERIES} series")
        before, after = self._counters, {}
        new = {
            written: _counter(series)
            for written, series, _ in samples
            if series.name not in _DEMAND and written not in before
        }
        serving_s = max((value for _, series, value in samples if series.name == SERVING), default=0.0)
        is_young = serving_s > self._latency_at_s and not self._has_served  # ranks begin anew, and the server counts on
        for written, series, value in samples:
            if series.name in _DEMAND:
                ring = self._rings.get(written)
                if ring is None:
                    ring = self._rings[written] = _Ring(series.name, {**series.labels, **self._labels})
                ring.samples.append((at_s, value))
                continue
            counter, last = before.get(written) or (new[written], 0.0 if is_young else None)
            after[written] = counter, value
            if rise is not None and last is not None:
                of_counter = rise.setdefault(counter, [0.0, 0.0])
                of_counter[0] += increase(last, value)
                of_counter[1] += 1
        if rise is not None:
            self._counters = after  # a series that is not there any more begins anew if it comes back
            self._latency_at_s, self._has_served = at_s, self._has_served or serving_s > 0.0

    def series(self, since_s: float) -> list[Series]:
        """Return the samples of demand since a moment; forget older ones."""
        found = []
        for written, ring in list(self._rings.items()):
            samples = ring.samples
            while samples and samples[0][0] < since_s:
                samples.popleft()
            if samples:
                found.append(Series(ring.name, ring.labels, tuple(samples)))
            else:
                del self._rings[written]
                self._known.pop(written, None)
        return found


@dataclass
class _Deployment:
    """What the groups of a deployment have said so far."""

    at_s: float  # of the last scrape
    latency_at_s: float = -inf  # of the last one that read latency
    groups: dict[str, _Group] = field(default_factory=dict)
    edges: Totals = field(default_factory=Totals)
    outcomes: Totals = field(default_factory=lambda: Totals(COARSER[-1][0]))
    silent: dict[str, str] = field(default_factory=dict)

    def note(self, risen: Mapping[Counter, Risen]) -> None:
        """Note by how much counters rose since the last scrape that read latency."""
        edges: dict[Counter, Risen] = {each: more for each, more in risen.items() if isinstance(each, Edge)}
        outcomes: dict[Counter, Risen] = {each: more for each, more in risen.items() if isinstance(each, Outcome)}
        if PAUSE_S <= self.at_s - self.latency_at_s < inf:
            # Prometheus answered meanwhile, so nobody looked here. It is of windows alone that reach back to before.
            self.outcomes.add(self.latency_at_s + PAUSE_S / 2.0, outcomes)
            self.edges, edges, outcomes = Totals(), {}, {}
        self.latency_at_s = self.at_s
        self.edges.add(self.at_s, edges)
        self.outcomes.add(self.at_s, outcomes)


class Scraper:
    """Scrapes workers, and answers as Prometheus does, about the time that it has seen itself.

    What a window brings is what rose between scrapes in it: nothing is extrapolated to its ends. The restart of a
    worker begins its counters anew, as increase() has it. What a group shows that served for the first time between two
    scrapes rose from 0. A group that is gone is forgotten; the requests that it answered stay counted.
    """

    def __init__(
        self,
        http: httpx.AsyncClient | None = None,
        *,
        latency_step_s: float = LATENCY_STEP_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        """latency_step_s: a scrape reads latency if the last that did is this long ago."""
        self._latency_step_s = latency_step_s
        self._now = now
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0)
        # trust_env off: pods are never behind a proxy of ours. No gzip: it costs both sides more than the bytes.
        self._http = http or httpx.AsyncClient(
            timeout=TIMEOUT, limits=limits, trust_env=False, headers={"Accept-Encoding": "identity"}
        )
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._kept: dict[tuple[str, str], _Deployment] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def demand(self, namespace: str, deployment: str, targets: Sequence[Target]) -> list[Series]:
        """Scrape every target once; return the samples of DEMAND_METRICS of the last DEMAND_WINDOW_S.

        The samples of a target that does not answer end with the last scrape that it answered.
        """
        kept = self._deployment(namespace, deployment)
        named = {"namespace": namespace, "deployment": deployment}
        kept.groups = {
            target.group: kept.groups.get(target.group) or _Group({**named, "group": target.group})
            for target in targets
        }
        # Who did not answer the last time comes first: with too little time for all, it is not always the same ones.
        ordered = sorted(targets, key=lambda target: target.group not in kept.silent)
        kept.silent = {target.group: f"{target.url} did not answer within {DEADLINE_S:g} s" for target in targets}
        rise: Rise | None = {} if kept.at_s - kept.latency_at_s >= self._latency_step_s else None
        tasks = [asyncio.create_task(self._scrape(kept, target, rise)) for target in ordered]
        if tasks:
            done, late = await asyncio.wait(tasks, timeout=DEADLINE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            for task in done:
                task.result()
        if rise is not None:
            kept.note({counter: Risen(*both) for counter, both in rise.items()})
        since_s = self._now() - DEMAND_WINDOW_S
        return [series for group in kept.groups.values() for series in group.series(since_s)]

    def latencies(self, namespace: str, deployment: str, slo: Slo) -> Latencies:
        """Return what the scrapes of demand() say of the windows, as far as they reach back."""
        kept = self._kept.get((namespace, deployment))
        if kept is None:
            return Latencies(self._now())
        of_edges: list[Buckets] = []
        for window_s in (SHORT_WINDOW_S, STATUS_WINDOW_S):
            risen, _ = kept.edges.within(window_s)
            of_edges += buckets({edge: more for edge, more in risen.items() if isinstance(edge, Edge)}, window_s)
        windows: dict[float, list[str] | None] = {STATUS_WINDOW_S: None, BURN_WINDOW_S: None}
        for each in slo.classes:
            of_window = windows.setdefault(to_seconds(each.window), [])
            if of_window is not None:  # where all classes are asked for anyway
                of_window.append(each.name)
        of_outcomes: list[Attained] = []
        for window_s, only in windows.items():
            risen, covered_s = kept.outcomes.within(window_s)
            rise = {each: more.increase for each, more in risen.items() if isinstance(each, Outcome)}
            of_outcomes += attained(rise, window_s, covered_s, only)
        return Latencies(kept.at_s, tuple(of_edges), tuple(of_outcomes))

    def silent(self, namespace: str, deployment: str) -> Mapping[str, str]:
        """Return the groups that did not answer the last scrape, and why."""
        kept = self._kept.get((namespace, deployment))
        return {} if kept is None else kept.silent

    def forget(self, namespace: str, deployment: str) -> None:
        """Drop what is kept of a deployment that is gone."""
        self._kept.pop((namespace, deployment), None)

    def _deployment(self, namespace: str, deployment: str) -> _Deployment:
        """Return what is kept, ready for a scrape now. Where the clock went back, everything begins anew."""
        now_s = self._now()
        kept = self._kept.get((namespace, deployment))
        if kept is None or now_s <= kept.at_s:
            kept = self._kept[namespace, deployment] = _Deployment(now_s)
        kept.at_s = now_s
        return kept

    async def _scrape(self, kept: _Deployment, target: Target, rise: Rise | None) -> None:
        """Scrape one target, or note why that failed."""
        try:
            async with self._slots:
                at_s = self._now()
                text = await self._get(target.url)
            kept.groups[target.group].read(text, at_s, rise)
            del kept.silent[target.group]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kept.silent[target.group] = f"{target.url}: {str(error) or type(error).__name__}"
        except MalformedText as error:
            kept.silent[target.group] = f"{target.url} sent no metrics: {error}"
            logger.warning("%s sent no metrics: %s", target.url, error)

    async def _get(self, url: str) -> str:
        async with self._http.stream("GET", url) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_TEXT_BYTES:
                    raise MalformedText(f"there are more than {MAX_TEXT_BYTES >> 20} MiB")
        return body.decode(errors="replace")


def _counter(series: SeriesName) -> Counter:
    """Return what a counter of latency counts, whatever group it is of."""
    slo_class = series.labels.get("slo_class", "")
    if series.name == ATTAINED:
        return Outcome(slo_class, series.labels.get("met") == "true")
    try:
        return Edge(_SIGNALS[series.name], slo_class, float(series.labels["le"]))
    except (KeyError, ValueError):
        raise MalformedText(f"{series.name} has a bucket without an edge: {dict(series.labels)}") from None
