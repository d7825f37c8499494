"""The operator's own Prometheus metrics. Every series exists from the start: nothing missing is to be read as zero."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from glm_operator.api.reasons import REASONS, Reason, Severity
from glm_operator.api.status import CONDITION_TYPES, ConditionStatus
from glm_operator.autoscale.decision import Cause, Limit
from glm_operator.autoscale.signals import Input, State
from glm_operator.status.measured import Measured

Name = tuple[str, str]  # namespace, name
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

QUERY_ERRORS: tuple[Reason, ...] = ("NoSeries", "MetricsStale", "MetricsUnreachable", "MetricsRefused")

OUTCOMES = ("unchanged", "changed", "gone", "unavailable", "error")
"""unavailable: the API server did not do it this time; error: a fault of the operator itself, with a traceback."""


class Watched(Protocol):
    """A watch, as far as its metrics go."""

    kind: str
    restarts: int

    def age_s(self) -> float: ...


class _Watches(Collector):
    """How long ago each kind's watches last heard anything, and how often one was given up as silent."""

    def __init__(self, watches: Sequence[Watched]) -> None:
        self._watches = watches

    def collect(self) -> Iterable[Metric]:
        age = GaugeMetricFamily(
            "glm_operator_watch_age_seconds",
            "Time since the watch of a kind last heard an event, a bookmark or a list; of several the oldest.",
            labels=["kind"],
        )
        restarts = CounterMetricFamily(
            "glm_operator_watch_restarts", "Watches that said nothing and were begun anew.", labels=["kind"]
        )
        for kind in sorted({watch.kind for watch in self._watches}):
            of_kind = [watch for watch in self._watches if watch.kind == kind]
            age.add_metric([kind], max(watch.age_s() for watch in of_kind))
            restarts.add_metric([kind], sum(watch.restarts for watch in of_kind))
        return [age, restarts]


class _Conditions(Collector):
    """What the status of each deployment claims: its series come and go with it."""

    def __init__(self, statuses: Callable[[], Mapping[Name, Mapping[str, Any]]]) -> None:
        self._statuses = statuses

    def collect(self) -> Iterable[Metric]:
        holds = GaugeMetricFamily(
            "glm_operator_condition",
            "1 for the status that a condition of a GLMDeployment has.",
            labels=["namespace", "deployment", "type", "status"],
        )
        bad = GaugeMetricFamily(
            "glm_operator_condition_is_bad",
            "1 while the reason of a condition of a GLMDeployment is one that wants somebody to act.",
            labels=["namespace", "deployment", "type"],
        )
        stuck = GaugeMetricFamily(
            "glm_operator_rollout_stuck",
            "1 while a rollout stands still at a group that does not become available.",
            labels=["namespace", "deployment"],
        )
        for name, status in self._statuses().items():
            found = {condition["type"]: condition for condition in status.get("conditions") or []}
            for kind in CONDITION_TYPES:
                is_so = found.get(kind, {}).get("status", "Unknown")
                for each in get_args(ConditionStatus):
                    holds.add_metric([*name, kind, each], float(each == is_so))
                meaning = REASONS.get(found.get(kind, {}).get("reason", ""))
                bad.add_metric([*name, kind], float(meaning is not None and meaning.severity is Severity.BAD))
            stuck.add_metric([*name], float(found.get("Progressing", {}).get("reason") == "RolloutStuck"))
        return [holds, bad, stuck]


class _Certificates(Collector):
    """When the certificates end that gateways and workers have: a deployment's series goes with it."""

    def __init__(self, ends: Callable[[], Mapping[Name, datetime]]) -> None:
        self._ends = ends

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "glm_operator_certificates_end_timestamp_seconds",
            "When the first certificate between a gateway and its workers ends, as it was last seen.",
            labels=["namespace", "deployment"],
        )
        for name, ends in self._ends().items():
            family.add_metric([*name], ends.timestamp())
        return [family]


