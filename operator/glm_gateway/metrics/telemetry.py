"""The gateway's Prometheus metrics. Every series exists from the start: nothing missing is to be read as zero.

Labels are bounded: names of models are those of the configuration, never what a client sent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_gateway.models.model import Model
from glm_gateway.proxy.relay import Outcome, Relay
from glm_gateway.routing.pick import Why
from glm_gateway.surfaces.routes import Api

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class _Models(Collector):
    """What stands now, asked when somebody scrapes."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        held = GaugeMetricFamily("glm_gateway_requests_held", "Requests that wait for a group.", labels=["model"])
        oldest = GaugeMetricFamily(
            "glm_gateway_oldest_held_seconds", "How long the first of them has waited.", labels=["model"]
        )
        ready = GaugeMetricFamily("glm_gateway_groups_ready", "Groups that take requests.", labels=["model"])
        plain = GaugeMetricFamily(
            "glm_gateway_groups_plain",
            "Groups that answer without frames, as workers from before: nobody can go on with their replies.",
            labels=["model"],
        )
        tokens = GaugeMetricFamily(
            "glm_gateway_in_flight_tokens",
            "Tokens of this gateway's requests at a group, prompts and answers so far.",
            labels=["model", "group"],
        )
        rung = GaugeMetricFamily(
            "glm_gateway_overload_rung",
            "How far the ladder of overload is climbed: 0 not, 1 short thoughts, 2 none for auto, 3 in turn, 4 shed.",
            labels=["model"],
        )
        shed = CounterMetricFamily(
            "glm_gateway_shed", "Requests that were refused for load while groups took others.", labels=["model"]
        )
        for model in self._models.values():
            rung.add_metric([model.name], model.overload.rung)
            shed.add_metric([model.name], model.overload.num_shed)
            demand = model.demand
            held.add_metric([model.name], demand.num_held)
            oldest.add_metric([model.name], demand.oldest_s)
            ready.add_metric([model.name], sum(group.takes_requests for group in model.directory.groups))
            plain.add_metric([model.name], sum(model.is_plain(group.name) for group in model.directory.groups))
            for group in model.directory.groups:
                tokens.add_metric([model.name, group.name], model.router.book.account(group.name).held)
        yield from (held, oldest, ready, plain, tokens, rung, shed)


class Telemetry:
    """models: all that are served at first."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "glm_gateway_requests",
            "Requests that have ended.",
            ["model", "api", "outcome"],
            registry=self.registry,
        )
        self._continued = Counter(
            "glm_gateway_continuations",
            "Replies that another group went on with, each time counted.",
            ["model"],
            registry=self.registry,
        )
        self._picks = Counter(
            "glm_gateway_picks", "Choices of a group, by what decided.", ["model", "why"], registry=self.registry
        )
        self._ttft = self._histogram("time_to_first_token", "From the arrival of a request to its first token.")
        self._e2e = self._histogram("e2e_request", "From the arrival of a request to the end of its reply.")
        self._held = self._histogram("hold", "What requests waited for a group, of those that waited.")
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
        self.registry.register(_Models(self._models))
        for model in models:
            self.add(model)

    def add(self, model: Model) -> None:
        """Begin the series of a model."""
        self._models[model.name] = model
        self.begin(model.name)

    def begin(self, name: str) -> None:
        """Begin the series of what answers requests: a model, or a server outside. Again changes nothing."""
        for metric, *labels in self._series(name):
            metric.labels(*labels)

    def drop(self, model: str) -> None:
        """End the series of a model that is served no more, and has no requests."""
        del self._models[model]
        for metric, *labels in self._series(model):
            metric.remove(*labels)

    def cut(self, number: int) -> None:
        """Count requests that a drain did not wait for any longer."""
        self._cut.inc(number)

    def tell_current(self, *, is_current: bool) -> None:
        """Note whether all of the file is in use."""
        self._is_current.set(is_current)

    def picked(self, model: str, why: Why) -> None:
        """Count a choice of a group."""
        self._picks.labels(model, why).inc()

    def ended(self, model: str, api: Api, relay: Relay, *, began_s: float, now: float, waited_s: float) -> None:
        """Count a request that has ended. began_s: when it came. waited_s: for a group."""
        self._requests.labels(model, api, relay.outcome).inc()
        self._continued.labels(model).inc(relay.progress.num_times)
        self._e2e.labels(model).observe(now - began_s)
        if relay.first_token_at is not None:
            self._ttft.labels(model).observe(relay.first_token_at - began_s)
        if waited_s > 0:
            self._held.labels(model).observe(waited_s)

    def exposition(self) -> bytes:
        """Return all metrics in the text format."""
        return generate_latest(self.registry)

    def _series(self, model: str) -> Iterator[tuple[Counter | Histogram, *tuple[str, ...]]]:
        """Yield all series of a model: a metric, and its labels."""
        for api in Api:
            for outcome in Outcome:
                yield self._requests, model, api, outcome
        for why in get_args(Why):
            yield self._picks, model, why
        for each in (self._continued, self._ttft, self._e2e, self._held):
            yield each, model

    def _histogram(self, name: str, about: str) -> Histogram:
        return Histogram(f"glm_gateway_{name}_seconds", about, ["model"], buckets=SECONDS, registry=self.registry)
