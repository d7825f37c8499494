"""The gateway's Prometheus metrics. Every series exists from the start: nothing missing is to be read as zero.

But for what is measured by class: of a model with a group that answers without frames not all can be measured, so
nothing is told, and what its workers measure counts. Labels are bounded: names of models are those of the
configuration, never what a client sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from glm_edge.metrics.exposition import Exposition, without_created
from glm_gateway.ladder.promises import RawHeaders
from glm_gateway.metrics.classes import ModelClasses, families
from glm_gateway.metrics.standing import StandingOf
from glm_gateway.metrics.times import RequestTimes
from glm_gateway.models.model import Model
from glm_gateway.proxy.relay.outcome import Outcome
from glm_gateway.proxy.relay.result import Result
from glm_gateway.routing.pick import Why
from glm_gateway.surfaces.routes import Api
from glm_gateway.surfaces.thinking import Mode

HOLD_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(frozen=True)
class Owner:
    """The deployment that a series is about, as its workers' series name it. Empty: the file does not say."""

    namespace: str = ""
    deployment: str = ""

    @property
    def labels(self) -> dict[str, str]:
        said = {"namespace": self.namespace, "deployment": self.deployment}
        return {label: value for label, value in said.items() if value}


@dataclass
class Owners:
    """The deployments of the models, and whose gateway this is: the first one's. What is no model is the gateway's."""

    first: Owner = field(default_factory=Owner)
    of_model: dict[str, Owner] = field(default_factory=dict)

    def take(self, owners: Mapping[str, Owner]) -> None:
        """Take the models that are served now; those that were, and have requests left, stay whose they are."""
        self.first = next(iter(owners.values()), self.first)
        self.of_model |= owners

    def labelled(self, family: Metric) -> Metric:
        """Return the family with series that say whose they are."""
        told = Metric(family.name, family.documentation, family.type)
        told.samples = [self._labelled(sample) for sample in family.samples]
        return told

    def _labelled(self, sample: Sample) -> Sample:
        owner = self.of_model.get(sample.labels.get("model", ""), self.first)
        return sample._replace(labels={**owner.labels, **sample.labels})


class Telemetry:
    """models: all that are served at first."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.registry = CollectorRegistry()
        self.owners = Owners()
        self._page = Exposition({})
        self._classes: dict[str, ModelClasses] = {}
        self._requests = self._counter("requests", "Requests that have ended.", "api", "outcome")
        self._continued = self._counter(
            "continuations",
            "Replies that another group was to go on with, each time counted. taken_up: it did; given_up: none did.",
            "outcome",
        )
        self._drained = self._counter(
            "drain_cuts", "Requests that ended in an error, as the drain of their group was over before they were."
        )
        self._picks = self._counter("picks", "Choices of a group, by what decided.", "why")
        self._held = Histogram(
            "glm_gateway_hold_seconds",
            "What requests waited for a group, of those that waited.",
            ["model"],
            buckets=HOLD_SECONDS,
            registry=self.registry,
        )
        self._cut = Counter(
            "glm_gateway_requests_cut",
            "Requests that did not end before the deadline of a drain.",
            registry=self.registry,
        )
        self._is_current = Gauge(
            "glm_gateway_config_is_current",
            "1: all of the file as it is now is in use. 0: it is bad, or needs a new start; /state says which.",
            registry=self.registry,
        )
        self._is_current.set(1)
        self._models: dict[str, Model] = {}
        self.registry.register(StandingOf(self._models))
        for model in models:
            self.add(model)

    def add(self, model: Model) -> None:
        """Begin the series of a model."""
        self._models[model.name] = model
        self._classes[model.name] = ModelClasses(model.name)
        self._begin(model.name)

    def begin(self, name: str) -> None:
        """Begin the series of a server outside. Again changes nothing."""
        self._classes.setdefault(name, ModelClasses(name, is_outside=True))
        self._begin(name)

    def drop(self, model: str) -> None:
        """End the series of a model that is served no more, and has no requests."""
        del self._models[model], self._classes[model]
        for metric, *labels in self._series(model):
            metric.remove(*labels)

    def cut(self, number: int) -> None:
        """Count requests that a drain did not wait for any longer."""
        self._cut.inc(number)

    def cut_by_drain(self, model: str) -> None:
        """Count a request that ended with its group, which was leaving, and that no other group could go on with."""
        self._drained.labels(model).inc()

    def tell_current(self, *, is_current: bool) -> None:
        """Note whether all of the file is in use."""
        self._is_current.set(is_current)

    def picked(self, model: str, why: Why) -> None:
        """Count a choice of a group."""
        self._picks.labels(model, why).inc()

    def watch(
        self, name: str, headers: RawHeaders, *, mode: Mode | None, streams: bool, arrived_s: float
    ) -> RequestTimes:
        """Return what measures a request. name: the model's or the outside server's that is asked.

        headers: of the client. mode: of thinking, as the request asks for it. arrived_s: when it was whole, monotonic.
        """
        model = self._models.get(name)
        classes = self._classes.get(name)
        if classes is None:
            classes = self._classes[name] = ModelClasses(name, is_outside=model is None)
        if model is not None:
            classes.promise(model.slo)
            mode = mode or model.default_mode
        return RequestTimes(classes, headers, mode=mode, streams=streams, arrived_s=arrived_s)

    def ended(self, model: str, api: Api, result: Result, *, waited_s: float) -> None:
        """Count a request that has ended. waited_s: for a group."""
        self._requests.labels(model, api, result.outcome).inc()
        progress = result.progress
        self._continued.labels(model, "taken_up").inc(progress.num_taken_up)
        self._continued.labels(model, "given_up").inc(progress.num_times - progress.num_taken_up)
        if waited_s > 0:
            self._held.labels(model).observe(waited_s)

    def families(self) -> list[Metric]:
        """Return all metrics, without whose they are."""
        return [*without_created(self.registry.collect()), *families(self._told_classes())]

    def exposition(self) -> bytes:
        """Return all metrics in the text format, each with whose it is."""
        return self._page.text(map(self.owners.labelled, self.families())).encode()

    def _told_classes(self) -> Iterator[ModelClasses]:
        """Yield the classes of whom all requests can be measured, as they are promised now."""
        for name, classes in self._classes.items():
            model = self._models.get(name)
            if model is not None:
                if any(model.is_plain(group.name) for group in model.directory.groups):
                    continue
                classes.promise(model.slo)
            classes.look()
            yield classes

    def _begin(self, name: str) -> None:
        for metric, *labels in self._series(name):
            metric.labels(*labels)

    def _series(self, model: str) -> Iterator[tuple[Counter | Histogram, *tuple[str, ...]]]:
        """Yield all series of a model: a metric, and its labels."""
        for api in Api:
            for outcome in Outcome:
                yield self._requests, model, api, outcome
        for why in get_args(Why):
            yield self._picks, model, why
        for taken in ("taken_up", "given_up"):
            yield self._continued, model, taken
        for each in (self._drained, self._held):
            yield each, model

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"glm_gateway_{name}", text, ["model", *labels], registry=self.registry)
