"""HPA on the queue: requests that wait, on the average of pods.

Source: Kubernetes' HPA with a Pods metric through an adapter; Google's guide for vLLM on GKE starts with a target of 3
to 5 waiting requests. The default here is 5.
"""

from glm_operator.autoscale.baselines.hpa import SYNC_S, Behavior, by_pods
from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "waiting requests a pod"
KNOBS = (1.0, 2.0, 5.0, 10.0, 20.0)
DEFAULT = 5.0


class HpaQueue:
    name = "HPA queue"
    period_s = SYNC_S

    def __init__(self, target: float = DEFAULT) -> None:
        self._target = target
        self._behavior = Behavior()

    def decide(self, view: View, situation: Situation) -> Verdict:
        current = situation.spec_groups
        try:
            waiting = view.latest("glm_num_requests_waiting")
        except Away:
            return Verdict(current)
        recommended = by_pods(waiting, self._target, current, situation.serving)
        return Verdict(self._behavior.settle(view.now_s, current, recommended))
