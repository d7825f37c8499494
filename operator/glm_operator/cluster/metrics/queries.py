"""What Prometheus is asked about a deployment, and its answers read into our types. Pure.

Latencies are asked for twice: as the deployment's gateways measured them, what was held included, and as its workers
did. A class that gateways measure is theirs alone; where they tell nothing of it, as those of an older version, or one
that nobody scrapes, the workers' numbers count. Nothing told is never zero.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from glm_operator.autoscale.series import (
    ATTAINED,
    BURN_WINDOW_S,
    DEMAND_METRICS,
    DEMAND_WINDOW_S,
    HISTOGRAMS,
    STATUS_WINDOW_S,
    Attained,
    Buckets,
    Sample,
    Series,
)
from glm_operator.cluster.metrics.recording import of_gateways, recorded_increase, recorded_samples, written
from glm_operator.cluster.metrics.windows import Edge, Outcome, Risen, attained, buckets

OWN_LABELS = frozenset(
    {
        *("namespace", "deployment", "group", "revision", "model", "slo_class"),
        *("kind", "outcome", "phase", "met", "signal", "thinking", "finish_reason", "rank", "mode", "by", "le"),
    }
)
"""Labels that workers give their series. Others were added by whoever scraped: job, instance, pod, a replica, ..."""

STALE_AFTER = "2m"
"""Where there is nothing new, Prometheus is asked whether there was something within this time. A target that fails is
back by then as a rule; a relabelling that hides our series lasts, and is to be told as what it is."""

ALWAYS_THERE = "glm_num_requests_running"
"""A metric of every worker of any version."""

POINTS = 720
"""Looks at a counter in a long window: one of 30 days is looked at every hour."""

By = Literal["gateways", "workers"]
"""Who measured, the one that is preferred first."""

Key = TypeVar("Key", Edge, Outcome)
Value = TypeVar("Value")

_TERM = "term"
"""Label that tells the parts of a query apart; taken from no series of ours."""


class WrongAnswer(ValueError):
    """An answer that is not as Prometheus' HTTP API has it."""


def selector(namespace: str, deployment: str) -> str:
    """Return the matchers of one deployment."""
    return f'namespace="{_escaped(namespace)}",deployment="{_escaped(deployment)}"'


def demand_query(namespace: str, deployment: str) -> str:
    """Return the query for the raw samples that demand is made from."""
    metrics = "|".join(DEMAND_METRICS)
    return f'{{__name__=~"{metrics}",{selector(namespace, deployment)}}}[{DEMAND_WINDOW_S:g}s]'


def earlier_query(namespace: str, deployment: str) -> str:
    """Return the query that tells whether there were series a while ago: how many."""
    return f"count(count_over_time({ALWAYS_THERE}{{{selector(namespace, deployment)}}}[{STALE_AFTER}]))"


def buckets_query(namespace: str, deployment: str, window_s: float, *, is_recorded: bool = False) -> str:
    """Return the query for the histograms of a window: how much each edge rose, and how many samples it has."""
    of = selector(namespace, deployment)
    terms = []
    for by in get_args(By):
        for signal, histogram in HISTOGRAMS.items():
            metric = _as_measured(by, f"{histogram}_bucket")
            if is_recorded:
                rise = f"{recorded_increase(metric, window_s)}{{{of}}}"
                samples = f"{recorded_samples(metric, window_s)}{{{of}}}"
            else:
                window = f"{metric}{{{of}}}[{written(window_s)}]"
                rise = f"sum by (slo_class, le) (increase({window}))"
                samples = f"sum by (slo_class, le) (count_over_time({window}))"
            terms += [_named(f"{by} {signal} increase", rise), _named(f"{by} {signal} samples", samples)]
    return " or ".join(terms)


def attained_query(namespace: str, deployment: str, *, is_recorded: bool = False) -> str:
    """Return the query for the requests that ended within STATUS_WINDOW_S and BURN_WINDOW_S."""
    of = selector(namespace, deployment)
    terms = []
    for by in get_args(By):
        metric = _as_measured(by, ATTAINED)
        for window_s in (STATUS_WINDOW_S, BURN_WINDOW_S):
            window = f"{metric}{{{of}}}[{written(window_s)}]"
            rise = f"{recorded_increase(metric, window_s)}{{{of}}}" if is_recorded else _rise_of_outcomes(window)
            terms.append(_named(f"{by} {window_s:g}", rise))
    return " or ".join(terms)


