"""The supervisor's own metrics, in a registry of their own; the server's text is appended to theirs.

Every series exists from the start: a counter that appears with its first event cannot be used by rate(). What is true
of the group is told by its leading pod only: from every pod of it, a sum over series would count it several times.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from glm_edge.metrics.exposition import Exposition, without_created
from glm_worker.supervisor.evidence.causes import REASONS, Cause
from glm_worker.supervisor.evidence.history import STATES, History, State

_PHASES = ("import", "generation", "total")
_RECOVERY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Telemetry:
    """The leader's. identity: labels of every series, which say whose they are."""

    def __init__(self, identity: Mapping[str, str] | None = None) -> None:
        self._page = Exposition(identity or {})
        self._registry = CollectorRegistry()
        self._serving_since = Gauge(
            "glm_group_serving_timestamp_seconds",
            "Unix time since which the group serves; 0 while it does not.",
            registry=self._registry,
        )
        self._starting_since = Gauge(
            "glm_group_starting_timestamp_seconds",
            "Unix time since which the group starts, or starts again; 0 while it serves or drains. Failed starts, waits"
            " between them and missing pods are a part of it.",
            registry=self._registry,
        )
        self._draining = Gauge(
            "glm_group_draining", "1 while the group finishes what it has and takes no more.", registry=self._registry
        )
        self._server_answers = Gauge(
            "glm_server_answering",
            "1 while the HTTP server has given its metrics to this page; else all that it measures is missing here.",
            registry=self._registry,
        )
        self._ends = Counter(
            "glm_generation_ends", "Generations that ended, by reason.", ["reason"], registry=self._registry
        )
        self._state = Gauge("glm_group_state", "1 for the state the group is in.", ["state"], registry=self._registry)
        self._generations = Gauge(
            "glm_group_generations", "Generations since this supervisor began.", registry=self._registry
        )
        self._start_failures = Gauge(
            "glm_consecutive_start_failures",
            "Starts in a row that failed: before they served, or right after.",
            registry=self._registry,
        )
        self._cold_start = Gauge(
            "glm_cold_start_seconds",
            "The first start: imports of the zygote, the generation until it served, and all in all.",
            ["phase"],
            registry=self._registry,
        )
        self._recovery = Histogram(
            "glm_recovery_seconds",
            "From the end of a serving generation to the next that serves.",
            buckets=_RECOVERY_BUCKETS,
            registry=self._registry,
        )
        self._server_deaths = Counter(
            "glm_server_deaths", "HTTP servers that ended without being told to.", registry=self._registry
        )
        self._server_recovery = Histogram(
            "glm_server_recovery_seconds",
            "From the end of a server to the next that serves the same generation.",
            buckets=_RECOVERY_BUCKETS,
            registry=self._registry,
        )
        self._is_cold = True
        for reason in REASONS:
            self._ends.labels(reason)
        for phase in _PHASES:
            self._cold_start.labels(phase)

    def serving(
        self, *, start_s: float, cold_start_s: float, import_s: float | None, interrupted_s: float | None
    ) -> None:
        """Record that a generation serves. interrupted_s: since the last one did, None for the first."""
        if interrupted_s is not None:
            self._recovery.observe(interrupted_s)
        if self._is_cold:
            self._is_cold = False
            self._cold_start.labels("import").set(import_s or 0.0)
            self._cold_start.labels("generation").set(start_s)
            self._cold_start.labels("total").set(cold_start_s)

    def server_died(self) -> None:
        self._server_deaths.inc()

    def server_replaced(self, seconds: float) -> None:
        """Record that a generation serves again, with another server."""
        self._server_recovery.observe(seconds)

    def ended(self, cause: Cause) -> None:
        self._ends.labels(cause.reason).inc()

    def render(self, state: State, history: History, *, server_answers: bool) -> str:
        """Return the exposition text."""
        return self._page.text(self.families(state, history, server_answers=server_answers))

    def families(self, state: State, history: History, *, server_answers: bool) -> list[Metric]:
        """Return all metrics."""
        for each in STATES:
            self._state.labels(each).set(each == state)
        self._generations.set(history.num_generations)
        self._start_failures.set(history.consecutive_start_failures)
        self._serving_since.set(history.serving_since if state == "serving" else 0.0)
        self._starting_since.set(0.0 if state in ("serving", "draining") else history.starting_since)
        self._draining.set(state == "draining")
        self._server_answers.set(server_answers)
        return without_created(self._registry.collect())


class FollowerTelemetry:
    """A follower's: how it stands with its leader, which tells the rest."""

    def __init__(self, identity: Mapping[str, str], pod_index: int) -> None:
        self._page = Exposition(identity)
        self._pod = str(pod_index)
        self._registry = CollectorRegistry()
        self._connected = Gauge(
            "glm_follower_connected",
            "1 while this pod is connected to the leading pod of its group.",
            ["pod_index"],
            registry=self._registry,
        )
        self._refused = Gauge(
            "glm_follower_refused",
            "1 while the leading pod refuses this one as a part of its group, for another revision or setting.",
            ["pod_index"],
            registry=self._registry,
        )

    def render(self, *, is_connected: bool, is_refused: bool) -> str:
        """Return the exposition text."""
        return self._page.text(self.families(is_connected=is_connected, is_refused=is_refused))

    def families(self, *, is_connected: bool, is_refused: bool) -> list[Metric]:
        """Return all metrics."""
        self._connected.labels(self._pod).set(is_connected)
        self._refused.labels(self._pod).set(is_refused)
        return without_created(self._registry.collect())
