"""HPA on something like CPU: the share of time in which a group computes.

Source: Kubernetes' HPA with a Resource metric; target 80 % is what `kubectl autoscale` sets when nothing is given. The
share is that of the last 30 s, as metrics-server has it. An engine that batches is busy from its first request on.
"""

from glm_operator.autoscale.baselines.hpa import SYNC_S, Behavior, by_pods
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "target utilisation"
KNOBS = (0.5, 0.65, 0.8, 0.9, 0.95)
DEFAULT = 0.8


class HpaCpu:
    name = "HPA CPU"
    period_s = SYNC_S

    def __init__(self, target: float = DEFAULT) -> None:
        self._target = target
        self._behavior = Behavior()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            busy = view.rate("busy_seconds_total", 30.0)
        except Away:
            return Verdict(current)
        recommended = by_pods(busy, self._target, current, situation.serving)
        return Verdict(self._behavior.settle(view.now_s, current, recommended))
