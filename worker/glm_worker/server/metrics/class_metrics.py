"""What is measured by class of requests: five histograms with edges of the class's own, and its counts.

The same observations are kept once more without classes and with the usual edges, for vLLM's names: series with
different edges cannot be added up.
"""

from collections.abc import Iterable, Iterator, Mapping
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
    Latencies,
    bucket_edges,
    is_met,
)
from glm_worker.messages import Signal, Slo, SloClass
from glm_worker.server.slo import Headers, class_of

Time = Literal[
    "time_to_first_token",
    "time_to_first_answer_token",
    "inter_token_latency",
    "e2e_request_latency",
    "request_queue_time",
]


@dataclass(frozen=True)
class Timing:
    """One histogram: its text, its usual edges in seconds, and the promise whose threshold is an edge as well."""

    text: str
    buckets: tuple[float, ...]
    signal: Signal

    def histogram(self, thresholds_s: Mapping[Signal, float]) -> Histogram:
        """Return an empty one with the edges of these promises."""
        return Histogram(bucket_edges(self.buckets, thresholds_s.get(self.signal)))


TIMINGS: Mapping[Time, Timing] = {
    "time_to_first_token": Timing("From arrival of a request to its first token.", TTFT_BUCKETS, "ttft"),
    "time_to_first_answer_token": Timing("From arrival to the first token that is no reasoning.", TTFT_BUCKETS, "ttfa"),
    "inter_token_latency": Timing("Between two tokens of a request.", ITL_BUCKETS, "itl"),
    "e2e_request_latency": Timing("From arrival of a request to its last token.", LATENCY_BUCKETS, "e2e"),
    "request_queue_time": Timing("From arrival until the engine begins with a request.", TTFT_BUCKETS, "ttft"),
}


class ClassMeasures:
    """One class. Requests keep theirs from admission to their end, whatever becomes of the class meanwhile."""

    def __init__(self, total: Mapping[Time, Histogram], promise: SloClass | None = None) -> None:
        """total: where every observation is kept a second time. promise: None for what no class matches."""
        self._total = total
        self.promise = promise
        self.num_received = 0
        self.num_prompt_tokens = 0
        self.num_met = 0
        self.num_missed = 0
        self._histograms = self._empty()

    @property
    def thresholds_s(self) -> Mapping[Signal, float]:
        return {} if self.promise is None else self.promise.thresholds_s

    def change(self, promise: SloClass) -> None:
        """Go on with another promise of the same name. Other thresholds begin other series: their edges differ."""
        has_other_edges = promise.thresholds_s != self.thresholds_s
        self.promise = promise
        if has_other_edges:
            self._histograms = self._empty()

    def received(self, num_prompt_tokens: int) -> None:
        """Count a request as it is admitted."""
        self.num_received += 1
        self.num_prompt_tokens += num_prompt_tokens

    def observe(self, time: Time, seconds: float, count: int = 1) -> None:
        """Note a time that was measured count times."""
        self._histograms[time].observe(seconds, count)
        self._total[time].observe(seconds, count)

    def judge(self, promise: SloClass | None, measured: Latencies | None) -> None:
        """Count a request by whether its promise was kept. measured: None for one that failed, or is late already.

        promise: as it was when the request came.
        """
        if promise is None:
            return
        if measured is not None and is_met(promise.thresholds_s, measured):
            self.num_met += 1
        else:
            self.num_missed += 1

    def histogram(self, time: Time) -> Histogram:
        return self._histograms[time]

    def _empty(self) -> dict[Time, Histogram]:
        return {time: timing.histogram(self.thresholds_s) for time, timing in TIMINGS.items()}


class ClassMetrics:
    """The classes there are now. Collects the families with a label slo_class."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._slo = Slo([])
        self._total: dict[Time, Histogram] = {time: timing.histogram({}) for time, timing in TIMINGS.items()}
        self._classes = {DEFAULT_CLASS: ClassMeasures(self._total)}

    def promise(self, slo: Slo) -> None:
        """Measure by these classes from now on. One that stays keeps its counts; one that is gone vanishes."""
        before = self._classes
        self._slo = slo
        self._classes = {DEFAULT_CLASS: before[DEFAULT_CLASS]}
        for promise in slo.classes:
            measures = self._classes[promise.name] = before.get(promise.name) or ClassMeasures(self._total, promise)
            measures.change(promise)

    def of(self, *, thinking: bool, headers: Headers) -> ClassMeasures:
        """Return the class of a request."""
        found = class_of(self._slo.classes, thinking=thinking, headers=headers)
        return self._classes[DEFAULT_CLASS if found is None else found.name]

    def totals(self) -> Iterator[Metric]:
        """Yield the histograms over all classes, with the usual edges."""
        for time, histogram in self._total.items():
            yield self._family(time, [({}, histogram)])

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        for time in TIMINGS:
            of_classes = self._classes.items()
            yield self._family(time, [({"slo_class": name}, own.histogram(time)) for name, own in of_classes])
        received = self._counter(
            "glm_requests_received", "Requests that were admitted, counted as they arrive.", "slo_class"
        )
        tokens = self._counter(
            "glm_prompt_tokens_received",
            "Prompt tokens of admitted requests that no cache holds, counted as the requests arrive.",
            "slo_class",
        )
        judged = self._counter(
            "glm_slo_requests",
            "Requests by whether every threshold of their class was met: missed as soon as that is so, met at their"
            " end. Failed ones and those refused for want of room are missed; those that their client got wrong, or"
            " cancelled while they were in time, are not counted.",
            "slo_class",
            "met",
        )
        thresholds = self._gauge("glm_slo_threshold_seconds", "The promised time.", "slo_class", "signal")
        objectives = self._gauge(
            "glm_slo_objective_ratio", "The share of requests that is to meet every threshold.", "slo_class"
        )
        for name, measures in self._classes.items():
            received.add_metric([self._model, name], measures.num_received)
            tokens.add_metric([self._model, name], measures.num_prompt_tokens)
            if measures.promise is None:
                continue
            judged.add_metric([self._model, name, "true"], measures.num_met)
            judged.add_metric([self._model, name, "false"], measures.num_missed)
            objectives.add_metric([self._model, name], measures.promise.objective)
            for signal in SIGNALS:
                if (threshold_s := measures.thresholds_s.get(signal)) is not None:
                    thresholds.add_metric([self._model, name, signal], threshold_s)
        yield from (received, tokens, judged, thresholds, objectives)

    def _counter(self, name: str, text: str, *labels: str) -> CounterMetricFamily:
        return CounterMetricFamily(name, text, labels=["model", *labels])

    def _gauge(self, name: str, text: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(name, text, labels=["model", *labels])

    def _family(self, time: Time, parts: Iterable[tuple[Mapping[str, str], Histogram]]) -> Metric:
        """Return one family with the series of several histograms, each with labels of its own."""
        family = Metric(f"glm_{time}_seconds", TIMINGS[time].text, "histogram")
        for labels, histogram in parts:
            family.samples += histogram.samples(family.name, {"model": self._model, **labels})
        return family
