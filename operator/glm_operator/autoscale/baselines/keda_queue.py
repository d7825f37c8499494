"""KEDA on the queue: the sum of waiting requests, as an external metric with AverageValue.

Source: KEDA's Prometheus scaler, and the threshold of the vLLM production stack's chart: 5 waiting requests, asked
every 15 s. An error holds; an empty result reads as zero while ignoreNullValues is true, which is the default.
"""

from glm_operator.autoscale.baselines.hpa import SYNC_S, Behavior, by_average
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "threshold"
KNOBS = (1.0, 2.0, 5.0, 10.0, 20.0)
DEFAULT = 5.0


class KedaQueue:
    name = "KEDA queue"
    period_s = SYNC_S

    def __init__(self, threshold: float = DEFAULT) -> None:
        self._threshold = threshold
        self._behavior = Behavior()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            total = sum(view.latest("glm_num_requests_waiting").values())  # of nothing: 0
        except Away:
            return Verdict(current)
        return Verdict(self._behavior.settle(view.now_s, current, by_average(total, self._threshold, current)))
