"""Samples of one deployment to signals: what each group and each class shows now. Pure and total.

Several series of one name and group (ranks, classes, kinds) are added up, or the largest counts; never the last.
Groups that are not expected are left out, so what a deleted pod left behind counts nowhere.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import lt

from glm_operator.api.duration import to_seconds
from glm_operator.api.slo import Signal, Slo, SloClass
from glm_operator.autoscale.constants import AHEAD_S, ENDED_INTERVALS, HUGE, HUNG_S, LATENCY_STALE_S, MIN_ENDED
from glm_operator.autoscale.estimate import latency, samples
from glm_operator.autoscale.series import (
    BURN_WINDOW_S,
    DEMAND_WINDOW_S,
    SHORT_WINDOW_S,
    STATUS_WINDOW_S,
    Latencies,
    Sample,
    Series,
)
from glm_operator.autoscale.signals import UNKNOWN, ClassSignals, GroupSignals, Input, Signals, State

SUMMED: Mapping[str, str] = {
    "glm_num_requests_running": "requests_running",
    "glm_num_requests_waiting": "requests_waiting",
    "glm_prompt_tokens_waiting": "prompt_tokens_waiting",
    "glm_prompt_tokens_left": "prompt_tokens_left",
    "glm_in_flight_tokens": "in_flight_tokens",
    "glm_kv_cache_tokens": "kv_tokens",
    "glm_max_running_requests": "max_running",
}
"""Gauges of which ranks have a share each, and the field of GroupSignals."""

LARGEST: Mapping[str, str] = {
    "glm_oldest_waiting_seconds": "oldest_waiting_s",
    "glm_kv_cache_usage_ratio": "kv_usage",
}
"""Gauges of which the worst rank counts: a queue or a full cache on one of them is not averaged away."""

GAUGES = frozenset({**SUMMED, **LARGEST}.values())

ARRIVALS: Mapping[str, str] = {
    "glm_requests_received_total": "arrivals",
    "glm_prompt_tokens_received_total": "prompt_tokens_arriving",
}

LATELY: Mapping[str, str] = {name: f"{field}_lately" for name, field in ARRIVALS.items()}

SERVED: Mapping[str, str] = {
    "glm_generation_tokens_total": "tokens_generated",
    "glm_requests_total": "requests_ended",
}

RISING: Mapping[str, str] = {"glm_num_requests_running": "running_rising"}
"""Gauges of which the change over the window counts."""

CAPACITY: Mapping[str, str] = {
    "glm_prefill_tokens_total": "prefill_tokens",
    "glm_prefill_busy_seconds_total": "prefill_busy",
    "glm_decode_tokens_total": "decode_tokens",
    "glm_decode_steps_total": "decode_steps",
    "glm_decode_busy_seconds_total": "decode_busy",
}
"""Counters of what a group does; those of its warm-up are left out."""

SERVING, DRAINING, COLD_START = "glm_group_serving_timestamp_seconds", "glm_group_draining", "glm_cold_start_seconds"

NEVER_COMPUTED = frozenset({"refused"})
"""Outcomes of requests that generated nothing, so they say nothing of how long an answer is."""


def read(
    series: Sequence[Series],
    latencies: Latencies | None,
    slo: Slo,
    expected: Collection[str],
    now_s: float,
    warm_up_s: float,
) -> Signals:
    """Return what is known of a deployment at now_s.

    series: raw samples of the last DEMAND_WINDOW_S, with the label `group`; latencies: as last asked for. expected: the
    groups of which the cluster says that they serve. warm_up_s: for so long after its start, what a group does says
    nothing of what it can do; its queue and its arrivals count from the start.
    """
    wanted = frozenset(expected)
    by_group: dict[str, list[Series]] = {}
    for each in series:
        name = each.labels.get("group")
        if name in wanted and each.samples:
            by_group.setdefault(name, []).append(each)
    members = [member for name, found in by_group.items() if (member := _member(name, found)) is not None]
    begin_s = max(now_s - DEMAND_WINDOW_S, min((each.first_s for each in members), default=now_s))
    prompts = _mean_prompts(members) if slo.classes else {}
    groups = {each.group: _group(each, begin_s, warm_up_s) for each in members}
    return Signals(
        groups=groups,
        expected=wanted,
        stale=frozenset(each.group for each in members if not _is_fresh(each, now_s)),
        classes=tuple(_class(each, latencies, prompts.get(each.name), now_s) for each in slo.classes),
        at_s=max((each.at_s for each in groups.values()), default=None),
    )


@dataclass(frozen=True)
class _Member:
    """The series of one group, in order of time and of one target a pod."""

    group: str
    series: tuple[Series, ...]
    first_s: float
    last_s: float  # of the newest samples; of several pods, of the one seen longest ago
    interval_s: float | None


def _is_fresh(member: _Member, now_s: float) -> bool:
    return -AHEAD_S <= now_s - member.last_s <= samples.stale_after(member.interval_s)


def _member(group: str, series: list[Series]) -> _Member | None:
    series = [each for each in map(_in_order, series) if each.samples]
    if not series:
        return None
    longest = max(series, key=lambda each: len(each.samples)).samples
    interval_s = samples.interval(longest)
    series, last_s = _of_live_targets(series, interval_s)
    return _Member(group, tuple(series), longest[0][0], last_s, interval_s)


def _in_order(series: Series) -> Series:
    times = [at_s for at_s, _ in series.samples]
    if times[0] > -HUGE and times[-1] < HUGE and all(map(lt, times, times[1:])):
        return series
    return Series(series.name, series.labels, samples.ordered(series.samples))


def _of_live_targets(series: list[Series], interval_s: float | None) -> tuple[list[Series], float]:
    """Return the series of one target for each pod, and when they were last seen.

    Two scrape jobs may read the same pod: its numbers count once. A pod that was replaced has an address that ended
    beside one that goes on. Pods with other names are other ranks: each counts, and the group is as old as the oldest.
    """
    newest: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for each in series:
        labels = each.labels
        instance = labels.get("instance", "")
        pod = labels.get("pod")
        place = ("pod", pod) if pod else ("host", instance.rpartition(":")[0])
        times = newest.setdefault(place, {})
        target = (labels.get("job", ""), instance)
        times[target] = max(times.get(target, -HUGE), each.samples[-1][0])
    if len(newest) == 1 and len(next(iter(newest.values()))) == 1:
        return series, max(each.samples[-1][0] for each in series)
    last_s = max(at_s for times in newest.values() for at_s in times.values())
    over_s = last_s - ENDED_INTERVALS * interval_s if interval_s is not None else -HUGE
    chosen = {}
    for place, times in newest.items():
        target = min(times, key=lambda each: (-times[each], each))
        if place[0] == "pod" or times[target] >= over_s:
            chosen[target] = times[target]
    kept = [each for each in series if (each.labels.get("job", ""), each.labels.get("instance", "")) in chosen]
    return kept, min(chosen.values())


def _group(member: _Member, begin_s: float, warm_up_s: float) -> GroupSignals:
    by_name: dict[str, list[Series]] = {}
    for each in member.series:
        by_name.setdefault(each.name, []).append(each)
    gauges = _gauges(by_name)
    since_s = _largest(by_name.get(SERVING, ()))
    is_young = since_s is not None and since_s > begin_s
    whole_from_s = begin_s if is_young else None
    warm_s = since_s + warm_up_s if since_s is not None and since_s > 0.0 else None
    rates = {
        **_rates(by_name, ARRIVALS, lambda found: samples.rate(found, whole_from_s)),
        **_rates(by_name, LATELY, lambda found: samples.rate_lately(found, is_young=is_young)),
        **_rates(by_name, SERVED, lambda found: samples.rate(found, whole_from_s)),
        **_rates(by_name, RISING, lambda found: samples.slope(found, whole_from_s)),
        **_capacity(by_name, warm_s, begin_s),
    }
    is_busy = gauges.get("requests_running", 0.0) + gauges.get("requests_waiting", 0.0) > 0.0 and _was_busy(by_name)
    stands_still = rates["prefill_tokens"] == 0.0 and rates["decode_tokens"] == 0.0
    return GroupSignals(
        group=member.group,
        revision=member.series[0].labels.get("revision", ""),
        at_s=member.last_s,
        serving_since_s=since_s if since_s is not None and since_s > 0.0 else None,
        is_draining=bool(_largest(by_name.get(DRAINING, ()))),
        cold_start_s=_cold_start(by_name.get(COLD_START, ())),
        missing=GAUGES - gauges.keys(),
        is_hung=is_busy and stands_still and member.last_s - member.first_s >= HUNG_S,
        **gauges,  # the fields named in SUMMED and LARGEST
        **rates,  # type: ignore[arg-type]  # those named in ARRIVALS, SERVED, RISING and CAPACITY
    )


def _was_busy(by_name: Mapping[str, Sequence[Series]]) -> bool:
    """Whether requests ran or waited when the window began. One that has just come had no step yet, and is no hang."""
    names = ("glm_num_requests_running", "glm_num_requests_waiting")
    return any(each.samples[0][1] > 0.0 for name in names for each in by_name.get(name, ()))


def _gauges(by_name: Mapping[str, Sequence[Series]]) -> dict[str, float]:
    """Return the gauges that every series of a name has a believable value for."""
    found = {}
    for metrics, combine in ((SUMMED, sum), (LARGEST, max)):
        for name, field in metrics.items():
            values = [samples.newest(each.samples) for each in by_name.get(name, ())]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                found[field] = combine(known)
    return found


def _rates(
    by_name: Mapping[str, Sequence[Series]],
    metrics: Mapping[str, str],
    rate: Callable[[Sequence[Sample]], float | None],
) -> dict[str, float | None]:
    """Return the sums of the rates of each metric. None: not every series of it has one."""
    found: dict[str, float | None] = {}
    for name, field in metrics.items():
        counted = [each for each in by_name.get(name, ()) if each.labels.get("outcome") not in NEVER_COMPUTED]
        values = [rate(each.samples) for each in counted]
        known = [value for value in values if value is not None]
        found[field] = sum(known) if known and len(known) == len(values) else None
    return found


def _capacity(by_name: Mapping[str, Sequence[Series]], warm_s: float | None, begin_s: float) -> dict[str, float | None]:
    if warm_s is None or warm_s <= begin_s:
        return _rates(by_name, CAPACITY, samples.rate)
    return _rates(by_name, CAPACITY, lambda found: samples.rate([each for each in found if each[0] >= warm_s]))


def _largest(series: Sequence[Series]) -> float | None:
    values = [samples.newest(each.samples) for each in series]
    return max((value for value in values if value is not None), default=None)


def _cold_start(series: Sequence[Series]) -> float | None:
    seconds = _largest([each for each in series if each.labels.get("phase", "total") == "total"])
    return seconds or None


def _mean_prompts(members: Sequence[_Member]) -> dict[str, float]:
    """Return by class how many uncached prompt tokens a request brings, on average over the window.

    A few requests tell nothing: one long prompt alone would make a promise look infeasible while it is in the window.
    """
    risen: dict[tuple[str, str], float] = {}
    for member in members:
        for each in member.series:
            if each.name in ARRIVALS and (found := samples.increase(each.samples)) is not None:
                about = (each.labels.get("slo_class", ""), ARRIVALS[each.name])
                risen[about] = risen.get(about, 0.0) + found[0]
    return {
        name: risen.get((name, "prompt_tokens_arriving"), 0.0) / count
        for (name, field), count in risen.items()
        if field == "arrivals" and count >= MIN_ENDED
    }


def _class(promise: SloClass, latencies: Latencies | None, mean_prompt: float | None, now_s: float) -> ClassSignals:
    prompt = UNKNOWN if mean_prompt is None else Input(State.VALUE, mean_prompt, now_s)
    if latencies is None or not isfinite(latencies.at_s):
        return ClassSignals(name=promise.name, prompt_tokens=prompt)
    thresholds = promise.thresholds
    asked = _Asked(promise, thresholds, latencies, is_fresh=-AHEAD_S <= now_s - latencies.at_s <= LATENCY_STALE_S)
    short = {signal: asked.counts(signal, SHORT_WINDOW_S) for signal in thresholds}
    return ClassSignals(
        name=promise.name,
        latency={signal: asked.percentile(counts) for signal, counts in short.items()},
        samples={signal: latency.total(counts) for signal, counts in short.items()},
        status_latency={signal: asked.percentile(asked.counts(signal, STATUS_WINDOW_S)) for signal in thresholds},
        prompt_tokens=prompt,
        attainment=asked.attainment(STATUS_WINDOW_S),
        requests_ended=asked.requests_ended(STATUS_WINDOW_S),
        fast_burn=asked.burn(STATUS_WINDOW_S),
        slow_burn=asked.burn(BURN_WINDOW_S),
        budget_left=asked.budget_left(),
    )


@dataclass(frozen=True)
class _Asked:
    """What was asked of the latencies of one class, each answer with its state."""

    promise: SloClass
    thresholds: Mapping[Signal, float]
    latencies: Latencies
    is_fresh: bool

    def counts(self, signal: str, window_s: float) -> latency.Counts:
        return latency.summed(self.latencies.buckets, self.promise.name, signal, window_s)

    def percentile(self, counts: latency.Counts) -> Input:
        if not counts:
            return UNKNOWN
        return self._input(latency.percentile(counts, self.promise.percentile))

    def requests_ended(self, window_s: float) -> float:
        found = latency.attained(self.latencies.attained, self.promise.name, window_s)
        return 0.0 if found is None else found.requests

    def attainment(self, window_s: float) -> Input:
        """Return the share of requests that met everything; of workers that do not count that, of the worst signal."""
        found = latency.attained(self.latencies.attained, self.promise.name, window_s)
        if found is not None:
            return self._input(found.met / found.requests if found.requests > 0.0 else None)
        every = [(self.counts(signal, window_s), edge) for signal, edge in self.thresholds.items()]
        if not all(counts for counts, _ in every):
            return UNKNOWN
        shares = [latency.share_within(counts, edge) for counts, edge in every]
        return self._input(min((share for share in shares if share is not None), default=None))

    def burn(self, window_s: float) -> Input:
        share = self.attainment(window_s)
        if share.state is not State.VALUE:
            return share
        return self._input(latency.burn(share.value, self.promise.objective / 100.0))

    def budget_left(self) -> Input:
        """Return the share of the error budget that is left. Of what the source saw."""
        window_s = to_seconds(self.promise.window)
        burnt = self.burn(window_s)
        found = latency.attained(self.latencies.attained, self.promise.name, window_s)
        if not burnt.is_known or found is None:
            return UNKNOWN if found is None else burnt
        covered = 1.0 if found.covered_s is None else min(max(found.covered_s / window_s, 0.0), 1.0)
        return Input(burnt.state, 1.0 - burnt.value * covered, burnt.at_s)

    def _input(self, value: float | None) -> Input:
        """Return an answer with its state. None: nothing was counted, so there was no traffic."""
        if not self.is_fresh:
            return Input(State.STALE, value or 0.0, self.latencies.at_s)
        if value is None:
            return Input(State.IDLE, 0.0, self.latencies.at_s)
        return Input(State.VALUE, value, self.latencies.at_s)