def long_query(namespace: str, deployment: str, windows_s: Iterable[float], *, is_recorded: bool = False) -> str:
    """Return the query for the requests that ended within long windows, and for how much of each there are samples.

    A counter is looked at POINTS times within a window: 30 days of raw samples are more than Prometheus will load.
    What a group counted between the last look and its end is missing, kept and broken promises alike.
    """
    terms = []
    for window_s in windows_s:
        for by in get_args(By):
            metric = _as_measured(by, ATTAINED)
            name = recorded_increase(metric, STATUS_WINDOW_S) if is_recorded else metric
            series = f"{name}{{{selector(namespace, deployment)}}}"
            step_s = STATUS_WINDOW_S if is_recorded else max(60.0, window_s / POINTS)
            looks = f"[{window_s:.0f}s:{step_s:.0f}s]"
            if is_recorded:  # the increase of 5 minutes, every 5 minutes, added up
                rise = f"sum by (slo_class, met) (sum_over_time({series}{looks}))"
            elif window_s <= BURN_WINDOW_S:
                rise = _rise_of_outcomes(f"{series}[{window_s:.0f}s]")
            else:
                rise = _rise_of_outcomes(f"{series}{looks}")
            covered = f"time() - min(min_over_time(timestamp({series}){looks}))"
            terms += [_named(f"{by} {window_s:g}", rise), _named(f"{by} {window_s:g} covered", covered)]
    return " or ".join(terms)


def read_series(result: object) -> list[Series]:
    """Return the series of a range vector, each of ours once. Raises WrongAnswer.

    The same series may be there several times: scraped by two jobs, by two replicas of Prometheus, or from a pod and
    its successor. Samples of one and then of another are put together; of two at the same time the fresher ones count.
    """
    found: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[Sample, ...]]] = {}
    try:
        for each in _items(result):
            labels = {name: value for name, value in each["metric"].items() if name in OWN_LABELS}
            samples = tuple((float(at_s), float(value)) for at_s, value in each["values"])
            if samples:
                found.setdefault((each["metric"]["__name__"], tuple(sorted(labels.items()))), []).append(samples)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WrongAnswer(f"it sent a series that cannot be read: {error!r}") from error
    return [Series(name, dict(labels), _joined(runs)) for (name, labels), runs in found.items()]


def read_buckets(result: object, window_s: float) -> tuple[Buckets, ...] | None:
    """Return the histograms of a window from the answer to buckets_query; None where there is no sample of any.

    With a single sample of each there is no increase yet: then no histogram is known. Raises WrongAnswer.
    """
    increases: dict[By, dict[Edge, float]] = {by: {} for by in get_args(By)}
    samples: dict[By, dict[Edge, float]] = {by: {} for by in get_args(By)}
    for by, rest, labels, value in _measured(result):
        signal, _, what = rest.partition(" ")
        edge = Edge(signal, labels.get("slo_class", ""), _upper(labels))
        (increases if what == "increase" else samples)[by][edge] = value
    if not any(samples.values()):
        return None
    risen = {
        by: {edge: Risen(increases[by][edge], num) for edge, num in found.items() if edge in increases[by]}
        for by, found in samples.items()
    }
    return buckets(_preferred(risen), window_s)


def read_attained(result: object) -> tuple[Attained, ...]:
    """Return what was attained, from the answer to attained_query. Raises WrongAnswer."""
    found = _outcomes(result)
    windows_s = sorted({window_s for of_windows in found.rise.values() for window_s in of_windows})
    return tuple(each for window_s in windows_s for each in attained(found.within(window_s), window_s, None))


