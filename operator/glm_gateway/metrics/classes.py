"""What is measured by class of requests, as clients have it, with what they wait here for a start and in line.

Classes, edges and verdicts are those of the workers, so that both can be read alike. For one event loop.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from glm_edge.metrics.histogram import Histogram
from glm_edge.metrics.promises import (
    DEFAULT_CLASS,
    ITL_BUCKETS,
    LATENCY_BUCKETS,
    SIGNALS,
    TTFT_BUCKETS,
    Signal,
    bucket_edges,
)
from glm_gateway.ladder.config import SloClassConfig, SloConfig

Time = Literal["time_to_first_token", "time_to_first_answer_token", "inter_token_latency", "e2e_request_latency"]


@dataclass(frozen=True)
class Timing:
    """One histogram: its text, its usual edges in seconds, and the promise whose threshold is an edge as well."""

    text: str
    buckets: tuple[float, ...]
    signal: Signal
    of_outside: bool = False  # a server outside shows as much

    def histogram(self, thresholds_s: Mapping[Signal, float]) -> Histogram:
        """Return an empty one with the edges of these promises."""
        return Histogram(bucket_edges(self.buckets, thresholds_s.get(self.signal)))


TIMINGS: Mapping[Time, Timing] = {
    "time_to_first_token": Timing(
        "From a request's last byte to the first token of its reply, with what it was held.",
        TTFT_BUCKETS,
        "ttft",
        of_outside=True,
    ),
    "time_to_first_answer_token": Timing(
        "From a request's last byte to the first token behind the thoughts, of replies with one answer; counted at "
        "their end.",
        TTFT_BUCKETS,
        "ttfa",
    ),
    "inter_token_latency": Timing(
        "Between two tokens of an answer, with the pause while another group goes on.", ITL_BUCKETS, "itl"
    ),
    "e2e_request_latency": Timing(
        "From a request's last byte to the end of its reply, of those that finished.",
        LATENCY_BUCKETS,
        "e2e",
        of_outside=True,
    ),
}


class Measures:
    """One class. Requests keep theirs from their arrival to their end, whatever becomes of the class meanwhile."""

    def __init__(self, promise: SloClassConfig | None = None) -> None:
        """promise: None for what no class matches."""
        self.promise = promise
        self.num_met = 0
        self.num_missed = 0
        self._histograms = self._empty()

    @property
    def thresholds_s(self) -> Mapping[Signal, float]:
        return {} if self.promise is None else self.promise.thresholds_s

    def change(self, promise: SloClassConfig) -> None:
        """Go on with another promise of the same name. Other thresholds begin other series: their edges differ."""
        has_other_edges = promise.thresholds_s != self.thresholds_s
        self.promise = promise
        if has_other_edges:
            self._histograms = self._empty()

    def observe(self, time: Time, seconds: float, count: int = 1) -> None:
        """Note a time that was measured count times."""
        self._histograms[time].observe(seconds, count)

    def judge(self, *, is_met: bool) -> None:
        """Count a request by whether its promise was kept."""
        if is_met:
            self.num_met += 1
        else:
            self.num_missed += 1

    def histogram(self, time: Time) -> Histogram:
        return self._histograms[time]

    def _empty(self) -> dict[Time, Histogram]:
        return {time: timing.histogram(self.thresholds_s) for time, timing in TIMINGS.items()}


class ModelClasses:
    """The classes of one model, or of a server outside, which has none: what that shows is less."""

    def __init__(self, name: str, *, is_outside: bool = False) -> None:
        self.name = name
        self.is_outside = is_outside
        self.slo: SloConfig | None = None
        self.by_name: Mapping[str, Measures] = {DEFAULT_CLASS: Measures()}
        self.watched: dict[Callable[[], None], None] = {}  # of requests under way: each counts what it has missed

    def promise(self, slo: SloConfig | None) -> None:
        """Measure by these classes from now on. One that stays keeps its counts; one that is gone vanishes."""
        if slo == self.slo:
            return
        self.slo = slo
        classes = {DEFAULT_CLASS: self.by_name[DEFAULT_CLASS]}
        for promise in slo.classes if slo is not None else ():
            measures = classes[promise.name] = self.by_name.get(promise.name) or Measures(promise)
            measures.change(promise)
        self.by_name = classes

    def look(self) -> None:
        """Count what requests under way have missed by now: what waits long is told before it ends."""
        for look in list(self.watched):
            look()


def families(all_models: Iterable[ModelClasses]) -> Iterator[Metric]:
    """Yield every family, with the series of all of these."""
    models = list(all_models)
    for time, timing in TIMINGS.items():
        family = Metric(f"glm_gateway_{time}_seconds", timing.text, "histogram")
        for model in models:
            if model.is_outside and not timing.of_outside:
                continue
            for name, measures in model.by_name.items():
                labels = {"model": model.name, "slo_class": name}
                family.samples += measures.histogram(time).samples(family.name, labels)
        yield family
    judged = CounterMetricFamily(
        "glm_gateway_slo_requests",
        "Requests by whether every threshold of their class was met, here: as glm_slo_requests_total, with what was "
        "held, refused for load or lost.",
        labels=["model", "slo_class", "met"],
    )
    thresholds = GaugeMetricFamily(
        "glm_gateway_slo_threshold_seconds", "The promised time.", labels=["model", "slo_class", "signal"]
    )
    objectives = GaugeMetricFamily(
        "glm_gateway_slo_objective_ratio",
        "The share of requests that is to meet every threshold.",
        labels=["model", "slo_class"],
    )
    for model in models:
        for name, measures in model.by_name.items():
            if measures.promise is None:
                continue
            judged.add_metric([model.name, name, "true"], measures.num_met)
            judged.add_metric([model.name, name, "false"], measures.num_missed)
            objectives.add_metric([model.name, name], measures.promise.objective)
            for signal in SIGNALS:
                if (threshold_s := measures.thresholds_s.get(signal)) is not None:
                    thresholds.add_metric([model.name, name, signal], threshold_s)
    yield from (judged, thresholds, objectives)
