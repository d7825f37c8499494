"""The supervisor's own metrics, in a registry of their own; the server's text is appended to theirs.

Every series exists from the start: a counter that appears with its first event cannot be used by rate().
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from glm_worker.supervisor.causes import REASONS, Cause
from glm_worker.supervisor.history import STATES, History, State

_PHASES = ("import", "generation", "total")
_RECOVERY_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Telemetry:
    """Written by the leader only: a follower has no generations of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
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

    def ended(self, cause: Cause) -> None:
        self._ends.labels(cause.reason).inc()

    def render(self, state: State, history: History) -> str:
        """Return the exposition text."""
        for each in STATES:
            self._state.labels(each).set(each == state)
        self._generations.set(history.num_generations)
        self._start_failures.set(history.consecutive_start_failures)
        return generate_latest(self._registry).decode()
