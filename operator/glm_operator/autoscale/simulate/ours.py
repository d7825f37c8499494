"""Our law in a simulation: the same reading and the same decision as in the operator, without its I/O. Pure."""

from glm_operator.api.scaling import Scaling
from glm_operator.api.slo import Slo
from glm_operator.autoscale.decide import decide
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.memory import Memory
from glm_operator.autoscale.reading import read
from glm_operator.autoscale.series import DEMAND_METRICS, DEMAND_WINDOW_S, Latencies
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.latencies import latencies
from glm_operator.autoscale.simulate.seen.scraped import Away, View

LATENCY_PERIOD_S = 15.0
LABELS = {"namespace": "models", "deployment": "simulated", "revision": "r1"}


class Ours:
    """Reads demand every 5 s and latencies every 15 s. While Prometheus is away it knows nothing, as with Hold."""

    period_s = 5.0

    def __init__(self, slo: Slo, scaling: Scaling, began_s: float, name: str = "GLM") -> None:
        """began_s: unix time of second 0 of the simulation."""
        self.name = name
        self._slo = slo
        self._scaling = scaling
        self._began_s = began_s
        self._memory = Memory()
        self._latencies: Latencies | None = None

    def decide(self, view: View, situation: Situation) -> Verdict:
        now_s = self._began_s + view.now_s
        try:
            series = view.series(DEMAND_METRICS, DEMAND_WINDOW_S, LABELS, self._began_s)
            if self._latencies is None or now_s - self._latencies.at_s >= LATENCY_PERIOD_S:
                self._latencies = latencies(view.scraped, self._slo, view.now_s, self._began_s)
        except Away:
            series = ()
        warm_up_s = self._scaling.warm_up_seconds
        signals = read(series, self._latencies, self._slo, view.serving, now_s, warm_up_s)
        decision, memory = decide(self._scaling, self._slo, situation, signals, self._memory, now_s)
        is_written = decision.desired != situation.spec_groups and self._scaling.mode == "Active"
        self._memory = memory.noted(decision.desired) if is_written else memory
        return Verdict(decision.desired, f"{decision.cause}: {decision.message}", decision.limited_by)
