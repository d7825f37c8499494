"""KubeAI: a moving average of active requests.

Source: KubeAI's autoscaler and the defaults of its chart: every 10 s, ceil(average over 10 minutes of active requests /
target), target 100. The window begins full of zeros. A scale-down must have been wanted for 30 s.
"""

import math
from collections import deque

from glm_operator.autoscale.decision import Situation
from glm_operator.autoscale.simulate.law import Verdict
from glm_operator.autoscale.simulate.seen.scraped import Away, View

KNOB = "target requests"
KNOBS = (25.0, 50.0, 75.0, 100.0, 125.0)
DEFAULT = 100.0
SLOTS = 60  # of 10 s
DOWN_DELAY_S = 30.0


class KubeAI:
    name = "KubeAI"
    period_s = 10.0

    def __init__(self, target: float = DEFAULT) -> None:
        self._target = target
        self._active = deque([0.0] * SLOTS, maxlen=SLOTS)
        self._fewer_since_s: float | None = None

    def decide(self, view: View, situation: Situation) -> Verdict:
        current, now_s = situation.spec_groups, view.now_s
        try:
            running = sum(view.latest("glm_num_requests_running").values())
            waiting = sum(view.latest("glm_num_requests_waiting").values())
        except Away:
            return Verdict(current)
        self._active.append(running + waiting)
        desired = max(1, math.ceil(sum(self._active) / SLOTS / self._target))
        if desired >= current:
            self._fewer_since_s = None
            return Verdict(desired)
        if self._fewer_since_s is None:
            self._fewer_since_s = now_s
        return Verdict(desired if now_s - self._fewer_since_s >= DOWN_DELAY_S else current)