class _Autoscaler(Collector):
    """What the autoscaler saw and decided last: a deployment's series come and go with it."""

    def __init__(self, measured: Callable[[], Mapping[Name, Measured]], gpu_budgets: Mapping[str, int]) -> None:
        self._measured = measured
        self._gpu_budgets = gpu_budgets

    def collect(self) -> Iterable[Metric]:
        found = {name: each for name, each in self._measured().items() if each.situation is not None}
        return [*self._groups(found), *self._inputs(found), *self._decisions(found), self._budgets()]

    def _groups(self, found: Mapping[Name, Measured]) -> Iterable[Metric]:
        for what, help_text, value in (
            ("desired_groups", "Groups that there should be, within all limits.", _desired),
            ("spec_groups", "Groups that spec.replicas asks for.", _spec_groups),
            ("serving_groups", "Groups that serve.", lambda each: each.situation.serving),
            ("starting_groups", "Groups that are wanted and do not serve yet.", lambda each: each.situation.starting),
            (
                "gpus",
                "GPUs that the wanted groups take.",
                lambda each: _spec_groups(each) * each.situation.gpus_per_group,
            ),
            (
                "static_groups",
                "Smallest fixed fleet that would have carried the last day.",
                lambda each: each.static_groups,
            ),
            (
                "groups_without_promises",
                "Groups that serve and measure by other promises than spec.slo, or by none.",
                lambda each: len(each.unpromised),
            ),
            (
                "metrics_age_seconds",
                "Age of the newest sample; -1: there is none.",
                lambda each: _seconds_since(each.sampled_at_s),
            ),
        ):
            family = GaugeMetricFamily(f"glm_autoscaler_{what}", help_text, labels=["namespace", "deployment"])
            for name, each in found.items():
                family.add_metric([*name], value(each))
            yield family

    def _inputs(self, found: Mapping[Name, Measured]) -> Iterable[Metric]:
        of_input = ["namespace", "deployment", "input"]
        value = GaugeMetricFamily("glm_autoscaler_input", "An input of the last decision.", labels=of_input)
        age = GaugeMetricFamily(
            "glm_autoscaler_input_age_seconds", "Age of the oldest sample in it; -1: there is none.", labels=of_input
        )
        state = GaugeMetricFamily(
            "glm_autoscaler_input_state", "1 for what is known of it.", labels=[*of_input, "state"]
        )
        for name, each in found.items():
            inputs = each.decision.inputs if each.decision is not None else {}
            for what, known in inputs.items():
                if isinstance(known, Input):
                    value.add_metric([*name, what], known.value)
                    age.add_metric([*name, what], _seconds_since(known.at_s))
                    for one in State:
                        state.add_metric([*name, what, one.value], float(one is known.state))
        return value, age, state

    def _decisions(self, found: Mapping[Name, Measured]) -> Iterable[Metric]:
        limited = GaugeMetricFamily(
            "glm_autoscaler_limited",
            "1 for what keeps the last decision from what the load asks for.",
            labels=["namespace", "deployment", "limit"],
        )
        decided = CounterMetricFamily(
            "glm_autoscaler_decisions",
            "Decisions by what they were for and which way they went.",
            labels=["namespace", "deployment", "reason", "direction"],
        )
        infeasible = GaugeMetricFamily(
            "glm_autoscaler_slo_infeasible",
            "1 while more groups cannot keep the promise of a class.",
            labels=["namespace", "deployment", "slo_class"],
        )
        for name, each in found.items():
            decision = each.decision
            for limit in get_args(Limit):
                is_so = decision is not None and decision.limited_by == limit
                limited.add_metric([*name, limit], float(is_so))
            for cause in get_args(Cause):
                for direction in ("up", "down", "hold"):
                    decided.add_metric([*name, cause, direction], each.decided.get((cause, direction), 0))
            for slo_class in each.classes:
                why = decision is not None and slo_class.name in decision.infeasible
                infeasible.add_metric([*name, slo_class.name], float(why))
        return limited, decided, infeasible

    def _budgets(self) -> Metric:
        family = GaugeMetricFamily(
            "glm_autoscaler_namespace_gpu_budget",
            "Most GPUs that the groups of a namespace may take together.",
            labels=["namespace"],
        )
        for namespace, gpus in sorted(self._gpu_budgets.items()):
            family.add_metric([namespace], gpus)
        return family


def _spec_groups(measured: Measured) -> int:
    return measured.situation.spec_groups if measured.situation is not None else 0


def _desired(measured: Measured) -> int:
    return measured.decision.desired if measured.decision is not None else _spec_groups(measured)


def _seconds_since(at_s: float | None) -> float:
    return -1.0 if at_s is None else max(0.0, time.time() - at_s)


class Telemetry:
    """Metrics of one operator process, in a registry of their own."""

    def __init__(
        self,
        *,
        age_s: Callable[[], float],
        queue_length: Callable[[], int],
        watches: Sequence[Watched] = (),
        measured: Callable[[], Mapping[Name, Measured]] = dict,
        statuses: Callable[[], Mapping[Name, Mapping[str, Any]]] = dict,
        gpu_budgets: Mapping[str, int] | None = None,
        certificates: Callable[[], Mapping[Name, datetime]] = dict,
    ) -> None:
        """measured: the autoscaler's last looks. statuses: of every deployment, as the watches know them.

        certificates: when those of a deployment end.
        """
        self.registry = CollectorRegistry()
        self.registry.register(_Conditions(statuses))
        self.registry.register(_Certificates(certificates))
        self.registry.register(_Autoscaler(measured, gpu_budgets or {}))
        self.registry.register(_Watches(watches))
        self._duration = Histogram(
            "glm_operator_reconcile_duration_seconds",
            "Time of one pass over one GLMDeployment.",
            ["outcome"],
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._errors = Counter(
            "glm_operator_reconcile_errors_total",
            "Passes that failed and are tried again.",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in OUTCOMES:
            self._duration.labels(outcome)
        for outcome in ("unavailable", "error"):
            self._errors.labels(outcome)
        age = Gauge(
            "glm_operator_last_pass_age_seconds",
            "Time since a pass ended well, or none was due while watches spoke; rises while the API server is away.",
            registry=self.registry,
        )
        age.set_function(age_s)
        length = Gauge("glm_operator_queue_length", "Deployments that wait for a pass.", registry=self.registry)
        length.set_function(queue_length)

        self._queries = Histogram(
            "glm_autoscaler_query_duration_seconds",
            "Time of one query of Prometheus.",
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._query_errors = Counter(
            "glm_autoscaler_query_errors_total",
            "Queries of Prometheus that failed, by the reason that MetricsAvailable gives.",
            ["reason"],
            registry=self.registry,
        )
        for reason in QUERY_ERRORS:
            self._query_errors.labels(reason)

    def asked(self, duration_s: float, reason: Reason | None) -> None:
        """Count one query of Prometheus. reason: why it failed, if it did."""
        self._queries.observe(duration_s)
        if reason is not None:
            self._query_errors.labels(reason).inc()

    def passed(self, outcome: str, duration_s: float) -> None:
        """Count one pass."""
        self._duration.labels(outcome).observe(duration_s)
        if outcome in ("unavailable", "error"):
            self._errors.labels(outcome).inc()