def read_long(result: object, windows_s: Mapping[str, float], max_window_s: float) -> tuple[Attained, ...]:
    """Return what each class attained within its own window. windows_s: by class. Raises WrongAnswer."""
    outcomes = _outcomes(result)
    found: tuple[Attained, ...] = ()
    for slo_class, window_s in windows_s.items():
        asked_s = min(window_s, max_window_s)
        # 5 % are lost at the ends of any window: what is seen of it begins with a sample, not with the window.
        covered_s = outcomes.covered_s(slo_class, asked_s)
        is_whole = covered_s >= 0.95 * asked_s and asked_s == window_s
        found += attained(outcomes.within(asked_s), window_s, None if is_whole else covered_s, [slo_class])
    return found


def _as_measured(by: By, metric: str) -> str:
    """Return the name that a metric of the workers has where it was measured by others."""
    return of_gateways(metric) if by == "gateways" else metric


def _preferred(found: Mapping[By, Mapping[Key, Value]]) -> dict[Key, Value]:
    """Return all of each class from who is preferred of those that tell anything of it: never from both."""
    chosen: dict[Key, Value] = {}
    taken: set[str] = set()
    for by in get_args(By):
        told = {key: value for key, value in found[by].items() if key.slo_class not in taken}
        taken |= {key.slo_class for key in told}
        chosen |= told
    return chosen


def _rise_of_outcomes(window: str) -> str:
    return f"sum by (slo_class, met) (increase({window}))"


def _named(term: str, expr: str) -> str:
    return f'label_replace({expr}, "{_TERM}", "{term}", "", "")'


def _escaped(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value).replace("\n", "\\n")


def _items(result: object) -> list[Any]:
    if not isinstance(result, list):
        raise WrongAnswer("it sent no list of series")
    return result


def _terms(result: object) -> Iterable[tuple[str, Mapping[str, str], float]]:
    """Yield the series of an instant vector: the term of the query they answer, their labels, their value."""
    try:
        for each in _items(result):
            yield each["metric"][_TERM], each["metric"], float(each["value"][1])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WrongAnswer(f"it sent a series that cannot be read: {error!r}") from error


def _upper(labels: Mapping[str, str]) -> float:
    try:
        return float(labels["le"])
    except (KeyError, ValueError) as error:
        raise WrongAnswer(f"it sent a bucket without an edge: {dict(labels)}") from error


def _measured(result: object) -> Iterable[tuple[By, str, Mapping[str, str], float]]:
    """Yield the series of an instant vector whose terms begin with who measured."""
    for term, labels, value in _terms(result):
        first, _, rest = term.partition(" ")
        by = next((each for each in get_args(By) if each == first), None)
        if by is None:
            raise WrongAnswer(f"it sent a term that nobody asked for: {term}")
        yield by, rest, labels, value


@dataclass
class _Outcomes:
    """What rose, and how much was seen, by who measured and window."""

    rise: dict[By, dict[float, dict[Outcome, float]]]
    covered: dict[By, dict[float, float]]

    def within(self, window_s: float) -> dict[Outcome, float]:
        return _preferred({by: of_windows.get(window_s, {}) for by, of_windows in self.rise.items()})

    def covered_s(self, slo_class: str, window_s: float) -> float:
        """Return how much of a window was seen by whom a class is taken from."""
        for by, of_windows in self.rise.items():
            if any(outcome.slo_class == slo_class for outcome in of_windows.get(window_s, {})):
                return self.covered[by].get(window_s, 0.0)
        return 0.0


def _outcomes(result: object) -> _Outcomes:
    found = _Outcomes({by: {} for by in get_args(By)}, {by: {} for by in get_args(By)})
    for by, rest, labels, value in _measured(result):
        window, _, what = rest.partition(" ")
        if what:
            found.covered[by][float(window)] = value
        else:
            outcome = Outcome(labels.get("slo_class", ""), labels.get("met") == "true")
            found.rise[by].setdefault(float(window), {})[outcome] = value
    return found


def _joined(runs: list[tuple[Sample, ...]]) -> tuple[Sample, ...]:
    """Return the samples of one series that was stored as several, in order of time."""
    runs.sort(key=lambda run: (run[-1][0], len(run)))
    newest = runs[-1]
    for run in reversed(runs[:-1]):
        if run[-1][0] < newest[0][0]:
            newest = run + newest
    return newest
